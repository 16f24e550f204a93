"""The columns of classified pages in the dataset: the label, how sure, and the probabilities of all labels.

Layer: `worker.finalize`; pure. What they are made of is the side `labels` of a book: one row a good page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from pagemill_core.errors import IntegrityError
from pagemill_worker.embed.classify.labels import SIDE, page_labels

NAMES = ("label", "label_confidence", "label_probabilities")


def label_fields(labels: Sequence[str]) -> list[pa.Field]:
    """The columns of a job that classifies; none of one that does not."""
    if not labels:
        return []
    probabilities = pa.list_(pa.field("element", pa.float32(), nullable=False), len(labels))
    types = (pa.string(), pa.float32(), probabilities)
    return [pa.field(name, kind) for name, kind in zip(NAMES, types, strict=True)]


def label_values(
    sides: Mapping[str, NDArray[Any]], pages: Sequence[Mapping[str, Any]], labels: Sequence[str]
) -> list[dict[str, Any]]:
    """The columns' values for each page of a book, empty for a page without a row.

    Raises: IntegrityError when the book's labels do not fit its pages.
    """
    if not labels:
        return [{} for _ in pages]
    rows = sides.get(SIDE)
    good = [page for page in pages if page["row"] is not None]
    if rows is None or rows.shape != (len(good), len(labels)):
        shown = "missing" if rows is None else f"of shape {rows.shape}"
        raise IntegrityError(f"a book's labels are {shown}, {len(good)} × {len(labels)} are due")
    told = iter(zip(page_labels(rows, labels), rows, strict=True))
    return [_values(*next(told)) if page["row"] is not None else {} for page in pages]


def _values(told: Mapping[str, Any], row: NDArray[Any]) -> dict[str, Any]:
    return dict(zip(NAMES, (told["label"], told["confidence"], row.tolist()), strict=True))
