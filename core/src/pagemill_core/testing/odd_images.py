"""The odd pictures a library really holds, each with what must become of it: the right pixels, or one error class.

Layer: `core.testing`; not for production. No file is kept: every picture is made when asked for, always the same. Most
show one flag of four coloured quarters, so that a wrong colour model, a lost rotation or a half page cannot pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from pagemill_core import errors
from pagemill_core.testing import image_bytes as make

Rgb = tuple[int, int, int]

WIDTH_PX, HEIGHT_PX = 48, 32
RED, GREEN, BLUE, PALE = (220, 30, 40), (30, 180, 60), (40, 60, 210), (250, 250, 250)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
FLAG: tuple[Rgb, Rgb, Rgb, Rgb] = (RED, GREEN, BLUE, PALE)
_GREY_LEVELS = (40, 200, 90, 250)
GREY_FLAG: tuple[Rgb, Rgb, Rgb, Rgb] = ((40,) * 3, (200,) * 3, (90,) * 3, (250,) * 3)
BILEVEL_FLAG: tuple[Rgb, Rgb, Rgb, Rgb] = (BLACK, WHITE, BLACK, WHITE)


@dataclass(frozen=True, slots=True)
class Readable:
    """What decoding must give: size in pixels, and the colour in the middle of each quarter.

    Quarters are top left, top right, bottom left, bottom right, each channel within `tolerance` of 255.
    """

    quarters: tuple[Rgb, Rgb, Rgb, Rgb] = FLAG
    width_px: int = WIDTH_PX
    height_px: int = HEIGHT_PX
    frames: int = 1
    tolerance: int = 0


@dataclass(frozen=True, slots=True)
class OddImage:
    """One odd file: how it is made, which page of it is asked for, and what must come of it."""

    name: str
    make: Callable[[], bytes]
    want: Readable | type[errors.ItemError]
    page: int | None = None


def flag(colours: Sequence[Rgb] = FLAG, size: tuple[int, int] = (WIDTH_PX, HEIGHT_PX)) -> Image.Image:
    """An RGB picture of four quarters."""
    width, height = size
    pixels = np.empty((height, width, 3), np.uint8)
    middle_x, middle_y = width // 2, height // 2
    pixels[:middle_y, :middle_x], pixels[:middle_y, middle_x:] = colours[0], colours[1]
    pixels[middle_y:, :middle_x], pixels[middle_y:, middle_x:] = colours[2], colours[3]
    return Image.fromarray(pixels)


def grey_flag() -> Image.Image:
    """`flag` in four greys, mode L."""
    return flag(GREY_FLAG).getchannel(0)


def _bilevel() -> Image.Image:
    return flag(BILEVEL_FLAG).convert("1", dither=Image.Dither.NONE)


def _deep_grey() -> np.ndarray[tuple[int, int], np.dtype[np.uint16]]:
    # The low byte is noise that rounding, instead of dropping it, would let show.
    return np.asarray(grey_flag()).astype(np.uint16) * 256 + 200


def _jpeg(image: Image.Image | None = None, **options: object) -> bytes:
    return make.encoded(image or flag(), "JPEG", **{"quality": 95, "subsampling": 0, **options})


def _png(image: Image.Image | None = None, **options: object) -> bytes:
    return make.encoded(image or flag(), "PNG", **options)


def _see_through(mode: str) -> Image.Image:
    """The flag with its bottom left quarter (blue, or dark) wholly transparent."""
    alpha = flag((WHITE, WHITE, BLACK, WHITE)).getchannel(0)
    image = flag() if mode == "RGBA" else grey_flag()
    image.putalpha(alpha)
    return image


def _palette() -> Image.Image:
    """Palette indices 0 to 3 with the flag's colours; index 2 is transparent when saved so."""
    image = Image.fromarray(np.asarray(flag(((0,) * 3, (1,) * 3, (2,) * 3, (3,) * 3)).getchannel(0))).convert("P")
    image.putpalette([channel for colour in FLAG for channel in colour])
    return image


_UNTURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def _turned(orientation: int, kind: str) -> bytes:
    """The flag stored so that only a reader that follows `orientation` sees it upright."""
    image = flag().transpose(_UNTURN[orientation]) if orientation in _UNTURN else flag()
    if kind == "TIFF":
        return make.encoded(image, kind, compression="tiff_lzw", tiffinfo={274: orientation})
    exif = Image.Exif()
    exif[274] = orientation
    return make.encoded(image, kind, exif=exif, quality=95, subsampling=0, lossless=True)


def _cut(whole: Callable[[], bytes], keep: float) -> Callable[[], bytes]:
    """`whole` cut to a share of its length, or by `-keep` bytes at its end."""

    def make_cut() -> bytes:
        data = whole()
        return data[: int(len(data) * keep)] if keep > 0 else data[: int(keep)]

    return make_cut


def _textured() -> Image.Image:
    """A picture large enough that a share of its file is a share of its picture."""
    return Image.fromarray(np.random.default_rng(5).integers(0, 256, (200, 160, 3), dtype=np.uint8))


def _animation(kind: str) -> bytes:
    frames = [flag(FLAG[turn:] + FLAG[:turn]) for turn in range(3)]
    return make.encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, lossless=True)


def _tiff(image: Image.Image | None = None, compression: str | None = None) -> bytes:
    return make.encoded(image or flag(), "TIFF", compression=compression)


def _tiff_pages() -> bytes:
    pages = [_bilevel(), grey_flag(), flag()]
    return make.encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:], compression="tiff_adobe_deflate")


def _fax_pages() -> bytes:
    pages = [flag((WHITE,) * 4).convert("1"), _bilevel()]
    return make.encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:], compression="group4")


def _tiff_with_thumbnail() -> bytes:
    small = bytes([7]) * 4
    page = grey_flag().tobytes()
    return make.tiff(
        [
            (make.grey_strip_tags(2, 2, len(small), subfile=1), small),
            (make.grey_strip_tags(WIDTH_PX, HEIGHT_PX, len(page)), page),
        ]
    )


def _grey_tiff(**more: int) -> bytes:
    page = grey_flag().tobytes()
    return make.tiff([(make.grey_strip_tags(WIDTH_PX, HEIGHT_PX, len(page), **more), page)])


def _tiff_without_strips() -> bytes:
    tags = {**make.grey_strip_tags(WIDTH_PX, HEIGHT_PX, 10), 278: 1, 279: [WIDTH_PX] * 4, 273: [8] * 4}
    return make.tiff([(tags, bytes(WIDTH_PX))])


def _float(scale: float) -> Image.Image:
    return Image.fromarray(np.asarray(grey_flag()).astype(np.float32) / np.float32(255) * np.float32(scale))


_PDF_FLAG = "1 0 0 rg 0 24 36 24 re f 0 1 0 rg 36 24 36 24 re f 0 0 1 rg 0 0 36 24 re f"
_PDF_WANT = Readable(((255, 0, 0), (0, 255, 0), (0, 0, 255), WHITE), 200, 134, tolerance=2)


def _pdf_pages() -> bytes:
    return make.pdf(["0 0 72 48 re f", _PDF_FLAG])


def _patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def _claiming_webp() -> bytes:
    data = make.encoded(flag(), "WEBP", lossless=True)
    return _patched(data, 21, (0x3FFF | 0x3FFF << 14).to_bytes(4, "little"))


def _mpo() -> bytes:
    return make.encoded(
        flag(), "MPO", save_all=True, append_images=[grey_flag().convert("RGB")], quality=95, subsampling=0
    )


def _deep_png() -> bytes:
    return make.png((WIDTH_PX, HEIGHT_PX), 16, 2, make.png_rows(np.dstack([_deep_grey()] * 3)))


def _interlaced(passes: int) -> bytes:
    rows = make.adam7_rows(np.asarray(grey_flag()), passes)
    return make.png((WIDTH_PX, HEIGHT_PX), 8, 0, rows, interlace=1)


def _bad_crc() -> bytes:
    return make.png((WIDTH_PX, HEIGHT_PX), 8, 0, make.png_rows(np.asarray(grey_flag())), crc_error=1)


def _half_the_rows() -> bytes:
    return make.png((WIDTH_PX, HEIGHT_PX), 8, 0, make.png_rows(np.asarray(grey_flag())[: HEIGHT_PX // 2]))


_GREY = Readable(GREY_FLAG)
_GREY_JPEG = Readable(GREY_FLAG, tolerance=3)
_JPEG = Readable(tolerance=6)
_OVER_WHITE = Readable((RED, GREEN, WHITE, PALE))

READABLE: tuple[OddImage, ...] = (
    OddImage("jpeg-plain", _jpeg, _JPEG),
    OddImage("jpeg-progressive", partial(_jpeg, progressive=True), _JPEG),
    OddImage("jpeg-page-zero", _jpeg, _JPEG, page=0),
    OddImage("jpeg-grey", lambda: _jpeg(grey_flag()), _GREY_JPEG),
    OddImage("jpeg-rgb-components", partial(_jpeg, keep_rgb=True), _JPEG),
    OddImage("jpeg-restarts", partial(_jpeg, restart_marker_blocks=1), _JPEG),
    OddImage("jpeg-cmyk", lambda: _jpeg(flag().convert("CMYK")), _JPEG),
    OddImage("jpeg-ycck", lambda: make.ycck_jpeg(flag()), Readable(tolerance=8)),
    OddImage("jpeg-odd-sampling", make.jpeg_with_odd_sampling, Readable(((128,) * 3,) * 4, 16, 16, tolerance=1)),
    OddImage("jpeg-trailing-junk", lambda: _jpeg() + b"\0camera notes" * 50, _JPEG),
    OddImage("jpeg-damaged-exif", partial(_jpeg, exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), _JPEG),
    OddImage("jpeg-1x1", lambda: _jpeg(Image.new("RGB", (1, 1), RED)), Readable((RED,) * 4, 1, 1, tolerance=6)),
    OddImage("jpeg-100-to-1", lambda: _jpeg(flag(size=(2000, 20))), Readable(FLAG, 2000, 20, tolerance=6)),
    OddImage("mpo", _mpo, Readable(frames=2, tolerance=6)),
    *(OddImage(f"jpeg-exif-{turn}", partial(_turned, turn, "JPEG"), _JPEG) for turn in range(1, 9)),
    *(OddImage(f"tiff-exif-{turn}", partial(_turned, turn, "TIFF"), Readable()) for turn in range(1, 9)),
    OddImage("png-exif-6", partial(_turned, 6, "PNG"), Readable()),
    OddImage("webp-exif-8", partial(_turned, 8, "WEBP"), Readable()),
    OddImage("png-rgb", _png, Readable()),
    OddImage("png-bilevel", lambda: _png(_bilevel()), Readable(BILEVEL_FLAG)),
    OddImage("png-black", lambda: _png(Image.new("RGB", (20, 20))), Readable((BLACK,) * 4, 20, 20)),
    OddImage("png-rgba", lambda: _png(_see_through("RGBA")), _OVER_WHITE),
    OddImage("png-la", lambda: _png(_see_through("LA")), Readable((*GREY_FLAG[:2], WHITE, GREY_FLAG[3]))),
    OddImage("png-palette", lambda: _png(_palette()), Readable()),
    OddImage("png-palette-transparent", lambda: _png(_palette(), transparency=2), _OVER_WHITE),
    OddImage("png-colour-key", lambda: _png(flag(), transparency=BLUE), _OVER_WHITE),
    OddImage("png-grey-16", lambda: _png(Image.fromarray(_deep_grey())), _GREY),
    OddImage("png-rgb-16", _deep_png, _GREY),
    OddImage("png-interlaced", lambda: _interlaced(7), _GREY),
    OddImage("apng", lambda: _animation("PNG"), Readable(frames=3)),
    OddImage("gif", lambda: make.encoded(_palette(), "GIF"), Readable()),
    OddImage("gif-transparent", lambda: make.encoded(_palette(), "GIF", transparency=2), _OVER_WHITE),
    OddImage("gif-animated", lambda: _animation("GIF"), Readable(frames=3)),
    OddImage("webp-lossy", lambda: make.encoded(flag(), "WEBP", quality=95), Readable(tolerance=12)),
    OddImage("webp-alpha", lambda: make.encoded(_see_through("RGBA"), "WEBP", lossless=True), _OVER_WHITE),
    OddImage("webp-animated", lambda: _animation("WEBP"), Readable(frames=3)),
    OddImage("bmp", lambda: make.encoded(flag(), "BMP"), Readable()),
    OddImage("bmp-palette", lambda: make.encoded(_palette(), "BMP"), Readable()),
    OddImage("jpeg2000", lambda: make.encoded(flag(), "JPEG2000"), Readable()),
    OddImage("jpeg2000-grey-16", lambda: make.encoded(Image.fromarray(_deep_grey()), "JPEG2000"), _GREY),
    OddImage("jpeg2000-codestream", lambda: make.encoded(flag(), "JPEG2000", no_jp2=True), Readable()),
    OddImage("tiff-raw", _tiff, Readable()),
    OddImage("tiff-lzw", partial(_tiff, compression="tiff_lzw"), Readable()),
    OddImage("tiff-packbits", partial(_tiff, compression="packbits"), Readable()),
    OddImage("tiff-jpeg", partial(_tiff, compression="jpeg"), Readable(tolerance=60)),
    OddImage("tiff-group3", lambda: _tiff(_bilevel(), "group3"), Readable(BILEVEL_FLAG)),
    OddImage("tiff-fax-page-2", _fax_pages, Readable(BILEVEL_FLAG), page=1),
    OddImage("tiff-page-1", _tiff_pages, Readable(BILEVEL_FLAG), page=0),
    OddImage("tiff-page-2", _tiff_pages, _GREY, page=1),
    OddImage("tiff-page-3", _tiff_pages, Readable(), page=2),
    OddImage("tiff-grey-16", lambda: _tiff(Image.fromarray(_deep_grey()), "tiff_lzw"), _GREY),
    OddImage("tiff-grey-16-tiled", lambda: make.tiled_tiff(_deep_grey(), 32), _GREY),
    OddImage("tiff-cmyk", lambda: _tiff(flag().convert("CMYK"), "tiff_lzw"), Readable(tolerance=1)),
    OddImage(
        "tiff-white-is-zero",
        partial(_grey_tiff, photometric=0),
        Readable(((215,) * 3, (55,) * 3, (165,) * 3, (5,) * 3)),
    ),
    OddImage("tiff-float", lambda: _tiff(_float(1)), _GREY),
    OddImage("tiff-thumbnail-first", _tiff_with_thumbnail, _GREY),
    OddImage("tiff-big", lambda: make.encoded(flag(), "TIFF", big_tiff=True), Readable()),
    OddImage("pdf-one-page", lambda: make.pdf([_PDF_FLAG]), _PDF_WANT),
    OddImage("pdf-page-2", _pdf_pages, _PDF_WANT, page=1),
)


_WHOLE: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: _jpeg(_textured()),
    "jpeg-progressive": lambda: _jpeg(_textured(), progressive=True),
    "png": lambda: _png(_textured()),
    "gif": lambda: make.encoded(_textured(), "GIF"),
    "webp": lambda: make.encoded(_textured(), "WEBP"),
    "bmp": lambda: make.encoded(_textured(), "BMP"),
    "jpeg2000": lambda: make.encoded(_textured(), "JPEG2000"),
    "tiff-raw": lambda: _tiff(_textured()),
    "tiff-lzw": lambda: _tiff(_textured(), "tiff_lzw"),
    "tiff-fax": lambda: _tiff(_textured().convert("1"), "group4"),
    "pdf": lambda: make.pdf([_PDF_FLAG + " " * 2000]),
}
_SHARES = {"10%": 0.1, "50%": 0.5, "90%": 0.9, "last-byte": -1}

REFUSED: tuple[OddImage, ...] = (
    OddImage("empty", bytes, errors.ImageEmpty),
    *(
        OddImage(f"{kind}-cut-{share}", _cut(whole, keep), errors.ImageTruncated)
        for kind, whole in _WHOLE.items()
        for share, keep in _SHARES.items()
        if (kind, share) != ("pdf", "last-byte")  # its last byte is a line end that nobody needs
    ),
    OddImage("jpeg-without-end", _cut(_jpeg, -2), errors.ImageTruncated),
    OddImage("jpeg-signature-only", lambda: b"\xff\xd8\xff", errors.ImageTruncated),
    OddImage("png-half-signature", lambda: b"\x89PN", errors.ImageTruncated),
    OddImage("png-bad-checksum", _bad_crc, errors.ImageTruncated),
    OddImage("png-half-the-rows", _half_the_rows, errors.ImageTruncated),
    OddImage("png-interlace-unfinished", lambda: _interlaced(6), errors.ImageTruncated),
    OddImage("png-without-data", lambda: make.png((8, 8), 8, 0, b""), errors.ImageTruncated),
    OddImage("tiff-strips-missing", _tiff_without_strips, errors.ImageTruncated),
    OddImage(
        "tiff-pages-in-a-circle",
        lambda: make.tiff([(make.grey_strip_tags(2, 2, 4), bytes(4))], loop=True),
        errors.ImageTruncated,
    ),
    OddImage("text", lambda: b"Lorem ipsum dolor sit amet, consectetur", errors.NotAnImage),
    OddImage("html", lambda: b"<!DOCTYPE html><html><body>404</body></html>", errors.NotAnImage),
    OddImage("json", lambda: b'{"error": "not found"}', errors.NotAnImage),
    OddImage("svg", lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', errors.NotAnImage),
    OddImage("zeros", lambda: bytes(5000), errors.NotAnImage),
    OddImage("png-900-megapixels", lambda: make.png((30_000, 30_000), 8, 2, b""), errors.ImageTooLarge),
    OddImage("png-bomb", lambda: make.png((30_000, 30_000), 1, 0, bytes(3_751 * 3_000)), errors.ImageTooLarge),
    OddImage("png-long-side", lambda: make.png((40_000, 10), 8, 0, bytes(400_010)), errors.ImageTooLarge),
    OddImage("jpeg-65500-square", lambda: make.jpeg_claiming(65_500, 65_500), errors.ImageTooLarge),
    OddImage(
        "gif-65535-square", lambda: _patched(make.encoded(grey_flag(), "GIF"), 6, b"\xff" * 4), errors.ImageTooLarge
    ),
    OddImage("webp-16384-square", _claiming_webp, errors.ImageTooLarge),
    OddImage(
        "tiff-60000-square",
        lambda: make.tiff([(make.grey_strip_tags(60_000, 60_000, 4), bytes(4))]),
        errors.ImageTooLarge,
    ),
    OddImage(
        "bmp-30000-square", lambda: _patched(make.encoded(flag(), "BMP"), 18, b"\x30\x75\0\0" * 2), errors.ImageTooLarge
    ),
    OddImage("pdf-huge-page", lambda: make.pdf([_PDF_FLAG], size=(14_400, 14_400)), errors.ImageTooLarge),
    OddImage("pdf-locked", lambda: make.pdf([_PDF_FLAG], locked=True), errors.ImageUnsupported),
    OddImage("pdf-planned-whole", _pdf_pages, errors.ImageUnsupported),
    OddImage("tiff-planned-whole", _tiff_pages, errors.ImageUnsupported),
    OddImage("pdf-page-missing", _pdf_pages, errors.ImageMissing, page=2),
    OddImage("tiff-page-missing", _tiff_pages, errors.ImageMissing, page=3),
    OddImage("jpeg-page-missing", _jpeg, errors.ImageMissing, page=1),
    OddImage("tiff-float-beyond-1", lambda: _tiff(_float(900)), errors.ImageUnsupported),
    OddImage("tiff-32-bit", lambda: _tiff(grey_flag().convert("I")), errors.ImageUnsupported),
    OddImage("tiff-lab", lambda: _tiff(Image.new("LAB", (8, 8))), errors.ImageUnsupported),
    OddImage("jpeg-12-bit", lambda: make.jpeg_claiming(16, 16, precision=12), errors.ImageUnsupported),
    OddImage("jpeg-no-height", lambda: make.jpeg_claiming(16, 0), errors.ImageUnsupported),
    OddImage("photoshop", lambda: b"8BPS\0\x01" + bytes(100), errors.ImageUnsupported),
    OddImage("heic", lambda: b"\0\0\0\x18ftypheic" + bytes(100), errors.ImageUnsupported),
    OddImage("pnm", lambda: b"P5\n2 2\n255\n\0\0\0\0", errors.ImageUnsupported),
)

ODD_IMAGES: tuple[OddImage, ...] = READABLE + REFUSED
