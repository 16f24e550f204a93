"""Plain text, hOCR and ALTO: what stands in them, where, and that no character is lost that the format can hold."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from pagemill_worker.ocr.engine import Region
from pagemill_worker.views.alto import render_alto
from pagemill_worker.views.characters import language_tag, legal_text, valid_text, visual_order, xml_text
from pagemill_worker.views.hocr import render_hocr
from pagemill_worker.views.layout import Box, arrange, runs_downwards
from pagemill_worker.views.row import OcrRow
from pagemill_worker.views.text import render_text

XHTML = "{http://www.w3.org/1999/xhtml}"
ALTO = "{http://www.loc.gov/standards/alto/ns-v4#}"


def make_row(*regions: Region, **changes: Any) -> OcrRow:
    row: dict[str, Any] = {
        "id": "page_001",
        "source_uri": "s3://library/page_001.png",
        "status": "succeeded",
        "engine_name": "rapidocr",
        "engine_version": "3.10.0",
        "finished_at": dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
        "regions": regions,
        "width_px": 1000,
        "height_px": 1400,
        "languages": ("en",),
    }
    return OcrRow(**{**row, **changes})


def word(text: str, x: float, y: float, width: float = 40, height: float = 20, **changes: Any) -> Region:
    return Region(text, 0.9, (x, y, width, height), level="word", **changes)


def lines_of(row: OcrRow) -> list[str]:
    return [line.text for block in arrange(row) for line in block.lines]


def words_in_hocr(data: bytes) -> list[str]:
    root = etree.fromstring(data)
    return [element.text for element in root.iter(f"{XHTML}span") if element.get("class") == "ocrx_word"]


def words_in_alto(data: bytes) -> list[str]:
    return [element.get("CONTENT") for element in etree.fromstring(data).iter(f"{ALTO}String")]


# Characters


@given(st.text(alphabet=st.characters()))
def test_legal_text_of_any_characters_can_be_encoded_and_keeps_the_length(text: str) -> None:
    legal = legal_text(text)

    assert len(legal) == len(text)
    assert legal.encode() is not None
    etree.fromstring(f"<a>{xml_text(text)}</a>")


def test_valid_text_joins_halves_of_a_pair_and_replaces_lone_ones() -> None:
    assert valid_text("\ud83d\ude00 \ud83d \ude00 ok") == "😀 \ufffd \ufffd ok"


def test_xml_text_keeps_line_ends_and_tabs_through_a_parser() -> None:
    text = 'a\r\nb\tc\rd <&>"'

    assert etree.fromstring(f"<a>{xml_text(text)}</a>").text == text
    assert etree.fromstring(f'<a b="{xml_text(text)}"/>').get("b") == text


@pytest.mark.parametrize(
    ("languages", "want"),
    [(("chi_sim", "zh-Hans"), "zh-Hans"), (("en", "ja"), "en"), (("chi_sim",), ""), ((), "")],
    ids=str,
)
def test_language_tag_of_a_job_is_the_first_that_is_one(languages: tuple[str, ...], want: str) -> None:
    assert language_tag(languages) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("plain", "plain"),
        ("אבג דה", "הד גבא"),
        ("abc אבג xyz", "abc גבא xyz"),
        ("אבג 12.5 דה", "הד 12.5 גבא"),
        ("אבג abc דה", "הד abc גבא"),
        ("...", "..."),
    ],
    ids=["left", "right", "right-in-left", "number", "left-in-right", "neutral"],
)
def test_visual_order_of_mixed_scripts_is_what_stands_on_paper(text: str, want: str) -> None:
    assert visual_order(text) == want


@given(st.text(alphabet="abאב 12.,", max_size=12))
def test_visual_order_of_anything_loses_no_character(text: str) -> None:
    assert sorted(visual_order(text)) == sorted(text)


# Lines and words


def test_words_side_by_side_make_one_line() -> None:
    assert lines_of(make_row(word("a", 10, 10), word("b", 60, 14), word("c", 10, 40))) == ["a b", "c"]


def test_words_of_a_script_from_right_to_left_make_one_line() -> None:
    assert lines_of(make_row(word("שלום", 200, 10), word("עולם", 150, 12))) == ["שלום עולם"]


def test_words_set_so_tight_that_lines_overlap_make_two_lines() -> None:
    assert lines_of(make_row(word("a", 10, 10), word("b", 60, 10), word("c", 12, 19, height=24))) == ["a b", "c"]


def test_word_a_step_lower_is_on_the_next_line_wherever_it_stands() -> None:
    assert lines_of(make_row(word("a", 10, 10), word("b", 500, 26), word("c", 700, 30))) == ["a", "b c"]


def test_words_whose_engine_numbers_lines_follow_the_numbers() -> None:
    first, second = {"block": 1, "paragraph": 1, "line": 1}, {"block": 1, "paragraph": 1, "line": 2}
    row = make_row(
        word("a", 10, 10, metadata=first), word("b", 60, 40, metadata=first), word("c", 110, 40, metadata=second)
    )

    assert lines_of(row) == ["a b", "c"]


def test_words_without_boxes_stand_alone() -> None:
    assert lines_of(make_row(Region("a", level="word"), Region("b", level="word"))) == ["a", "b"]


def test_block_of_several_lines_is_cut_evenly() -> None:
    (block,) = arrange(make_row(Region("one\r\n\ntwo", bbox=(100, 200, 300, 80), level="block")))

    assert [line.box for line in block.lines] == [Box(100, 200, 400, 240), Box(100, 240, 400, 280)]


def test_blocks_stand_apart_from_the_lines_between_them() -> None:
    regions = Region("a"), Region("b", level="block"), Region("c"), Region("d")

    assert [[line.text for line in block.lines] for block in arrange(make_row(*regions))] == [["a"], ["b"], ["c", "d"]]


def test_line_is_cut_into_words_by_their_share_of_the_characters() -> None:
    ((line,),) = [block.lines for block in arrange(make_row(Region("ab  cdef", bbox=(100, 10, 70, 20))))]

    assert [(item.text, item.box) for item in line.words] == [
        ("ab", Box(100, 10, 120, 30)),
        ("cdef", Box(130, 10, 170, 30)),
    ]
    assert all(item.box_is_estimated for item in line.words)


def test_vertical_line_is_cut_downwards() -> None:
    ((line,),) = [block.lines for block in arrange(make_row(Region("日本 語", bbox=(100, 0, 20, 80))))]

    assert [item.box for item in line.words] == [Box(100, 0, 120, 40), Box(100, 60, 120, 80)]


@pytest.mark.parametrize(
    ("text", "width", "height", "want"),
    [
        ("日本語", 20, 60, True),
        ("日本", 20, 40, True),
        ("il", 9, 20, False),
        ("I", 5, 30, False),
        ("word", 80, 20, False),
    ],
    ids=["three", "two-wide", "two-narrow", "one", "lying"],
)
def test_text_runs_downwards_only_where_it_must(text: str, width: float, height: float, want: bool) -> None:
    assert runs_downwards(text, Box(0, 0, width, height)) is want


def test_boxes_beyond_the_page_are_cut_to_it() -> None:
    ((line,),) = [block.lines for block in arrange(make_row(Region("a", bbox=(-10, 1390, 2000, 50))))]

    assert line.box == Box(0, 1390, 1000, 1400)


def test_no_break_and_ideographic_spaces_stay_inside_their_word() -> None:
    row = make_row(Region("10\u00a0km 全角\u3000空白"))

    assert words_in_alto(render_alto(row)) == words_in_hocr(render_hocr(row)) == ["10\u00a0km", "全角\u3000空白"]


# Plain text


@given(st.lists(st.text(min_size=1), max_size=5))
def test_plain_text_of_any_regions_is_their_text_line_by_line(texts: list[str]) -> None:
    data = render_text(make_row(*(Region(text) for text in texts)))

    assert data.decode() == "".join(text + "\n" for text in texts if text.strip(" \t\r\n"))


def test_plain_text_of_words_puts_those_of_a_line_together() -> None:
    assert render_text(make_row(word("a", 10, 10), word("b", 60, 14), word("c", 10, 40))) == b"a b\nc\n"


def test_plain_text_of_a_page_without_text_is_empty() -> None:
    assert render_text(make_row(Region(" "))) == b""


# hOCR and ALTO


@given(st.lists(st.text(alphabet=st.characters(), min_size=1), max_size=4), st.text(max_size=20))
def test_words_of_any_text_come_back_from_hocr_and_alto(texts: list[str], name: str) -> None:
    row = make_row(*(Region(text, bbox=(1, 2, 300, 40)) for text in texts), id=name or "x", source_uri=name)

    want = [piece for text in texts for piece in re.split("[ \t\r\n]+", legal_text(text)) if piece]

    assert words_in_hocr(render_hocr(row)) == want
    assert words_in_alto(render_alto(row)) == want


def test_hocr_of_a_page_has_boxes_and_confidences_in_its_titles() -> None:
    row = make_row(word("Hello", 10.4, 20.6, 100, 30), Region("there", bbox=(10, 80, 50, 20)), dpi=299.6, page=2)

    root = etree.fromstring(render_hocr(row))
    title = {element.get("class"): element.get("title") for element in root.iter() if element.get("class")}
    words = [element for element in root.iter(f"{XHTML}span") if element.get("class") == "ocrx_word"]

    assert title["ocr_page"] == 'image "s3://library/page_001.png"; bbox 0 0 1000 1400; ppageno 2; scan_res 300 300'
    assert title["ocr_carea"] == "bbox 10 21 110 100"
    assert words[0].get("title") == "bbox 10 21 110 51; x_wconf 90"
    assert words[1].get("title") == "bbox 10 80 60 100"
    assert root.get("lang") == "en"


def test_hocr_of_text_without_a_place_has_the_page_as_its_box() -> None:
    (element,) = [e for e in etree.fromstring(render_hocr(make_row(Region("a")))).iter(f"{XHTML}span") if e.text]

    assert element.get("title") == "bbox 0 0 1000 1400"


def test_hocr_of_a_name_with_quotes_keeps_the_name_readable() -> None:
    root = etree.fromstring(render_hocr(make_row(source_uri='a "b".png')))
    (page,) = [element for element in root.iter(f"{XHTML}div") if element.get("class") == "ocr_page"]

    assert 'image "a %22b%22.png"; bbox' in page.get("title")


def test_alto_of_a_page_has_places_confidences_and_shapes() -> None:
    slanted = ((10.0, 20.0), (110.0, 30.0), (109.0, 50.0), (9.0, 40.0))
    row = make_row(Region("Hello you", 0.87654, (9, 20, 101, 30), slanted), Region("there", 0.9), page=2)

    root = etree.fromstring(render_alto(row))
    first, second = root.iter(f"{ALTO}TextLine")
    page = root.find(f".//{ALTO}Page")

    assert (page.get("WIDTH"), page.get("HEIGHT"), page.get("PHYSICAL_IMG_NR"), page.get("LANG")) == (
        "1000",
        "1400",
        "3",
        "en",
    )
    assert [first.get(key) for key in ("HPOS", "VPOS", "WIDTH", "HEIGHT")] == ["9", "20", "101", "30"]
    assert first.find(f".//{ALTO}Polygon").get("POINTS") == "10,20 110,30 109,50 9,40"
    assert [child.tag.removeprefix(ALTO) for child in first] == ["Shape", "String", "SP", "String"]
    assert first.find(f"{ALTO}String").get("WC") == "0.8765"
    assert "HPOS" not in second.attrib
    assert "wordBoxes=estimated" in root.findtext(f".//{ALTO}processingStepSettings")


def test_stand_in_confidences_are_in_neither_hocr_nor_alto() -> None:
    row = make_row(Region("a", 0.9, (0, 0, 10, 10), metadata={"confidence_is_default": True}))

    assert b"x_wconf" not in render_hocr(row)
    assert b"WC=" not in render_alto(row)


def test_page_without_text_is_well_formed_in_both() -> None:
    row = make_row()

    assert words_in_hocr(render_hocr(row)) == words_in_alto(render_alto(row)) == []
