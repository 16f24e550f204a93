"""How large a picture may be, decided before anything is decoded.

Layer: `worker.images`, bottom; no I/O and no decoder. A file's header can claim any size in a few bytes, so every
decoder calls `check_size` with the claimed size first and allocates afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

from pagemill_core.errors import ImageEmpty, ImageTooLarge, ImageTooSmall


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What a page may measure, and how finely PDF pages are rendered.

    max_pixels: 178,956,970 is where Pillow's own guard raises, so everything that a plain Pillow program reads is read
    here too. A picture of that size peaks at 1.3 GB while it is decoded; workers with less memory set less.
    max_side_px: 32,766 is the longest side that OpenCV's and Tesseract's 16-bit coordinates survive.
    min_side_px: the shortest side an engine can use; 1 accepts everything.
    pdf_dpi: rendering resolution of PDF pages; 200 reads 8-point print and keeps A4 below 4 Mpx.
    """

    max_bytes: int = 512 * 1024 * 1024
    max_pixels: int = 178_956_970
    max_side_px: int = 32_766
    min_side_px: int = 1
    pdf_dpi: int = 200


def check_bytes(size_bytes: int, limits: ImageLimits) -> None:
    """Refuse a file by its length. Raises: ImageEmpty, ImageTooLarge."""
    if size_bytes == 0:
        raise ImageEmpty("the file has zero bytes")
    if size_bytes > limits.max_bytes:
        raise ImageTooLarge(f"the file has {size_bytes} bytes, more than the {limits.max_bytes} allowed")


def check_size(width_px: int, height_px: int, limits: ImageLimits) -> None:
    """Refuse a picture by the size that its header claims. Raises: ImageTooLarge, ImageTooSmall."""
    if max(width_px, height_px) > limits.max_side_px:
        raise ImageTooLarge(f"{width_px} × {height_px} pixels: a side is longer than the {limits.max_side_px} allowed")
    if width_px * height_px > limits.max_pixels:
        raise ImageTooLarge(f"{width_px} × {height_px} pixels are more than the {limits.max_pixels} allowed")
    if min(width_px, height_px) < max(1, limits.min_side_px):
        raise ImageTooSmall(f"{width_px} × {height_px} pixels: a side is shorter than {max(1, limits.min_side_px)}")
