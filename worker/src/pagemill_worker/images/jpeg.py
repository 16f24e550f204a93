"""JPEG files, decoded by simplejpeg, which unlike Pillow says when a file is cut or its data damaged.

Layer: `worker.images`. The header is read here first, so that size, colour model and EXIF are known before any decoder
allocates; sampling factors that TurboJPEG lacks go to Pillow, behind the same checks. Both sit on libjpeg-turbo and
give the same pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import simplejpeg  # type: ignore[import-untyped]
from numpy.typing import NDArray

from pagemill_core.errors import ImageTruncated, ImageUnsupported
from pagemill_worker.images.colours import cmyk_to_rgb
from pagemill_worker.images.decoded import Decoded, single_dpi
from pagemill_worker.images.directories import MPF_IMAGE_COUNT, ORIENTATION, tag_in
from pagemill_worker.images.limits import ImageLimits, check_size
from pagemill_worker.images.raster import decode_baseline_jpeg

_SOF = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_SOF_DECODED = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})  # not lossless, not hierarchical
_SOS, _EOI, _APP0, _APP1, _APP2 = 0xDA, 0xD9, 0xE0, 0xE1, 0xE2
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_MAX_SCANS = 500  # libjpeg-turbo's own fuzzers stop here; thousands of scans are a way to burn hours
_SOURCE_MODES = {1: "L", 3: "RGB", 4: "CMYK"}


@dataclass(slots=True)
class _Header:
    width_px: int = 0
    height_px: int = 0
    components: int = 0
    precision: int = 8
    process: int = 0
    orientation: int = 1
    frames: int = 1
    dpi: float | None = None
    scans_start: int = 0


def decode_jpeg(data: bytes, limits: ImageLimits) -> Decoded:
    """The picture of a JPEG file, or the first of an MPO file.

    Four inks are taken as inverted, as Adobe writes them and every browser reads them; profiles are not applied.
    Raises: ImageTooLarge and ImageTooSmall before decoding; ImageTruncated; ImageUnsupported.
    """
    header = _read_header(data)
    _check_kind(header)
    check_size(header.width_px, header.height_px, limits)
    _check_complete(data, header)
    return Decoded(
        _pixels(data, header),
        source_mode=_SOURCE_MODES[header.components],
        dpi=header.dpi,
        frames=header.frames,
        orientation=header.orientation,
    )


def _pixels(data: bytes, header: _Header) -> NDArray[np.uint8]:
    try:
        simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return decode_baseline_jpeg(data)
    colours = "CMYK" if header.components == 4 else "RGB"
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colours, strict=True)
    except ValueError as error:
        raise ImageTruncated(f"the picture's data is damaged ({error})") from error
    return cmyk_to_rgb(pixels, inverted=True) if header.components == 4 else pixels


def _check_kind(header: _Header) -> None:
    if header.process not in _SOF_DECODED:
        raise ImageUnsupported("lossless and hierarchical JPEG are not decoded", advice="convert it to PNG")
    if header.precision != 8:
        raise ImageUnsupported(f"JPEG with {header.precision} bits a sample is not decoded", advice="convert it to PNG")
    if header.components not in _SOURCE_MODES:
        raise ImageUnsupported(f"JPEG with {header.components} colour components is not decoded")
    if header.height_px == 0:
        raise ImageUnsupported("JPEG that names its height only at its end is not decoded")


def _read_header(data: bytes) -> _Header:
    header = _Header()
    for marker, start, end in _segments(data, 2):
        body = data[start:end]
        if marker in _SOF:
            _read_frame(header, marker, body)
        elif marker == _APP0 and body.startswith(b"JFIF\0") and len(body) >= 12:
            header.dpi = _jfif_dpi(body)
        elif marker == _APP1 and body.startswith(b"Exif\0\0"):
            header.orientation = tag_in(body, ORIENTATION) or 1
        elif marker == _APP2 and body.startswith(b"MPF\0"):
            header.frames = tag_in(body[4:], MPF_IMAGE_COUNT) or 1
        elif marker == _SOS:
            header.scans_start = end
            break
        elif marker == _EOI:
            break
    if not header.components or not header.scans_start:
        raise ImageTruncated("the file holds no picture data")
    return header


def _segments(data: bytes, position: int) -> Iterator[tuple[int, int, int]]:
    """(marker, start and end of its body) from `position` on. Raises: ImageTruncated at the end of the file."""
    while True:
        while data[position : position + 2] == b"\xff\xff":
            position += 1
        if position + 2 > len(data):
            raise ImageTruncated("the file ends before its picture does")
        if data[position] != 0xFF:
            raise ImageTruncated("the file's structure is damaged")
        marker = data[position + 1]
        position += 2
        if marker == _EOI or marker in _STANDALONE:
            yield marker, position, position
            continue
        length = int.from_bytes(data[position : position + 2], "big")
        if length < 2 or position + length > len(data):
            raise ImageTruncated("the file ends before its picture does")
        yield marker, position + 2, position + length
        position += length


def _read_frame(header: _Header, marker: int, body: bytes) -> None:
    if header.components or len(body) < 6:
        raise ImageTruncated("the file's structure is damaged")
    header.process, header.precision = marker, body[0]
    header.height_px = int.from_bytes(body[1:3], "big")
    header.width_px = int.from_bytes(body[3:5], "big")
    header.components = body[5]


def _jfif_dpi(body: bytes) -> float | None:
    per_unit = {1: 1.0, 2: 2.54}.get(body[7])
    if per_unit is None:
        return None
    across, down = (int.from_bytes(body[at : at + 2], "big") * per_unit for at in (8, 10))
    return single_dpi(across, down)


def _end_of_scan(data: bytes, position: int) -> int:
    """Where the first marker after a scan's data begins. A pattern of `re` takes five times as long to find it.

    Raises: ImageTruncated when there is none.
    """
    while (position := data.find(b"\xff", position)) >= 0:
        after = position + 1
        while data[after : after + 1] == b"\xff":
            after += 1
        if after >= len(data):
            break
        if data[after] and not 0xD0 <= data[after] <= 0xD7:  # neither a stuffed zero nor a restart marker
            return position
        position = after + 1
    raise ImageTruncated("the file ends before its picture does")


def _check_complete(data: bytes, header: _Header) -> None:
    """Follow the scans to the end marker. Raises: ImageTruncated, ImageUnsupported for absurdly many scans."""
    position, scans = header.scans_start, 1
    while True:
        for marker, _, end in _segments(data, _end_of_scan(data, position)):
            if marker == _EOI:
                return
            if marker == _SOS:
                position, scans = end, scans + 1
                break
        if scans > _MAX_SCANS:
            raise ImageUnsupported(f"the picture comes in more than {_MAX_SCANS} scans")
