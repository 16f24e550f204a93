"""A page as a vision-language model takes it: shrunk, encoded, and labelled as what it is.

Layer: `worker.ocr`; no network. The label matters: some endpoints trust it over the bytes and then refuse the picture.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from pagemill_worker.images.page import PageImage


@dataclass(frozen=True, slots=True)
class SentImage:
    """A page as sent. `width_px` and `height_px` are of the picture sent, `page_*` of the page it shows."""

    data_uri: str
    width_px: int
    height_px: int
    page_width_px: int
    page_height_px: int


def encode_page(
    page: PageImage, *, longest_side_px: int, grid_px: int, image_format: Literal["jpeg", "png"], jpeg_quality: int
) -> SentImage:
    """`page` within `longest_side_px` (never enlarged beyond the grid), sides multiples of `grid_px`."""
    width_px, height_px = fitted_size(page.width_px, page.height_px, longest_side_px=longest_side_px, grid_px=grid_px)
    picture = Image.fromarray(page.pixels)
    if picture.size != (width_px, height_px):
        picture = picture.resize((width_px, height_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if image_format == "png":
        picture.save(buffer, "PNG")
    else:
        # subsampling 0: halved colour blurs the edges of coloured lettering, and lettering is all we want.
        picture.save(buffer, "JPEG", quality=jpeg_quality, subsampling=0)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return SentImage(
        data_uri=f"data:image/{image_format};base64,{encoded}",
        width_px=width_px,
        height_px=height_px,
        page_width_px=page.width_px,
        page_height_px=page.height_px,
    )


def fitted_size(width_px: int, height_px: int, *, longest_side_px: int, grid_px: int) -> tuple[int, int]:
    """The size to send a page in: its own shape but for the rounding, each side at least one grid step."""
    scale = min(1.0, longest_side_px / max(width_px, height_px))

    def on_grid(side_px: int) -> int:
        return max(grid_px, round(side_px * scale / grid_px) * grid_px)

    return on_grid(width_px), on_grid(height_px)
