"""A model that repeats itself is seen; a page that repeats itself is left alone."""

from __future__ import annotations

import json

import pytest

from pagemill_worker.ocr.vlm_loops import loops_at_end

PROSE = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, "
    "it was the epoch of belief, it was the epoch of incredulity, it was the season of Light."
)


def regions(*texts: str) -> str:
    return json.dumps({"text_regions": [{"text": text} for text in texts]})


@pytest.mark.parametrize(
    "text",
    [
        "start " + "ha " * 200,
        '{"text_regions": [{"text": "' + "." * 500,
        '{"text_regions": [' + '{"text": "SALE", "bbox": [1, 2, 3, 4]}, ' * 40,
        PROSE + "The end of it. And then again. " * 30 + "The end of",
    ],
    ids=["word", "dots", "regions", "cut-unit"],
)
def test_cut_answer_that_repeats_its_end_is_a_loop(text: str) -> None:
    assert loops_at_end(text, finished=False)


@pytest.mark.parametrize("text", [PROSE, regions(*PROSE.split(", ")), "ha ha ha ha", "", "x"], ids=range(5))
def test_cut_answer_without_repetition_is_none(text: str) -> None:
    assert not loops_at_end(text, finished=False)


def test_finished_answer_full_of_one_sentence_is_a_loop() -> None:
    assert loops_at_end(regions(PROSE + "And so on and on. " * 40), finished=True)
    assert loops_at_end(f"```json\n{regions('And so on and on. ' * 40)}\n```", finished=True)
    assert loops_at_end("And so on and on. " * 40, finished=True)


@pytest.mark.parametrize(
    "text",
    [
        PROSE,
        regions(*["0.00"] * 15),
        "Contents " + "." * 400 + " 7",
        "Name " + "_" * 300,
        "ha " * 60,
        regions(*(f"{number}.00" for number in range(200))),
    ],
    ids=["prose", "column", "leader-dots", "form-line", "laughter", "numbers"],
)
def test_finished_answer_of_a_repetitive_page_is_kept(text: str) -> None:
    assert not loops_at_end(text, finished=True)
