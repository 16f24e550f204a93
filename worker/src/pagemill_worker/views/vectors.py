"""What must hold of every row that is called a success, checked again where results are written.

Layer: `worker.views`; pure. A row of zeros or of NaN finds everything alike: it must fail loudly, not be searched.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagemill_core.errors import IntegrityError

_LENGTH_TOLERANCE = {2: 5e-3, 4: 1e-3}  # by bytes a number: float16 rounds to 3 digits
_CHUNK = 4096  # rows at once, so that the squares stay in the cache


def check_rows(rows: NDArray[Any], where: str, *, is_unit: bool = False) -> None:
    """Check a matrix of shape (rows, dim). `is_unit`: rows must have length 1.

    Raises: IntegrityError naming `where` and the first bad row.
    """
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK].astype(np.float32, copy=False)
        lengths = np.sqrt(np.einsum("ij,ij->i", chunk, chunk))
        # a NaN or an infinity anywhere makes the length one
        bad = ~np.isfinite(lengths) | (lengths == 0)
        what = "is all zero or not finite"
        if is_unit and not bad.any():
            bad = np.abs(lengths - 1) > _LENGTH_TOLERANCE[rows.dtype.itemsize]
            what = "does not have length 1"
        if bad.any():
            at = int(np.argmax(bad))
            raise IntegrityError(
                f"{where}: row {start + at} {what} (length {lengths[at]:g})",
                advice="this is a bug of the encoder; report it with the model's name and the worker's log",
            )
