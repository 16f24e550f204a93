"""Every form in which models answer, and what is made of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagemill_worker.ocr.vlm_reply import Reading, SaidRegion, Unusable, clean_text, parse_reply

GOOD = {"text_regions": [{"text": "POW!", "location": "top left", "confidence": 0.7, "bbox": [1, 2, 3, 4]}]}
WANT_GOOD = (SaidRegion("POW!", 0.7, (1.0, 2.0, 3.0, 4.0), "top left"),)


def regions(reply: str) -> tuple[SaidRegion, ...]:
    reading = parse_reply(reply)
    assert isinstance(reading, Reading), reading
    return reading.regions


@pytest.mark.parametrize(
    "reply",
    [
        json.dumps(GOOD),
        f"```json\n{json.dumps(GOOD, indent=2)}\n```",
        f"```\n{json.dumps(GOOD)}\n```",
        f"```json\n{json.dumps(GOOD)}",
        f"Here is the text {{as asked}}:\n{json.dumps(GOOD)}\nHope this helps [1]!",
        f"<think>the page shows {{x}}</think>\n{json.dumps(GOOD)}",
        json.dumps({"regions": GOOD["text_regions"]}),
        json.dumps(GOOD["text_regions"]),
        json.dumps(GOOD["text_regions"][0]),
        json.dumps(GOOD).replace("bbox", "box_2d"),
        json.dumps(GOOD).replace("[1, 2, 3, 4]", '["1", 2.0, "3", 4]'),
    ],
    ids=["plain", "fenced", "fence-unnamed", "fence-open", "prose-around", "thoughts"]
    + ["regions", "list", "lone", "box_2d", "strings"],
)
def test_json_answer_in_any_wrapping_gives_the_same_regions(reply: str) -> None:
    assert regions(reply) == WANT_GOOD


@pytest.mark.parametrize(
    ("value", "want"),
    [(0.5, 0.5), (1, 1.0), (0, 0.0), ("0.5", 0.5), ("85%", 0.85), (85, 0.85), (-1, None), (101, None)]
    + [(None, None), ("high", None), (True, None), ([], None), (float("nan"), None), (10**400, None)],
    ids=repr,
)
def test_confidence_of_any_type_is_a_share_or_unknown(value: object, want: float | None) -> None:
    [region] = regions(json.dumps({"text_regions": [{"text": "a", "confidence": value}]}))

    assert region.confidence == want


@pytest.mark.parametrize(
    "box",
    [None, [], [1, 2, 3], [1, 2, 3, 4, 5], "1,2,3,4", {"x": 1}, [1, 2, 3, None], [1, 2, 3, True], [1, 2, 3, "x"]],
    ids=repr,
)
def test_box_that_is_none_leaves_the_text(box: object) -> None:
    assert regions(json.dumps({"text_regions": [{"text": "a", "bbox": box}]})) == (SaidRegion("a"),)


def test_regions_of_wrong_types_are_dropped_and_counted() -> None:
    reading = parse_reply(
        json.dumps(
            {"text_regions": ["plain", {"text": 7}, {"text": None}, {"text": "  "}, {"text": True}, 5, None, {}]}
        )
    )

    assert reading == Reading((SaidRegion("plain"), SaidRegion("7")), "json", dropped_count=6)


def test_page_without_text_is_a_reading() -> None:
    assert parse_reply('{"text_regions": []}') == Reading((), "json")
    assert parse_reply("[]") == Reading((), "json")


@pytest.mark.parametrize("cut", range(1, len(json.dumps(GOOD))))
def test_json_cut_anywhere_is_never_a_reading(cut: int) -> None:
    assert isinstance(parse_reply(json.dumps(GOOD)[:cut]), Unusable)


def test_json_cut_after_whole_regions_does_not_pass_for_the_page() -> None:
    reply = '{"text_regions": [{"text": "first", "words": [{"text": "first"}]}, {"text": "sec'

    assert parse_reply(reply) == Unusable("was broken JSON")


@pytest.mark.parametrize(
    ("reply", "want_reason"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("<think>hm</think>", "empty"),
        ('{"text_regions": "none"}', "another shape"),
        ('{"error": "no image"}', "another shape"),
        ('{"text_regions": [5, null]}', "no region with text"),
        ("I'm sorry, but I can't assist with that.", "refusal"),
        ("I cannot read this image.", "refusal"),
        ("As an AI model, I do not see pictures", "refusal"),
        ('{"text_regions": ' + "[" * 100_000, "broken JSON"),
    ],
    ids=["empty", "blank", "thoughts", "string", "error", "junk", "sorry", "cannot", "ai", "deep"],
)
def test_useless_answer_says_why(reply: str, want_reason: str) -> None:
    unusable = parse_reply(reply)

    assert isinstance(unusable, Unusable)
    assert want_reason in unusable.reason


@pytest.mark.parametrize(
    "reply",
    ["Chapter One\nIt was a dark night.", "[Music] la la", "I'm sorry, said the fox. " * 40, "1. Set {a, b}"],
    ids=["prose", "brackets", "long-sorry", "braces"],
)
def test_prose_is_one_region_of_half_confidence(reply: str) -> None:
    reading = parse_reply(reply)

    assert reading == Reading((SaidRegion(reply.strip(), 0.5),), "prose")


def test_backslashes_that_json_does_not_know_are_taken_literally() -> None:
    reply = r'{"text_regions": [{"text": "area \(x\) \d \\ \" \u00e9 don\'t"}]}'

    assert regions(reply) == (SaidRegion(r"area \(x\) \d \ " + '" é don' + r"\'t"),)


def test_line_ends_inside_json_strings_are_kept() -> None:
    assert regions('{"text_regions": [{"text": "one\ntwo\\nthree"}]}') == (SaidRegion("one\ntwo\nthree"),)


def test_text_loses_what_no_file_can_hold() -> None:
    assert clean_text("a\x00b\x1bc\ud83dd\x85e\r\nf\rg\th\u200b") == "abc\ufffdde\nf\ng\th\u200b"


def test_grounding_marks_give_text_and_hull() -> None:
    reply = (
        "<|ref|>BANG<|/ref|><|det|>[[10, 20, 30, 40], [50, 5, 60, 45]]<|/det|>\n"
        "<|ref|>title<|/ref|><|det|>[[0, 0, 999, 50]]<|/det|>\n# Chapter <1>\n"
        "<|ref|>image<|/ref|><|det|>[[0, 0, 9, 9]]<|/det|>\n"
        "<|ref|>no box<|/ref|><|det|>[]<|/det|><|end▁of▁sentence|>"
    )

    reading = parse_reply(reply)

    assert isinstance(reading, Reading)
    assert (reading.form, reading.dropped_count) == ("grounding", 1)
    assert reading.regions == (
        SaidRegion("BANG", corners=(10.0, 5.0, 60.0, 45.0)),
        SaidRegion("# Chapter <1>", corners=(0.0, 0.0, 999.0, 50.0), location="title"),
        SaidRegion("no box"),
    )


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["text", "bbox", "x"]), inner),
    max_leaves=12,
)


@settings(max_examples=150)
@given(st.text() | ANY_JSON.map(json.dumps) | ANY_JSON.map(lambda value: json.dumps({"text_regions": value})))
def test_any_answer_is_read_or_refused_without_an_exception(reply: str) -> None:
    reading = parse_reply(reply)

    if isinstance(reading, Reading):
        for region in reading.regions:
            region.text.encode("utf-8")
            assert region.text
            assert region.confidence is None or 0 <= region.confidence <= 1
