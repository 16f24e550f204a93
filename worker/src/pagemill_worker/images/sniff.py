"""What kind of file some bytes are, told by the bytes alone: names and content types lie.

Layer: `worker.images`, bottom; no decoder. The list is closed on purpose: each format here has its own check for cut
and damaged files, and every further one would be one more parser open to hostile input.
"""

from __future__ import annotations

import enum

from pagemill_core.errors import ImageTruncated, ImageUnsupported, NotAnImage

_PDF_HEADER_WITHIN = 1024  # readers accept junk before %PDF-, up to here


class Format(enum.Enum):
    """The formats that are decoded."""

    JPEG = "JPEG"
    PNG = "PNG"
    GIF = "GIF"
    BMP = "BMP"
    TIFF = "TIFF"
    WEBP = "WebP"
    JPEG2000 = "JPEG 2000"
    PDF = "PDF"


_SIGNATURES: tuple[tuple[bytes, Format], ...] = (
    (b"\xff\xd8\xff", Format.JPEG),
    (b"\x89PNG\r\n\x1a\n", Format.PNG),
    (b"GIF87a", Format.GIF),
    (b"GIF89a", Format.GIF),
    (b"II*\0", Format.TIFF),
    (b"MM\0*", Format.TIFF),
    (b"II+\0", Format.TIFF),
    (b"MM\0+", Format.TIFF),
    (b"\0\0\0\x0cjP  \r\n\x87\n", Format.JPEG2000),
    (b"\xff\x4f\xff\x51", Format.JPEG2000),
)
_BMP_HEADER_SIZES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_KNOWN_BUT_UNSUPPORTED: tuple[tuple[int, bytes, str], ...] = (
    (0, b"8BPS", "a Photoshop document"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (4, b"ftypavif", "an AVIF picture"),
    (4, b"ftypavis", "an AVIF picture"),
    (4, b"ftypheic", "a HEIC picture"),
    (4, b"ftypheix", "a HEIC picture"),
    (4, b"ftypmif1", "a HEIF picture"),
    (0, b"AT&TFORM", "a DjVu document"),
    (0, b"%!PS", "a PostScript program"),
    (0, b"\0\0\x01\0", "an icon"),
    (0, b"P1\n", "a PNM picture"),
    (0, b"P2\n", "a PNM picture"),
    (0, b"P3\n", "a PNM picture"),
    (0, b"P4\n", "a PNM picture"),
    (0, b"P5\n", "a PNM picture"),
    (0, b"P6\n", "a PNM picture"),
)


def sniff(head: bytes) -> Format:
    """The format of a file that starts with `head` (1 KiB or the whole file is enough).

    Raises: ImageUnsupported for pictures of a kind that is not decoded; ImageTruncated when the file ends inside a
    known signature; NotAnImage otherwise. Messages say what the file looks like and never quote it.
    """
    for signature, found in _SIGNATURES:
        if head.startswith(signature):
            return found
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return Format.WEBP
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return Format.BMP
    if b"%PDF-" in head[:_PDF_HEADER_WITHIN]:
        return Format.PDF
    for start, magic, name in _KNOWN_BUT_UNSUPPORTED:
        if head.startswith(magic, start):
            raise ImageUnsupported(f"{name}, which is not decoded here", advice="convert it to PNG, TIFF or JPEG")
    if any(signature.startswith(head) for signature, _ in _SIGNATURES):
        raise ImageTruncated("the file ends inside its signature")
    raise NotAnImage(f"no known picture or page format ({_looks_like(head)})")


def _looks_like(head: bytes) -> str:
    start = head[:_PDF_HEADER_WITHIN].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in start:
        return "looks like an SVG drawing"
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "looks like an HTML page"
    if start.startswith((b"{", b"[")):
        return "looks like JSON"
    if start.startswith(b"<"):
        return "looks like XML"
    printable = sum(byte >= 32 or byte in b"\t\r\n" for byte in start)
    return "looks like text" if start and printable == len(start) else "unknown bytes"
