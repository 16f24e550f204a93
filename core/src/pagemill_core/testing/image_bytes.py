"""Files made byte by byte, for the kinds of odd pictures that no encoder would write.

Layer: `core.testing`; not for production. Everything is deterministic: the same call gives the same bytes.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_TIFF_SHORT, _TIFF_LONG = 3, 4


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """`image` as Pillow writes it in the format `kind`."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, body: bytes, *, crc_error: int = 0) -> bytes:
    """One PNG chunk; `crc_error` is added to its checksum."""
    crc = (zlib.crc32(kind + body) + crc_error) & 0xFFFFFFFF
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)


def png(size: tuple[int, int], depth: int, colour: int, rows: bytes, **options: int) -> bytes:
    """A PNG of `rows` (filter bytes included) whose header claims `size`, whatever the rows hold.

    Options: interlace (0 or 1), crc_error (added to the checksum of the picture's data).
    """
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, options.get("interlace", 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(rows, 9), crc_error=options.get("crc_error", 0))
        + png_chunk(b"IEND", b"")
    )


def png_rows(samples: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """Unfiltered PNG rows of (height, width) or (height, width, channels) samples."""
    big_endian = samples.astype(samples.dtype.newbyteorder(">"))
    return b"".join(b"\0" + row.tobytes() for row in big_endian)


def adam7_rows(grey: NDArray[np.uint8], passes: int = 7) -> bytes:
    """The first `passes` interlace passes of an 8-bit grey picture, as PNG rows."""
    return b"".join(png_rows(grey[top::down, left::right]) for left, top, right, down in _ADAM7[:passes])


def tiff(pages: Sequence[tuple[Mapping[int, int | Sequence[int]], bytes]], *, loop: bool = False) -> bytes:
    """A little-endian TIFF of pages (tags, picture data).

    Tags 273 or 324, when absent from a page's tags, are set to where its data lies; 279 or 325 are the caller's.
    `loop` makes the last page point back to the first.
    """
    out = bytearray(b"II*\0\0\0\0\0")
    link = 4
    first = 0
    for tags, data in pages:
        data_at = len(out)
        out += data + b"\0" * (len(data) % 2)
        where = 324 if 322 in tags else 273
        entries = {where: data_at, **tags}
        at = _append_directory(out, entries)
        first = first or at
        struct.pack_into("<I", out, link, at)
        link = len(out) - 4
    if loop:
        struct.pack_into("<I", out, link, first)
    return bytes(out)


def _append_directory(out: bytearray, tags: Mapping[int, int | Sequence[int]]) -> int:
    packed = []
    for tag, given in sorted(tags.items()):
        values = [given] if isinstance(given, int) else list(given)
        kind, code = (_TIFF_SHORT, "H") if tag == 258 else (_TIFF_LONG, "I")
        raw = struct.pack(f"<{len(values)}{code}", *values)
        if len(raw) > 4:
            offset = len(out)
            out += raw
            raw = struct.pack("<I", offset)
        packed.append(struct.pack("<HHI", tag, kind, len(values)) + raw.ljust(4, b"\0"))
    at = len(out)
    out += struct.pack("<H", len(packed)) + b"".join(packed) + b"\0\0\0\0"
    return at


def tiled_tiff(grey: NDArray[np.uint16], tile: int) -> bytes:
    """A 16-bit grey picture in `tile` × `tile` blocks, the last ones padded."""
    height, width = grey.shape
    padded = np.pad(grey, ((0, -height % tile), (0, -width % tile)))
    blocks = [
        padded[top : top + tile, left : left + tile].astype("<u2").tobytes()
        for top in range(0, height, tile)
        for left in range(0, width, tile)
    ]
    size = tile * tile * 2
    tags: dict[int, int | Sequence[int]] = {
        256: width,
        257: height,
        258: 16,
        259: 1,
        262: 1,
        277: 1,
        322: tile,
        323: tile,
        324: [8 + number * size for number in range(len(blocks))],
        325: [size] * len(blocks),
    }
    return tiff([(tags, b"".join(blocks))])


def grey_strip_tags(width: int, height: int, size_bytes: int, **more: int) -> dict[int, int | Sequence[int]]:
    """Tags of an 8-bit grey page in one strip. `more` may hold photometric and subfile (tags 262 and 254)."""
    return {
        254: more.get("subfile", 0),
        256: width,
        257: height,
        258: 8,
        259: 1,
        262: more.get("photometric", 1),
        277: 1,
        278: height,
        279: size_bytes,
    }


def jpeg_with_odd_sampling() -> bytes:
    """A flat middle-grey 16 × 16 JPEG whose two chroma planes are sampled differently, for which TurboJPEG has no name.

    Every block is "no difference, end of block", 6 bits in the standard luminance tables: 4 + 2 + 1 blocks and padding.
    """
    plain = encoded(Image.new("L", (16, 16), 128), "JPEG")
    tables = plain[: plain.index(b"\xff\xc0")]
    huffman = plain[plain.index(b"\xff\xc4") : plain.index(b"\xff\xda")]
    frame = bytes((8, 0, 16, 0, 16, 3, 1, 0x22, 0, 2, 0x21, 0, 3, 0x11, 0))
    scan = bytes((3, 1, 0, 2, 0, 3, 0, 0, 63, 0))
    blocks = int("001010" * 7 + "111111", 2).to_bytes(6, "big")
    return tables + _jpeg_segment(0xC0, frame) + huffman + _jpeg_segment(0xDA, scan) + blocks + b"\xff\xd9"


def _jpeg_segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def jpeg_claiming(width: int, height: int, *, precision: int = 8) -> bytes:
    """A small whole JPEG whose frame header is rewritten to claim another size or sample precision."""
    data = bytearray(encoded(Image.new("L", (16, 16), 128), "JPEG"))
    at = data.index(b"\xff\xc0")
    struct.pack_into(">BHH", data, at + 4, precision, height, width)
    return bytes(data)


def ycck_jpeg(image: Image.Image) -> bytes:
    """`image` (RGB) as the four-component JPEG that Adobe programs write: inverted inks, coded as YCCK.

    Readers turn YCC into inks as 255 - RGB and inks are stored inverted, so the YCC of the negative is stored. Pillow
    inverts every plane when it writes CMYK, hence the second negation here; then the transform flag is set to YCCK.
    """
    negative = image.point(lambda value: 255 - value)
    planes = [plane.point(lambda value: 255 - value) for plane in negative.convert("YCbCr").split()]
    inks = Image.merge("CMYK", [*planes, Image.new("L", image.size, 0)])
    data = bytearray(encoded(inks, "JPEG", quality=95))
    at = data.index(b"Adobe")
    data[at + 11] = 2
    return bytes(data)


def pdf(pages: Sequence[str], *, size: tuple[float, float] = (72, 48), locked: bool = False) -> bytes:
    """A PDF of pages given by their content streams, `size` in points. `locked` asks for a password nobody knows."""
    kids = " ".join(f"{3 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode()]
    for number, content in enumerate(pages):
        box = f"/MediaBox [0 0 {size[0]} {size[1]}]"
        objects.append(f"<< /Type /Page /Parent 2 0 R {box} /Contents {4 + 2 * number} 0 R >>".encode())
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream".encode())
    trailer = f"/Size {len(objects) + 1} /Root 1 0 R"
    if locked:
        secret = "ab" * 32
        objects.append(f"<< /Filter /Standard /V 1 /R 2 /O <{secret}> /U <{secret}> /P -4 >>".encode())
        trailer = f"/Size {len(objects) + 1} /Root 1 0 R /Encrypt {len(objects)} 0 R /ID [<{secret}> <{secret}>]"
    out = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n<< {trailer} >>\n".encode()
    return bytes(out + f"startxref\n{start}\n%%EOF\n".encode())
