"""The searchable PDF as pdfium reads it: every text is found, and found where it is printed."""

from __future__ import annotations

import datetime as dt
import io
import re
import struct
from typing import Any

import pypdfium2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pagemill_core.errors import IntegrityError
from pagemill_worker.ocr.engine import Region
from pagemill_worker.views.characters import legal_text, visual_order
from pagemill_worker.views.glyphless import glyphless_font
from pagemill_worker.views.layout import arrange
from pagemill_worker.views.pdf import render_pdf
from pagemill_worker.views.pdf_text import TextLayer, to_unicode
from pagemill_worker.views.pictures import read_info
from pagemill_worker.views.registry import render_views
from pagemill_worker.views.row import OcrRow

DPI = 144.0
WIDTH, HEIGHT = 600, 800


def make_row(*regions: Region, **changes: Any) -> OcrRow:
    row: dict[str, Any] = {
        "id": "book/page 1",
        "source_uri": "s3://library/page_001.png",
        "status": "succeeded",
        "engine_name": "rapidocr",
        "engine_version": "3.10.0",
        "finished_at": dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
        "regions": regions,
        "width_px": WIDTH,
        "height_px": HEIGHT,
        "dpi": DPI,
        "languages": ("ja",),
    }
    return OcrRow(**{**row, **changes})


def make_picture(file_format: str = "JPEG", mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "white").convert(mode).save(out, file_format)
    return out.getvalue()


def text_of(data: bytes) -> str:
    with pypdfium2.PdfDocument(data) as document:
        text: str = document[0].get_textpage().get_text_bounded()
        return text


def box_of(data: bytes, text: str, dpi: float = DPI) -> tuple[float, ...]:
    """Left, top, right, bottom of the first finding of `text`, in pixels."""
    with pypdfium2.PdfDocument(data) as document:
        page = document[0].get_textpage()
        found = page.search(text).get_next()
        assert found is not None, f"{text!r} is not in {page.get_text_bounded()!r}"
        boxes = [page.get_charbox(index, loose=True) for index in range(found[0], found[0] + found[1])]
        height = document[0].get_height()
    scale = dpi / 72
    left, bottom = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, top = max(box[2] for box in boxes), max(box[3] for box in boxes)
    return left * scale, (height - top) * scale, right * scale, (height - bottom) * scale


@pytest.mark.parametrize(
    ("text", "bbox"),
    [
        ("Hello world", (50, 60, 300, 30)),
        ("日本語の文章", (50, 60, 30, 300)),
        ("吹き出し", (50, 60, 200, 40)),
        ("naïve façade — “quoted”", (10, 700, 580, 20)),
        ("Ω≈ç√∫ кириллица ไทย", (100, 400, 300, 50)),
        ("x", (599, 799, 0.25, 0.25)),
    ],
    ids=["latin", "vertical", "japanese", "accents", "many-scripts", "tiny"],
)
def test_pdf_text_is_found_exactly_in_its_box(text: str, bbox: tuple[float, float, float, float]) -> None:
    x, y, width, height = bbox
    row = make_row(Region("before", bbox=(5, 5, 100, 20)), Region(text, bbox=bbox))

    found = box_of(render_pdf(row, make_picture()), text)

    assert found == pytest.approx((x, y, x + max(width, 1), y + max(height, 1)), abs=1.1)


def test_pdf_of_words_puts_each_in_its_own_box_with_spaces_between() -> None:
    regions = [
        Region(text, bbox=(x, 100, 60, 20), level="word") for text, x in (("one", 50), ("two", 111), ("six", 300))
    ]

    data = render_pdf(make_row(*regions), make_picture())

    assert text_of(data) == "one two six"
    assert box_of(data, "two") == pytest.approx((111, 100, 171, 120), abs=0.5)


def test_pdf_of_a_slanted_line_follows_its_outline() -> None:
    outline = ((100.0, 140.0), (298.0, 100.0), (302.0, 120.0), (104.0, 160.0))
    row = make_row(Region("slanted words", bbox=(100, 100, 202, 60), polygon=outline))

    data = render_pdf(row, make_picture())
    first, last = box_of(data, "slanted"), box_of(data, "words")

    assert text_of(data) == "slanted words"
    assert (first[0], last[2]) == pytest.approx((100, 302), abs=1)
    assert first[3] > last[3] + 10  # the line climbs


def test_pdf_text_layer_is_drawn_in_the_invisible_mode() -> None:
    assert TextLayer(1, HEIGHT).operators().split()[:3] == ["BT", "3", "Tr"]


def test_pdf_of_an_outline_without_area_falls_back_to_the_box() -> None:
    line = ((100.0, 140.0), (298.0, 100.0), (298.0, 100.0), (100.0, 140.0))

    data = render_pdf(make_row(Region("flat", bbox=(100, 100, 198, 40), polygon=line)), make_picture())

    assert box_of(data, "flat") == pytest.approx((100, 100, 298, 140), abs=0.5)


@pytest.mark.parametrize(
    "text", ["שלום עולם", "مرحبا بالعالم", "abc אבג 123 xyz", "😀 𠀋 astral", "cafe\u0301", "a\u200db"], ids=ascii
)
def test_pdf_text_of_any_script_comes_back_in_reading_order(text: str) -> None:
    assert text_of(render_pdf(make_row(Region(text, bbox=(50, 60, 400, 30))), make_picture())) == text


@given(st.lists(st.text(alphabet=st.characters(), min_size=1), min_size=1, max_size=3))
def test_pdf_codes_of_any_text_map_back_to_its_characters(texts: list[str]) -> None:
    layer = TextLayer(1, HEIGHT)
    lines = [
        line
        for block in arrange(make_row(*(Region(text, bbox=(5, 6, 70, 8)) for text in texts)))
        for line in block.lines
    ]
    for line in lines:
        layer.add(line)
    entries = re.findall(r"^<(\w{4})> <(\w+)>$", to_unicode(layer.characters).decode("ascii"), re.MULTILINE)
    meaning = {code: bytes.fromhex(units).decode("utf-16-be") for code, units in entries}
    shown = re.findall(r"<(\w*)> Tj", layer.operators())

    got = ["".join(meaning[run[i : i + 4]] for i in range(0, len(run), 4)) for run in shown]

    assert got == [visual_order(legal_text(line.text)) for line in lines]


def test_pdf_of_text_without_a_place_leaves_it_out() -> None:
    data = render_pdf(make_row(Region("nowhere"), Region("here", bbox=(1, 1, 50, 20))), make_picture())

    assert text_of(data) == "here"


def test_pdf_of_controls_and_half_pairs_keeps_the_rest() -> None:
    data = render_pdf(make_row(Region("a\x00b\ud83dc", bbox=(10, 10, 200, 20))), make_picture())

    assert text_of(data) == "a\ufffdb\ufffdc"


def test_pdf_page_has_the_size_its_resolution_says() -> None:
    with pypdfium2.PdfDocument(render_pdf(make_row(), make_picture())) as document:
        assert document[0].get_size() == pytest.approx((WIDTH * 72 / DPI, HEIGHT * 72 / DPI))
        assert document.get_metadata_value("Title") == "book/page 1"


@pytest.mark.parametrize("dpi", [None, 1.0, 72_000.0], ids=["none", "one", "absurd"])
def test_pdf_page_of_no_plausible_resolution_has_150_dots_per_inch(dpi: float | None) -> None:
    with pypdfium2.PdfDocument(render_pdf(make_row(dpi=dpi), make_picture())) as document:
        assert document[0].get_width() == pytest.approx(WIDTH * 72 / 150)


def test_pdf_page_of_a_huge_picture_stays_within_the_format() -> None:
    row = make_row(width_px=32_000, height_px=10, dpi=72.0)

    with pypdfium2.PdfDocument(render_pdf(row, make_picture(size=(32_000, 10)))) as document:
        assert document[0].get_width() == pytest.approx(14_400, rel=1e-4)


def test_pdf_embeds_a_jpeg_as_it_is() -> None:
    picture = make_picture()

    assert picture in render_pdf(make_row(), picture)


@pytest.mark.parametrize(
    ("file_format", "mode"), [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "L")]
)
def test_pdf_shows_the_picture_and_not_the_text(file_format: str, mode: str) -> None:
    row = make_row(Region("invisible", bbox=(0, 0, WIDTH, HEIGHT)))

    with pypdfium2.PdfDocument(render_pdf(row, make_picture(file_format, mode))) as document:
        pixels = document[0].render(scale=0.5).to_numpy()

    assert pixels.min() >= 250


def test_pdf_of_another_pages_picture_is_refused() -> None:
    with pytest.raises(IntegrityError, match="601 x 800"):
        render_pdf(make_row(), make_picture(size=(601, 800)))


@pytest.mark.parametrize("picture", [b"not a picture", make_picture("WEBP")], ids=["junk", "webp"])
def test_pdf_of_no_jpeg_or_png_is_refused(picture: bytes) -> None:
    with pytest.raises(ValueError, match="JPEG"):
        render_pdf(make_row(), picture)


def test_pdf_view_of_the_same_row_is_the_same_bytes() -> None:
    row, picture = make_row(Region("a 日本", bbox=(1, 2, 30, 40))), make_picture()

    (first,), (second,) = (list(render_views(row, ["pdf"], "p", lambda: picture)) for _ in range(2))

    assert first == second
    assert first.key == "p/book/page 1.pdf"


def test_glyphless_font_has_sound_tables_and_checksum() -> None:
    font = glyphless_font()
    count = struct.unpack(">H", font[4:6])[0]
    entries = [struct.unpack(">4sLLL", font[12 + 16 * i : 28 + 16 * i]) for i in range(count)]
    tables = {tag: font[offset : offset + length] for tag, _, offset, length in entries}

    assert sum(struct.unpack(f">{len(font) // 4}L", font)) & 0xFFFFFFFF == 0xB1B0AFBA
    assert sorted(tables) == [b"glyf", b"head", b"hhea", b"hmtx", b"loca", b"maxp"]
    assert (len(tables[b"head"]), len(tables[b"hhea"]), len(tables[b"maxp"])) == (54, 36, 32)
    assert tables[b"head"][12:16] == bytes.fromhex("5f0f3cf5")
    assert struct.unpack(">HHH", tables[b"loca"])[-1] * 2 == len(tables[b"glyf"])


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_picture_info_of_a_file_is_what_its_header_says(file_format: str) -> None:
    info = read_info(make_picture(file_format, "RGB", (30, 20)))

    assert (info.width_px, info.height_px, info.mode) == (30, 20, "RGB")
    assert info.media_type == f"image/{file_format.lower()}"
