"""PDF pages as pictures, rendered by PDFium.

Layer: `worker.images`. PDFium is not thread-safe, so one lock of the process guards every call; a process that renders
PDFs gains nothing from decoding threads. PDFium repairs what it can and is silent about it: a page whose content
stream is broken renders as far as it goes. Memory inside PDFium (a picture in a page) is beyond `ImageLimits`; the
item's own memory limit ends that.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
import pypdfium2
from pypdfium2 import raw as pdfium

from pagemill_core.errors import ImageMissing, ImageTruncated, ImageUnsupported, PagemillError
from pagemill_worker.images.decoded import Decoded
from pagemill_worker.images.limits import ImageLimits, check_size

_LOCK = threading.Lock()
_POINTS_PER_INCH = 72
_END_MARK, _END_MARK_WITHIN = b"%%EOF", 2048
_LOCKED = frozenset({pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY})


class _KeepsErrors:
    """A file for PDFium's callback, which cannot raise: the first error is kept and PDFium sees a failed read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: PagemillError | OSError | None = None

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def readinto(self, buffer: memoryview) -> int:
        if self.error:
            return 0
        try:
            found = self._file.read(len(buffer))
        except (PagemillError, OSError) as error:
            self.error = error
            return 0
        memoryview(buffer).cast("B")[: len(found)] = found
        return len(found)


def count_pdf_pages(file: BinaryIO) -> int:
    """Pages of a PDF, read through `file` in a few ranges near its end.

    Raises: ImageUnsupported when it is locked; ImageTruncated; whatever `file` raises.
    """
    guarded = _KeepsErrors(file)
    try:
        with _LOCK, _opened(guarded) as document:
            return len(document)
    except (ImageTruncated, ImageUnsupported):
        if guarded.error:
            raise guarded.error from None
        raise


def render_pdf_page(data: bytes, page: int, limits: ImageLimits) -> Decoded:
    """Page `page` at `limits.pdf_dpi`, on white, with annotations and filled-in forms.

    Raises: ImageTooLarge before rendering; ImageMissing; ImageUnsupported when it is locked; ImageTruncated.
    """
    if _END_MARK not in data.rstrip(b"\0\r\n\t ")[-_END_MARK_WITHIN:]:
        raise ImageTruncated("the file ends before its end mark")
    with _LOCK, _opened(data) as document:
        if page >= len(document):
            raise ImageMissing(f"page {page + 1} does not exist; the file has {len(document)}")
        document.init_forms()
        return _render(document[page], limits)


def pdf_page_count(data: bytes) -> int:
    """Pages of a PDF in memory. Raises: ImageUnsupported when it is locked; ImageTruncated."""
    with _LOCK, _opened(data) as document:
        return len(document)


@contextmanager
def _opened(source: bytes | _KeepsErrors) -> Iterator[pypdfium2.PdfDocument]:
    try:
        with pypdfium2.PdfDocument(source) as document:
            yield document
    except pypdfium2.PdfiumError as error:
        if error.err_code in _LOCKED:
            message = "the PDF is locked by a password or by rights management"
            raise ImageUnsupported(message, advice="remove its protection first") from error
        raise ImageTruncated(f"the PDF is damaged ({error})") from error


def _render(page: pypdfium2.PdfPage, limits: ImageLimits) -> Decoded:
    scale = limits.pdf_dpi / _POINTS_PER_INCH
    width, height = (side * scale for side in page.get_size())
    if not (math.isfinite(width) and math.isfinite(height)):
        raise ImageTruncated("the page has no size")
    check_size(max(1, math.ceil(width)), max(1, math.ceil(height)), limits)
    bitmap = page.render(scale=scale, rev_byteorder=True)
    # Copied, because the bitmap's memory goes with the document.
    pixels = np.array(bitmap.to_numpy()[:, :, :3], np.uint8, order="C")
    bitmap.close()
    return Decoded(pixels, source_mode="PDF", dpi=float(limits.pdf_dpi))
