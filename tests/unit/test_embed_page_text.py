"""The text of a page from its OCR JSON: as existing readers embed it, and as a person reads it, in every dialect."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from pagemill_worker.embed.page_text import own_page_text, page_text
from pagemill_worker.ocr.engine import Region
from pagemill_worker.views.ocr_json import render_ocr_json
from pagemill_worker.views.ocr_result import render_ocr_result
from pagemill_worker.views.row import OcrRow

RESULT = {"full_text": "あ\nb", "text_regions": [{"text": "あ", "bbox": [1, 2, 3, 4]}, {"text": "b"}]}


@pytest.mark.parametrize(
    ("data", "want_json", "want_state"),
    [
        (None, "", "missing"),
        (b"", "", "empty"),
        (b" \n", "", "empty"),
        (b"{", "", "invalid"),
        (b"\xef\xbb\xbf{}", "", "invalid"),
        (b"\xff", "", "invalid"),
        (b"[]", "", "invalid"),
        (b'"text"', "", "invalid"),
        (b"null", "", "invalid"),
        (b"[" * 100_000, "", "invalid"),
        (b"{}", "{}", "noResult"),
        (b'{"full_text": "a"}', "{}", "noResult"),
        (b'{"OCRResult": null}', "null", "null"),
        (b'{"OCRResult": {}}', "{}", "text"),
        (b'{"OCRResult": "a"}', '"a"', "text"),
        (json.dumps({"OCRResult": RESULT}, ensure_ascii=False).encode(), json.dumps(RESULT), "text"),
    ],
    ids=lambda value: repr(value)[:24] if isinstance(value, bytes) else None,
)
def test_page_text_as_json_follows_existing_readers(data: bytes | None, want_json: str, want_state: str) -> None:
    found = page_text(data)
    assert (found.json_text, found.state) == (want_json, want_state)


def test_page_text_as_json_keeps_ascii_escapes_and_separators() -> None:
    data = json.dumps({"OCRResult": RESULT}, ensure_ascii=False, indent=2).encode()
    want = '{"full_text": "\\u3042\\nb", "text_regions": [{"text": "\\u3042", "bbox": [1, 2, 3, 4]}, {"text": "b"}]}'
    assert page_text(data).json_text == want


@pytest.mark.parametrize(
    "value",
    [
        {
            "canonical_id": "x",
            "text_regions": [{"text": "one"}, {"text": " "}, {"text": "two"}],
            "full_text": "one two",
        },
        {"OCRResult": {"full_text": "one two", "text_regions": []}, "metadata": {"text": "no"}},
        {"paddleocr_results": [{"text": "one", "bbox": [[0, 0]]}, {"text": "two"}]},
        {"OCRResult": {"text_regions": [{"text": "one", "metadata": {"text": "no"}}, {"text": "two"}]}},
        {"OCRResult": [{"text": "one"}, {"lines": [{"text": "two"}]}]},
        {"OCRResult": "one two"},
    ],
    ids=["own", "ocrResult", "paddle", "regions", "list", "text"],
)
def test_page_text_plain_reads_every_dialect(value: object) -> None:
    assert page_text(json.dumps(value).encode()).plain.split() == ["one", "two"]


def test_page_text_half_surrogates_do_not_reach_a_tokenizer() -> None:
    assert page_text(b'{"OCRResult": {"full_text": "a\\ud800b"}}').plain == "a\ufffdb"


def test_own_page_text_equals_what_the_ocr_result_file_says() -> None:
    regions = (
        Region(text="WHERE?", confidence=0.99, bbox=(10.0, 20.0, 30.0, 40.0), polygon=None, level="line"),
        Region(text="", confidence=0.5, bbox=None, polygon=None, level="line"),
    )
    row = OcrRow(
        id="b/1",
        source_uri="1.png",
        status="succeeded",
        engine_name="rapidocr",
        engine_version="1",
        finished_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        regions=regions,
        width_px=100,
        height_px=100,
    )
    own = own_page_text(render_ocr_json(row))
    want = page_text(render_ocr_result(row))
    assert own.state == want.state == "text"
    assert own.plain.split() == want.plain.split() == ["WHERE?"]
    stripped = json.loads(want.json_text)
    for region in stripped["text_regions"]:
        del region["metadata"]
    assert json.loads(own.json_text) == stripped
    assert page_text(render_ocr_json(row)).json_text == "{}"
