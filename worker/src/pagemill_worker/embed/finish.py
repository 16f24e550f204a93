"""The last step of every row, whichever model made it: cut, scaled, checked, in the format that was asked for.

Layer: `worker.embed`; numpy only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagemill_core.errors import EncoderFailed, InvalidSpecError
from pagemill_worker.embed.encoder import EncoderSettings

Rows = NDArray[Any]


def check_dim(asked: int | None, dim: int, model: str) -> int:
    """The rows' length. Raises: InvalidSpecError when more is asked for than the model gives."""
    if asked is not None and asked > dim:
        raise InvalidSpecError(f"dimensions: {model} gives rows of {dim} numbers, not {asked}", advice="ask for less")
    return asked or dim


def finish_rows(rows: NDArray[np.float32], settings: EncoderSettings) -> Rows:
    """Cut to `dim`, scaled to length 1 if so asked, in the settings' dtype; shape (rows, dim).

    The cut comes first: Matryoshka models are trained so. Raises: EncoderFailed for a row with a number that is not
    finite, without length, or too large for the dtype.
    """
    rows = rows[:, : settings.dim] if settings.dim else rows
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    if not np.isfinite(lengths).all():
        raise EncoderFailed("the model gave a row with numbers that are not finite")
    if (lengths == 0).any():
        raise EncoderFailed("the model gave a row of zeros")
    if settings.normalize:
        rows = (rows / lengths[:, None]).astype(np.float32)
    if settings.dtype == "float32":
        return np.ascontiguousarray(rows, np.float32)
    if np.abs(rows).max(initial=0) > np.finfo(np.float16).max:
        raise EncoderFailed("the model gave numbers too large for float16", advice="ask for `dtype: float32`")
    return rows.astype(np.float16)
