"""Windows over books that are longer than a model's position table, and one row a page back from them.

Layer: `worker.embed.classify`, its bottom; pure, numpy only. A window never holds pages of two books. A page that
several windows saw takes the row of the window in which it stands farthest from a cut, that is where the model saw
most of what surrounds it; the first of equals. Rows are taken, not averaged, so each is one that the model gave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Window:
    """Pages `start` up to `stop` of a book, of which the rows `keep_start` up to `keep_stop` are taken."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def windows_of(pages: int, length: int, overlap: int) -> list[Window]:
    """Windows of `length` pages that cover `pages`, neighbours sharing at least `overlap`; a short book is one.

    The last window ends with the book and so may share more. Raises: ValueError for an overlap not below the length.
    """
    if not 0 <= overlap < length:
        raise ValueError(f"windows of {length} pages cannot share {overlap}")
    if pages <= length:
        return [Window(0, pages, 0, pages)] if pages else []
    starts = [*range(0, pages - length, length - overlap), pages - length]
    # The page in the middle of what two neighbours share is where the one hands over to the other.
    hands = [0, *((left + length + right) // 2 for left, right in zip(starts, starts[1:], strict=False)), pages]
    return [
        Window(start, start + length, first, last) for start, first, last in zip(starts, hands, hands[1:], strict=False)
    ]


def merged(windows: Sequence[Window], rows: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """One row a page from the windows' rows, each of shape (stop - start, classes)."""
    return np.concatenate(
        [
            found[window.keep_start - window.start : window.keep_stop - window.start]
            for window, found in zip(windows, rows, strict=True)
        ]
    )
