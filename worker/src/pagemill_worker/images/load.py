"""The one image loader: every engine and every encoder sees a page as this module decodes it.

Layer: `worker.images`, its front. Engines disagree about odd files and mostly stay silent about them, so a file is
either decoded right here or fails with its own class; what an engine gets is always plain upright RGB.
"""

from __future__ import annotations

import io
from collections.abc import Callable

from pagemill_core.errors import ImageMissing, ImageUnsupported, ItemError
from pagemill_worker.images.decoded import Decoded, upright
from pagemill_worker.images.directories import TiffDirectories
from pagemill_worker.images.jpeg import decode_jpeg
from pagemill_worker.images.limits import ImageLimits, check_bytes
from pagemill_worker.images.page import PageImage
from pagemill_worker.images.pdf import pdf_page_count, render_pdf_page
from pagemill_worker.images.raster import decode_raster, decode_tiff
from pagemill_worker.images.sniff import Format, sniff

_HEAD_BYTES = 1024


def load_page(data: bytes, *, page: int | None, limits: ImageLimits, origin: str) -> PageImage:
    """Decode one page of a file.

    `page` counts from 0; None means that the file is the item, which several pages in it contradict: they are never
    reduced to the first. Animations and MPO files give their first picture and their number of `frames`. `origin`
    starts every message, so it must be free of secrets. Deterministic; safe in threads (PDF pages one at a time).

    Raises: ItemError, and nothing else whatever the bytes are: ImageEmpty, ImageTruncated, NotAnImage, ImageTooLarge,
    ImageTooSmall, ImageUnsupported, ImageMissing (no such page).
    """
    try:
        check_bytes(len(data), limits)
        decoded = _decode(data, page, limits)
    except ItemError as error:
        raise type(error)(f"{origin}: {error.message}", advice=error.advice) from error
    return PageImage(
        upright(decoded.pixels, decoded.orientation),
        dpi=decoded.dpi,
        frames=decoded.frames,
        source_mode=decoded.source_mode,
    )


def _decode(data: bytes, page: int | None, limits: ImageLimits) -> Decoded:
    kind = sniff(data[:_HEAD_BYTES])
    if kind is Format.PDF:
        return render_pdf_page(data, _only_page(page, lambda: pdf_page_count(data)), limits)
    if kind is Format.TIFF:
        pages = len(TiffDirectories(io.BytesIO(data)).page_numbers())
        number = _only_page(page, lambda: pages)
        _check_page(number, pages)
        return decode_tiff(data, number, limits)
    _check_page(page or 0, 1)
    return decode_jpeg(data, limits) if kind is Format.JPEG else decode_raster(data, kind, limits)


def _only_page(page: int | None, count: Callable[[], int]) -> int:
    if page is not None:
        return page
    if (pages := count()) > 1:
        raise ImageUnsupported(f"the file has {pages} pages but was planned as one item", advice="plan it page by page")
    return 0


def _check_page(page: int, pages: int) -> None:
    if page >= pages:
        raise ImageMissing(f"page {page + 1} does not exist; the file has {pages}")
