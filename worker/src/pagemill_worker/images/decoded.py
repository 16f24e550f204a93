"""What every decoder returns, and the one place where pictures are turned upright.

Layer: `worker.images`, bottom; numpy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import SupportsFloat, cast

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

_MIN_DPI, _MAX_DPI = 10, 20_000  # 1 × 1 and the like are placeholders
_SAME_DPI = 0.1  # sides may differ by a tenth: fine fax is 204 × 196


@dataclass(frozen=True, slots=True)
class Decoded:
    """RGB pixels as the file stores them. `orientation` is EXIF's, 1 to 8; anything else counts as 1."""

    pixels: Pixels
    source_mode: str
    dpi: float | None = None
    frames: int = 1
    orientation: int = 1


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """`pixels` as they are to be seen, C-contiguous. EXIF's values 5 to 8 swap the sides."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def single_dpi(horizontal: object, vertical: object) -> float | None:
    """One resolution out of a file's claim; None when it is absent, absurd or differs between the sides."""
    sides = []
    for side in (horizontal, vertical):
        try:
            sides.append(float(cast(SupportsFloat, side)))
        except (TypeError, ValueError, ArithmeticError):
            return None
    if not all(math.isfinite(side) and _MIN_DPI <= side <= _MAX_DPI for side in sides):
        return None
    across, down = sides
    return round(across, 2) if abs(across - down) <= _SAME_DPI * across else None
