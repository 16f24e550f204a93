"""Small JPEGs of pages, for reports.

Layer: `worker.images`.
"""

from __future__ import annotations

import io

from PIL import Image

from pagemill_worker.images.page import PageImage

_QUALITY = 80
_COARSE_PX = 4  # a first, cheap pass leaves this many source pixels a side for the good filter


def thumbnail_jpeg(page: PageImage, max_side_px: int) -> bytes:
    """`page` as a JPEG of at most `max_side_px` a side, its proportions kept, never enlarged, never thinner than 1.

    The same page gives the same bytes. Raises: ValueError when `max_side_px` is not positive.
    """
    if max_side_px < 1:
        raise ValueError(f"max_side_px must be positive, not {max_side_px}")
    factor = max(page.width_px, page.height_px) / max_side_px
    # Whole rows and columns are dropped first, so that a huge page is not copied to shrink it.
    step = max(1, int(factor / _COARSE_PX))
    picture = Image.fromarray(page.pixels[::step, ::step])
    if factor > 1:
        size = (max(1, round(page.width_px / factor)), max(1, round(page.height_px / factor)))
        picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
