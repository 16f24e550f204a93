"""What the loader tells of a page beside its pixels, where its pixels come from, and thumbnails for reports."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from reportlab.pdfgen.canvas import Canvas

from pagemill_core.testing import image_bytes
from pagemill_core.testing.odd_images import flag, grey_flag
from pagemill_worker.images.limits import ImageLimits
from pagemill_worker.images.load import load_page
from pagemill_worker.images.page import PageImage
from pagemill_worker.images.thumbnail import thumbnail_jpeg


def page_of(image: Image.Image) -> PageImage:
    return PageImage(np.array(image.convert("RGB")))


@pytest.mark.parametrize(
    ("size", "want"),
    [
        ((1000, 500), (100, 50)),
        ((500, 1000), (50, 100)),
        ((80, 60), (80, 60)),
        ((10_000, 20), (100, 1)),
        ((1, 1), (1, 1)),
    ],
)
def test_thumbnail_keeps_proportions_and_never_enlarges(size: tuple[int, int], want: tuple[int, int]) -> None:
    small = Image.open(io.BytesIO(thumbnail_jpeg(page_of(flag(size=size)), 100)))
    assert small.size == want
    assert small.format == "JPEG"


def test_thumbnail_shows_the_page_and_is_the_same_each_time() -> None:
    page = page_of(flag(size=(2400, 1600)))
    first = thumbnail_jpeg(page, 120)
    assert first == thumbnail_jpeg(page, 120)
    small, want = np.asarray(Image.open(io.BytesIO(first))).astype(int), np.asarray(flag(size=(120, 80))).astype(int)
    assert np.abs(small - want).mean() < 4


def test_thumbnail_of_no_size_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="positive"):
        thumbnail_jpeg(page_of(flag()), 0)


@pytest.mark.parametrize(
    ("kind", "options", "want"),
    [
        ("JPEG", {"dpi": (300, 300)}, 300),
        ("JPEG", {}, None),
        ("PNG", {"dpi": (300, 300)}, 300),
        ("TIFF", {"dpi": (204, 196)}, 204),
        ("TIFF", {"dpi": (204, 98)}, None),
        ("TIFF", {}, None),
        ("BMP", {"dpi": (150, 150)}, 150),
    ],
)
def test_load_page_tells_the_resolution_when_there_is_one(
    kind: str, options: dict[str, object], want: float | None
) -> None:
    data = image_bytes.encoded(flag(), kind, **options)
    dpi = load_page(data, page=None, limits=ImageLimits(), origin="x").dpi
    assert dpi == (pytest.approx(want, abs=0.1) if want else None)


@pytest.mark.parametrize(
    ("data", "want"),
    [
        (image_bytes.encoded(grey_flag(), "JPEG"), "L"),
        (image_bytes.encoded(flag().convert("CMYK"), "JPEG"), "CMYK"),
        (image_bytes.encoded(flag().convert("1"), "PNG"), "1"),
        (image_bytes.png((1, 1), 16, 2, bytes(7)), "RGB;16"),
        (image_bytes.encoded(Image.fromarray(np.zeros((2, 2), np.uint16)), "PNG"), "I;16"),
        (image_bytes.pdf([""]), "PDF"),
    ],
    ids=["grey", "cmyk", "bilevel", "rgb-16", "grey-16", "pdf"],
)
def test_load_page_tells_the_files_own_mode(data: bytes, want: str) -> None:
    assert load_page(data, page=None, limits=ImageLimits(), origin="x").source_mode == want


def test_load_page_pdf_is_as_fine_as_asked() -> None:
    data = image_bytes.pdf(["0 0 36 24 re f"], size=(72, 48))
    sizes = [
        load_page(data, page=0, limits=ImageLimits(pdf_dpi=dpi), origin="x").pixels.shape for dpi in (72, 144, 300)
    ]
    assert sizes == [(48, 72, 3), (96, 144, 3), (200, 300, 3)]


def test_load_page_12_bit_grey_keeps_its_highest_bits() -> None:
    samples = [0x000, 0x7FF, 0xFFF, 0x123]
    packed = int("".join(f"{sample:03x}" for sample in samples), 16).to_bytes(6, "big")
    tags = {**image_bytes.grey_strip_tags(4, 1, len(packed)), 258: 12}
    pixels = load_page(image_bytes.tiff([(tags, packed)]), page=None, limits=ImageLimits(), origin="x").pixels
    assert pixels[0, :, 0].tolist() == [sample >> 4 for sample in samples]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_load_page_over_the_callers_limits_is_refused(kind: str) -> None:
    data = image_bytes.encoded(flag(), kind)
    for limits in (ImageLimits(max_bytes=10), ImageLimits(max_pixels=1000), ImageLimits(max_side_px=40)):
        with pytest.raises(Exception, match="more than|longer than") as caught:
            load_page(data, page=None, limits=limits, origin="x")
        assert type(caught.value).__name__ == "ImageTooLarge"


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_load_page_jpeg_gives_the_pixels_that_pillow_gives(mode: str, subsampling: int, progressive: bool) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    data = image_bytes.encoded(
        Image.fromarray(noise).convert(mode), "JPEG", subsampling=subsampling, progressive=progressive
    )
    want = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(load_page(data, page=None, limits=ImageLimits(), origin="x").pixels, want)


def test_load_page_pdf_shows_what_was_filled_into_its_form() -> None:
    buffer = io.BytesIO()
    canvas = Canvas(buffer, pagesize=(200, 100), invariant=1)
    canvas.acroForm.textfield(name="t", value="MMMMMMMM", x=20, y=40, width=160, height=24, borderWidth=0)
    canvas.showPage()
    canvas.save()
    page = load_page(buffer.getvalue(), page=None, limits=ImageLimits(pdf_dpi=144), origin="x")
    assert (page.pixels < 80).any()


def test_load_page_pdf_pages_by_threads_at_once_all_come_out_right() -> None:
    data = image_bytes.pdf([f"{level / 10} g 0 0 72 48 re f" for level in range(8)])
    limits = ImageLimits(pdf_dpi=72)

    def grey(page: int) -> int:
        return int(load_page(data, page=page, limits=limits, origin="x").pixels[20, 20, 0])

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(grey, list(range(8)) * 10))
    assert found == [grey(page) for page in range(8)] * 10
