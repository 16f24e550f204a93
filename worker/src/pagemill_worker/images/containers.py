"""Whether a PNG, GIF, WebP or JPEG 2000 file is whole, told from its structure, and how many frames it holds.

Layer: `worker.images`; reads bytes, decodes nothing. Pillow accepts several cut files without a word: PNG data with
too few rows comes out black, bad checksums of picture data go unread, a GIF's missing end is not noticed.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from pagemill_core.errors import ImageTruncated

_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_INFLATE_STEP = 1 << 20
_GIF_IMAGE, _GIF_EXTENSION, _GIF_TRAILER = 0x2C, 0x21, 0x3B
_END_OF_CODESTREAM = b"\xff\xd9"
_PADDING = 16  # some writers pad a codestream; more than this is another file


def check_png(data: bytes) -> int:
    """Follow the chunks to the end. Returns: frames (APNG). Raises: ImageTruncated, also for a wrong checksum."""
    frames = 1
    view = memoryview(data)
    for kind, start, end in _png_chunks(data):
        if zlib.crc32(view[start - 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ImageTruncated("a part of the file does not match its checksum")
        if kind == b"acTL":
            frames = max(1, int.from_bytes(data[start : start + 4], "big"))
    return frames


def check_png_rows(data: bytes) -> None:
    """Inflate the picture's data only to count it. Raises: ImageTruncated when rows are missing."""
    wanted = _png_raw_size(data[16:29])
    inflate = zlib.decompressobj()
    found = 0
    for kind, start, end in _png_chunks(data):
        pending = data[start:end] if kind == b"IDAT" else b""
        while pending and found < wanted:
            try:
                found += len(inflate.decompress(pending, _INFLATE_STEP))
            except zlib.error as error:
                raise ImageTruncated("the picture's data is damaged") from error
            pending = inflate.unconsumed_tail
    if found < wanted:
        raise ImageTruncated("the file ends before its picture does")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    position = 8
    while True:
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        start, end = position + 8, position + 8 + length
        if end + 4 > len(data):
            raise ImageTruncated("the file ends before its picture does")
        yield kind, start, end
        if kind == b"IEND":
            return
        position = end + 4


def _png_raw_size(header: bytes) -> int:
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    bits = header[8] * _PNG_CHANNELS.get(header[9], 1)
    passes = _ADAM7 if header[12] else ((0, 0, 1, 1),)
    total = 0
    for left, top, step_x, step_y in passes:
        columns, rows = -(-(width - left) // step_x), -(-(height - top) // step_y)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * bits // 8))
    return total


def check_gif(data: bytes) -> int:
    """Follow the blocks to the trailer. Returns: frames. Raises: ImageTruncated."""
    try:
        return _count_gif_frames(data)
    except IndexError as error:
        raise ImageTruncated("the file ends before its picture does") from error


def _count_gif_frames(data: bytes) -> int:
    position = 13 + _gif_palette(data[10])
    frames = 0
    while True:
        block = data[position]
        if block == _GIF_TRAILER:
            break
        if block == _GIF_IMAGE:
            frames += 1
            position += 11 + _gif_palette(data[position + 9])
        elif block == _GIF_EXTENSION:
            position += 2
        else:
            raise ImageTruncated("the file's structure is damaged")
        while data[position]:
            position += 1 + data[position]
        position += 1
    if not frames:
        raise ImageTruncated("the file holds no picture data")
    return frames


def _gif_palette(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of the canvas. Raises: ImageTruncated."""
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X" and len(body) == 10:
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and len(body) == 10:
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    raise ImageTruncated("the file's structure is damaged")


def check_webp(data: bytes) -> int:
    """Follow the chunks to the end. Returns: frames. Raises: ImageTruncated."""
    end = 8 + int.from_bytes(data[4:8], "little")
    position, frames = 12, 0
    while position + 8 <= end:
        frames += data[position : position + 4] == b"ANMF"
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        if position + 8 + length > len(data):
            raise ImageTruncated("the file ends before its picture does")
        position += 8 + length + length % 2
    if end > len(data):
        raise ImageTruncated("the file ends before its picture does")
    return max(1, frames)


def check_jpeg2000(data: bytes) -> int:
    """Look for the end of the codestream. Returns: 1. Raises: ImageTruncated."""
    end = len(data) if data.startswith(b"\xff\x4f") else _codestream_end(data)
    if _END_OF_CODESTREAM not in data[max(0, end - _PADDING) : end]:
        raise ImageTruncated("the file ends before its picture does")
    return 1


def _codestream_end(data: bytes) -> int:
    position = 0
    while position + 8 <= len(data):
        length, head = int.from_bytes(data[position : position + 4], "big"), 8
        if length == 1:
            length, head = int.from_bytes(data[position + 8 : position + 16], "big"), 16
        end = position + length if length else len(data)
        if end > len(data) or end < position + head:
            raise ImageTruncated("the file ends before its picture does")
        if data[position + 4 : position + 8] == b"jp2c":
            return end
        position = end
    raise ImageTruncated("the file holds no picture data")
