"""Pillow, with its silence taken away: every format but JPEG and PDF is decoded here.

Layer: `worker.images`. The only module that opens files with Pillow, and the border where its exceptions end. Plugins
are called by name instead of `Image.open`, which tries formats that are not wanted and guards sizes by a global.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from pagemill_core.errors import ImageTooLarge, ImageTruncated, ImageUnsupported, ItemError
from pagemill_worker.images import containers
from pagemill_worker.images.colours import to_rgb
from pagemill_worker.images.decoded import Decoded, Pixels, single_dpi
from pagemill_worker.images.directories import ORIENTATION, Directory, TiffDirectories, tag_in
from pagemill_worker.images.limits import ImageLimits, check_size
from pagemill_worker.images.sniff import Format

# What Pillow's plugins were seen to raise on damaged files; MemoryError and DecompressionBombError are told apart.
DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    AttributeError,
    RuntimeError,
    struct.error,
    zlib.error,
)
_PILLOW = re.compile(r"PIL\.")
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC = 256, 257, 258, 262
_STRIP_OFFSETS, _STRIP_ROWS, _STRIP_COUNTS = 273, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS = 322, 323, 324, 325
_SAMPLES, _PLANES = 277, 284
_ALL_ROWS = 2**32 - 1


@dataclass(frozen=True, slots=True)
class _Kind:
    plugin: Callable[[io.BytesIO], ImageFile]
    count_frames: Callable[[bytes], int]  # raises ImageTruncated when the file is not whole


_KINDS: Mapping[Format, _Kind] = {
    Format.PNG: _Kind(PngImageFile, containers.check_png),
    Format.GIF: _Kind(GifImageFile, containers.check_gif),
    Format.BMP: _Kind(BmpImageFile, lambda _: 1),
    Format.WEBP: _Kind(WebPImageFile, containers.check_webp),
    Format.JPEG2000: _Kind(Jpeg2KImageFile, containers.check_jpeg2000),
}


def decode_raster(data: bytes, kind: Format, limits: ImageLimits) -> Decoded:
    """The first picture of a PNG, GIF, BMP, WebP or JPEG 2000 file.

    Raises: ImageTooLarge and ImageTooSmall before decoding; ImageTruncated; ImageUnsupported.
    """
    entry = _KINDS[kind]
    if kind is Format.WEBP:  # opening allocates the canvas
        check_size(*containers.webp_size(data), limits)
    image = _open(entry.plugin, data, lambda: entry.count_frames(data))
    check_size(*image.size, limits)
    frames = entry.count_frames(data)
    mode = _source_mode(image, data, kind)
    orientation = _exif_orientation(image)
    _load(image)
    if kind is Format.PNG and _may_lack_rows(image, data):
        containers.check_png_rows(data)
    dpi = single_dpi(*image.info.get("dpi", (None, None)))
    return Decoded(_pixels(image), mode, dpi=dpi, frames=frames, orientation=orientation)


def decode_tiff(data: bytes, page: int, limits: ImageLimits) -> Decoded:
    """Page `page` of a TIFF file; its orientation is applied by Pillow. Raises: as `decode_raster`."""
    tiff = TiffDirectories(io.BytesIO(data))
    number = tiff.page_numbers()[page]
    directory = next(each for place, each in enumerate(tiff.all()) if place == number)
    _check_tiff_blocks(tiff, directory, limits)
    image = _open(TiffImageFile, data, lambda: None)
    with _foreign_errors(ImageUnsupported, "this kind of TIFF is not decoded"):
        image.seek(number)
    check_size(*image.size, limits)
    mode, dpi = image.mode, single_dpi(*image.info.get("dpi", (None, None)))
    _load(image)
    is_12_bit = tiff.first(directory, _BITS, 1) == 12
    pixels = _pixels(image, deep_bits=12 if is_12_bit else 16)
    if mode.startswith(("I;16", "F")) and tiff.first(directory, _PHOTOMETRIC, 1) == 0:
        np.subtract(255, pixels, out=pixels)  # Pillow leaves deep samples with "white is zero" as they are
    return Decoded(pixels, mode, dpi=dpi)


def decode_baseline_jpeg(data: bytes) -> Pixels:
    """A JPEG that was checked before, as stored, for sampling factors that TurboJPEG lacks. Raises: ImageTruncated."""
    image = _open(JpegImageFile, data, lambda: None)
    _load(image)
    return _pixels(image)


def _open(plugin: Callable[[io.BytesIO], ImageFile], data: bytes, check_whole: Callable[[], object]) -> ImageFile:
    _quiet_pillow()
    try:
        with _foreign_errors(ImageUnsupported, "this kind of picture is not decoded"):
            return plugin(io.BytesIO(data))
    except ImageUnsupported:
        check_whole()  # a cut file is cut before it is of an unknown kind
        raise


def _load(image: ImageFile) -> None:
    with _foreign_errors(ImageTruncated, "the picture's data is damaged"):
        image.load()


def _pixels(image: ImageFile, *, deep_bits: int = 16) -> Pixels:
    with _foreign_errors(ImageUnsupported, "this kind of picture cannot be turned into RGB"):
        return to_rgb(image, deep_bits=deep_bits)


@contextmanager
def _foreign_errors(error_class: type[ItemError], message: str) -> Iterator[None]:
    try:
        yield
    except Image.DecompressionBombError as error:
        raise ImageTooLarge("a frame is larger than Pillow decodes") from error
    except MemoryError as error:
        raise ImageTooLarge("decoding asks for more memory than there is") from error
    except DECODER_ERRORS as error:
        raise error_class(f"{message} ({type(error).__name__})") from error


def _quiet_pillow() -> None:
    """Let Pillow's warnings about odd metadata pass: what matters in them is checked here.

    Done per call and not once, because whoever runs the process may swap the list of filters at any time.
    """
    if ("ignore", None, Warning, _PILLOW, 0) not in warnings.filters:
        warnings.filterwarnings("ignore", module=_PILLOW.pattern)


def _source_mode(image: ImageFile, data: bytes, kind: Format) -> str:
    is_deep = kind is Format.PNG and data[24] == 16 and not image.mode.startswith("I")
    return f"{image.mode};16" if is_deep else image.mode


def _exif_orientation(image: ImageFile) -> int:
    exif = image.info.get("exif")
    return (tag_in(exif, ORIENTATION) or 1) if isinstance(exif, bytes) else 1


def _may_lack_rows(image: ImageFile, data: bytes) -> bool:
    """Whether missing rows, which Pillow leaves zero, would show here; inflating everything to know costs 40 %."""
    is_interlaced = data[28] != 0
    width, height = image.size
    return is_interlaced or not any(image.crop((0, height - 1, width, height)).tobytes())


def _check_tiff_blocks(tiff: TiffDirectories, directory: Directory, limits: ImageLimits) -> None:
    width, height = tiff.first(directory, _WIDTH, 0), tiff.first(directory, _HEIGHT, 0)
    check_size(width, height, limits)
    if _TILE_OFFSETS in directory:
        across, down = tiff.first(directory, _TILE_WIDTH, 0), tiff.first(directory, _TILE_HEIGHT, 0)
        if not (across and down):
            raise ImageTruncated("a page's directory is damaged")
        check_size(across, down, ImageLimits(max_pixels=limits.max_pixels, max_side_px=limits.max_side_px))
        blocks, tags = -(-width // across) * -(-height // down), (_TILE_OFFSETS, _TILE_COUNTS)
    elif _STRIP_OFFSETS in directory:
        rows = min(height, tiff.first(directory, _STRIP_ROWS, _ALL_ROWS)) or height
        blocks, tags = -(-height // rows), (_STRIP_OFFSETS, _STRIP_COUNTS)
    else:
        return  # old JPEG-in-TIFF keeps its data elsewhere; the decoder finds out
    planes = tiff.first(directory, _SAMPLES, 1) if tiff.first(directory, _PLANES, 1) == 2 else 1
    offsets, counts = (tiff.values(directory, tag) for tag in tags)
    _check_blocks_inside(tiff.size_bytes, np.array(offsets, np.uint64), np.array(counts, np.uint64), blocks * planes)


def _check_blocks_inside(size_bytes: int, offsets: np.ndarray, counts: np.ndarray, wanted: int) -> None:
    if len(offsets) < wanted or len(counts) not in (0, len(offsets)):
        raise ImageTruncated("parts of the picture are missing")
    if len(counts) == 0:
        return
    # Compared without a sum, which 64-bit offsets could overflow.
    if bool(np.any(offsets > size_bytes)) or bool(np.any(counts > size_bytes - offsets)):
        raise ImageTruncated("the file ends before its picture does")
