"""A decoded picture, the only form in which engines and encoders ever see one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PageImage:
    """An upright RGB picture.

    `pixels` is uint8 of shape (height_px, width_px, 3), C-contiguous, EXIF rotation applied, transparency over white,
    16-bit scaled. Every box that engines return is in these pixels, origin at the top left. `dpi` is what the file
    claims, or the rendering resolution of a PDF page, or None. `frames` counts the pictures of an animated file
    (1 otherwise); only the first is decoded. `source_mode` is the file's own mode ("CMYK", "I;16", …).
    """

    pixels: NDArray[np.uint8]
    dpi: float | None = None
    frames: int = 1
    source_mode: str = "RGB"

    @property
    def width_px(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height_px(self) -> int:
        return int(self.pixels.shape[0])
