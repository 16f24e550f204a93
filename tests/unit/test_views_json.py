"""The row, its payload, the two JSON dialects, the registry of views and the run summary."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagemill_core.errors import EngineFailed, IntegrityError, UnsafeId
from pagemill_worker.items import ItemFailure
from pagemill_worker.ocr.engine import Region, Usage
from pagemill_worker.views.json_text import encode
from pagemill_worker.views.ocr_json import render_ocr_json
from pagemill_worker.views.ocr_result import render_ocr_result
from pagemill_worker.views.registry import VIEW_FORMATS, VIEW_NAMES, needs_pixels, render_views, view_keys
from pagemill_worker.views.row import OcrRow, from_json, from_payload, to_json, to_payload
from pagemill_worker.views.run import Cost, Counts, RunInfo
from pagemill_worker.views.summary import SummaryItem, write_summary

FINISHED_AT = dt.datetime(2026, 3, 4, 5, 6, 7, 890_000, tzinfo=dt.timezone(dt.timedelta(hours=2)))


def make_row(*regions: Region, **changes: Any) -> OcrRow:
    row: dict[str, Any] = {
        "id": "comics/nº 1 #2/page_001",
        "source_uri": "s3://library/comics/page_001.png",
        "status": "succeeded",
        "engine_name": "rapidocr",
        "engine_version": "3.10.0",
        "finished_at": FINISHED_AT,
        "regions": regions,
        "width_px": 800,
        "height_px": 1200,
        "dpi": 150.0,
        "languages": ("en", "ja"),
        "seconds": {"recognise": 0.5, "decode": 0.25},
    }
    return OcrRow(**{**row, **changes})


def make_failed(error_class: str = "ImageTruncated", message: str = "ends early", **changes: Any) -> OcrRow:
    failure = ItemFailure(error_class, message)
    return make_row(status="failed", failure=failure, width_px=None, height_px=None, **changes)


def make_run(**changes: Any) -> RunInfo:
    run: dict[str, Any] = {
        "name": "comics",
        "run": "00000001-abcdef01",
        "source_uri": "s3://library/manifest.csv",
        "output_uri": "s3://library/out/comics",
        "prefix": "ocr_results",
        "formats": ("json",),
        "engine_name": "rapidocr",
        "engine_version": "3.10.0",
        "languages": ("en",),
        "backend": "local",
        "workers": 2,
        "counts": Counts(total=0, succeeded=0, failed=0),
        "started_at": FINISHED_AT,
        "finished_at": FINISHED_AT,
        "seconds": 12.5,
    }
    return RunInfo(**{**run, **changes})


# The row and its payload

numbers = st.floats(0, 10_000, allow_nan=False)
metadata = st.dictionaries(
    st.text(max_size=8),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ),
    max_size=3,
)
regions = st.builds(
    Region,
    text=st.text(),
    confidence=st.none() | st.floats(0, 1),
    bbox=st.none() | st.tuples(numbers, numbers, numbers, numbers),
    polygon=st.none() | st.lists(st.tuples(numbers, numbers), min_size=4, max_size=5).map(tuple),
    level=st.sampled_from(["word", "line", "block"]),
    metadata=metadata,
)


@given(st.lists(regions, max_size=4), st.text(), metadata)
def test_payload_of_any_row_gives_an_equal_row_and_equal_views(found: list[Region], source: str, page: Any) -> None:
    usage = Usage(prompt_tokens=9, completion_tokens=4, requests=2, cost_usd=0.001)
    row = make_row(*found, source_uri=source, metadata=page, usage=usage, page=3, frames=7)

    again = from_json(to_json(row))

    assert again == row
    assert from_payload(to_payload(row)) == row
    assert to_json(again) == to_json(row)
    assert render_ocr_json(again) == render_ocr_json(row)
    assert render_ocr_result(again) == render_ocr_result(row)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_json_text_of_any_document_is_what_the_standard_library_writes(document: dict[str, Any]) -> None:
    assert encode(document).decode() == json.dumps(document, indent=2, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), object(), {1}], ids=["nan", "inf", "object", "set"])
def test_json_text_of_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="JSON cannot say"):
        encode({"a": [value]})


def test_payload_of_a_failed_row_keeps_the_failure() -> None:
    row = make_failed()

    assert from_json(to_json(row)) == row


def test_payload_is_the_same_bytes_in_another_process() -> None:
    region = Region("a", 0.5, metadata={"z": 1, "a": {"y": 2, "b": 3}})
    row = make_row(region, finished_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    program = (
        "import sys; from pagemill_worker.views.row import *; from pagemill_worker.views.registry import *\n"
        "row = from_json(sys.stdin.buffer.read().decode()); out = sys.stdout.buffer; out.write(to_json(row).encode())\n"
        "[out.write(view.data) for view in render_views(row, ['json', 'ocrResult', 'hocr', 'alto', 'text'], 'p')]"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            input=to_json(row).encode(),
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }

    assert len(outputs) == 1
    assert outputs.pop().startswith(to_json(row).encode())


def test_payload_of_half_a_surrogate_pair_holds_the_replacement_character() -> None:
    row = make_row(Region("a\ud83db"), Region("\ud83d\ude00"))

    want_texts = ["a\ufffdb", "😀"]

    assert [region.text for region in from_json(to_json(row)).regions] == want_texts
    assert [region["text"] for region in json.loads(render_ocr_json(row))["text_regions"]] == want_texts


@pytest.mark.parametrize(
    "region",
    [
        Region("a", float("nan")),
        Region("a", bbox=(0, 0, float("inf"), 1)),
        Region("a", polygon=((0, 0), (1, 0), (1, 1), (float("nan"), 1))),
        Region("a", metadata={"scores": np.zeros(2)}),
        Region("a", metadata={"score": float("inf")}),
        Region("a", metadata={"by_order": {1: "a"}}),
    ],
    ids=["nan-confidence", "infinite-box", "nan-polygon", "array", "infinite-metadata", "number-as-key"],
)
def test_payload_of_what_json_cannot_say_fails_the_item(region: Region) -> None:
    with pytest.raises(EngineFailed):
        to_payload(make_row(region))


def test_payload_of_endless_metadata_fails_the_item() -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless

    with pytest.raises(EngineFailed, match="nested too deep"):
        to_payload(make_row(Region("a", metadata=endless)))


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"v":2,"row":{}}', '{"v":1,"row":{"id":"a"}}', "not json"],
    ids=["empty", "no-fields", "list", "later-version", "half-a-row", "prose"],
)
def test_payload_that_is_none_is_an_integrity_error(text: str) -> None:
    with pytest.raises(IntegrityError, match="cannot be read"):
        from_json(text)


def test_payload_without_a_time_zone_is_an_integrity_error() -> None:
    payload = to_payload(make_row())
    payload["row"]["finished_at"] = "2026-01-01T00:00:00"

    with pytest.raises(IntegrityError, match="finished_at"):
        from_payload(payload)


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_row(finished_at=dt.datetime(2026, 1, 1)),
        lambda: make_row(failure=ItemFailure("EngineFailed", "x")),
        lambda: make_row(status="failed"),
        lambda: make_row(width_px=None),
        lambda: make_row(height_px=0),
        lambda: make_row(Region("a"), status="skipped"),
    ],
    ids=["naive-time", "failure-of-success", "failed-without-failure", "no-width", "no-height", "text-of-skipped"],
)
def test_row_that_contradicts_itself_is_refused(make: Callable[[], OcrRow]) -> None:
    with pytest.raises(ValueError, match=r"zone|failure|size|regions"):
        make()


# <id>_ocr.json


def test_ocr_json_has_the_contract_fields_in_order_with_their_types() -> None:
    square = ((1.0, 2.0), (4.0, 2.0), (4.0, 6.0), (1.0, 6.0))
    row = make_row(Region("Grüße\n日本", 0.75, (1.0, 2.0, 3.0, 4.0), square), Region("  "), Region("end", 1.0))

    data = render_ocr_json(row)
    page = json.loads(data)

    assert list(page) == [
        "canonical_id",
        "source_image_path",
        "ocr_method",
        "timestamp",
        "text_regions",
        "full_text",
        "num_regions",
        "pagemill",
    ]
    assert page["canonical_id"] == "comics/nº 1 #2/page_001"
    assert page["source_image_path"] == "s3://library/comics/page_001.png"
    assert page["ocr_method"] == "rapidocr"
    assert dt.datetime.fromisoformat(page["timestamp"]) == FINISHED_AT
    assert page["full_text"] == "Grüße\n日本 end"
    assert page["num_regions"] == len(page["text_regions"]) == 3
    assert page["text_regions"][0] == {
        "text": "Grüße\n日本",
        "confidence": 0.75,
        "bbox": [1.0, 2.0, 3.0, 4.0],
        "polygon": [[1.0, 2.0], [4.0, 2.0], [4.0, 6.0], [1.0, 6.0]],
        "metadata": {"level": "line"},
    }
    assert page["text_regions"][1] == {"text": "  ", "confidence": None, "metadata": {"level": "line"}}
    assert "Grüße" in data.decode()
    assert data.startswith(b'{\n  "canonical_id": ')
    assert data.endswith(b"\n}\n")


def test_ocr_json_keeps_facts_of_the_page_under_its_own_name() -> None:
    page = json.loads(render_ocr_json(make_row(page=4, frames=3, metadata={"model": "m"})))

    assert page["pagemill"]["image"] == {"width_px": 800, "height_px": 1200, "dpi": 150.0, "frames": 3}
    assert page["pagemill"]["engine"] == {"name": "rapidocr", "version": "3.10.0", "languages": ["en", "ja"]}
    assert page["pagemill"]["seconds"] == {"decode": 0.25, "recognise": 0.5}
    assert (page["pagemill"]["page"], page["pagemill"]["metadata"]) == (4, {"model": "m"})


@pytest.mark.parametrize(
    ("region", "want"),
    [
        (Region("a"), 0.9),
        (Region("a", metadata={"parsing_failed": True}), 0.5),
        (Region("a", 0.9), 0.9),
        (Region("a", 0.5, metadata={"parsing_failed": True}), 0.5),
    ],
    ids=["none", "none-unparsed", "given", "given-unparsed"],
)
def test_ocr_json_of_stand_in_confidences_marks_them(region: Region, want: float) -> None:
    (fields,) = json.loads(render_ocr_json(make_row(region, confidence_is_default=True)))["text_regions"]

    assert fields["confidence"] == want
    assert fields["metadata"]["confidence_is_default"] is True


def test_ocr_json_of_one_stand_in_among_real_ones_marks_that_one() -> None:
    row = make_row(Region("a", 0.9, metadata={"confidence_is_default": True}), Region("b", 0.8))

    first, second = json.loads(render_ocr_json(row))["text_regions"]

    assert first["metadata"]["confidence_is_default"] is True
    assert "confidence_is_default" not in second["metadata"]


def test_ocr_json_of_a_page_without_text_is_a_success_with_no_regions() -> None:
    page = json.loads(render_ocr_json(make_row()))

    assert (page["text_regions"], page["full_text"], page["num_regions"]) == ([], "", 0)
    assert page["pagemill"]["status"] == "succeeded"


# <id>.json


def test_ocr_result_joins_texts_by_line_feeds_and_gives_corners() -> None:
    row = make_row(Region("one", 0.5, (1, 2, 3, 4)), Region("\t"), Region("two"))

    page = json.loads(render_ocr_result(row))

    assert page["OCRResult"]["full_text"] == "one\ntwo"
    assert page["OCRResult"]["text_regions"][0]["bbox"] == [1.0, 2.0, 4.0, 6.0]
    assert "bbox" not in page["OCRResult"]["text_regions"][2]
    assert page["metadata"]["canonical_id"] == row.id


def test_ocr_result_read_as_the_books_pipeline_does_is_real_text() -> None:
    (view,) = render_views(make_row(Region("kiss"), id="book ê/page_0001"), ["ocrResult"], "texts")

    data = json.loads(view.data.decode("utf-8"))

    assert view.key == "texts/book ê/page_0001.json"
    assert "kiss" in json.dumps(data.get("OCRResult", {}))


# Which views there are


def test_views_of_a_page_have_their_keys_below_the_prefix() -> None:
    views = list(render_views(make_row(Region("a")), ["json", "ocrResult", "hocr", "alto", "text"], "ocr_results"))

    assert [view.key.removeprefix("ocr_results/comics/nº 1 #2/page_001") for view in views] == [
        "_ocr.json",
        ".json",
        ".hocr",
        ".alto.xml",
        ".txt",
    ]
    assert view_keys("a", VIEW_NAMES, "") == ["a_ocr.json", "a.json", "a.hocr", "a.alto.xml", "a.txt", "a.pdf"]
    assert set(VIEW_FORMATS) == set(VIEW_NAMES)


@pytest.mark.parametrize("row", [make_failed(), make_row(status="skipped")], ids=["failed", "skipped"])
def test_views_of_an_item_that_did_not_succeed_are_none(row: OcrRow) -> None:
    assert list(render_views(row, VIEW_NAMES, "p")) == []


@pytest.mark.parametrize("item_id", ["../x", "/etc/x", "a//b", "a\x00", "x" * 300], ids=str.__repr__)
def test_views_of_an_unsafe_id_are_refused(item_id: str) -> None:
    with pytest.raises(UnsafeId):
        list(render_views(make_row(id=item_id), ["json"], "p"))


def test_views_without_pictures_never_ask_for_pixels() -> None:
    def pixels() -> bytes:
        raise AssertionError("asked")

    assert not needs_pixels(["json", "text"])
    assert needs_pixels(["json", "pdf"])
    assert len(list(render_views(make_row(), ["json", "text"], "p", pixels))) == 2


def test_views_with_pictures_and_no_pixels_are_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="pixels"):
        list(render_views(make_row(), ["pdf"], "p"))


# The summary


def summary_of(run: RunInfo, items: list[SummaryItem]) -> dict[str, Any]:
    out = io.BytesIO()
    write_summary(out, run, items)
    page: dict[str, Any] = json.loads(out.getvalue())
    return page


def test_summary_has_the_contract_fields_and_counts_that_add_up() -> None:
    rows = [
        make_row(Region("a"), Region("b"), id="one"),
        make_failed("ImageMissing", "s3://library/two.png does not exist", id="two"),
        make_failed("NotAnImage", "starts with '%!PS'", id="three"),
        make_row(id="four", status="skipped"),
    ]
    run = make_run(
        counts=Counts(total=5, succeeded=1, failed=2, skipped=1, already_done=7),
        failures_by_class={"NotAnImage": 1, "ImageMissing": 1},
        cost=Cost(spent=Decimal("0.0042"), currency="USD", formula="2 x 1 s x 7.56 USD per hour"),
    )

    page = summary_of(run, [SummaryItem.of(row) for row in rows])

    assert page["manifest_file"] == "s3://library/manifest.csv"
    assert (page["ocr_method"], page["backend"], page["workers"]) == ("rapidocr", "local", 2)
    assert page["output_bucket"] == "library"
    assert (page["total_images"], page["successful"], page["failed"], page["skipped"]) == (5, 1, 2, 1)
    assert page["pagemill"]["not_done"] == 1
    assert page["pagemill"]["failed_by_class"] == {"ImageMissing": 1, "NotAnImage": 1}
    assert page["pagemill"]["cost"]["spent"] == "0.0042"
    assert page["results"] == [
        {
            "canonical_id": "one",
            "status": "success",
            "ocr_method": "rapidocr",
            "num_regions": 2,
            "output_key": "out/comics/ocr_results/one_ocr.json",
            "output_bucket": "library",
        },
        {
            "canonical_id": "two",
            "status": "error",
            "error": "Image file not found",
            "error_class": "ImageMissing",
            "error_message": "s3://library/two.png does not exist",
            "ocr_method": "rapidocr",
        },
        {
            "canonical_id": "three",
            "status": "error",
            "error": "starts with '%!PS'",
            "error_class": "NotAnImage",
            "error_message": "starts with '%!PS'",
            "ocr_method": "rapidocr",
        },
        {"canonical_id": "four", "status": "skipped", "ocr_method": "rapidocr"},
    ]


def test_summary_of_no_items_is_valid_json() -> None:
    assert summary_of(make_run(), [])["results"] == []


def test_summary_whose_items_do_not_match_the_counts_is_refused() -> None:
    with pytest.raises(IntegrityError, match="counts"):
        summary_of(make_run(counts=Counts(total=2, succeeded=2, failed=0)), [SummaryItem("a", "succeeded")])


def test_summary_of_many_items_is_written_as_they_come() -> None:
    out = io.BytesIO()
    sizes = []

    def items() -> Any:
        for number in range(1000):
            sizes.append(out.tell())
            yield SummaryItem(f"page {number}", "succeeded", 1)

    write_summary(out, make_run(counts=Counts(total=1000, succeeded=1000, failed=0)), items())

    assert sizes == sorted(set(sizes))
    assert len(json.loads(out.getvalue())["results"]) == 1000


def test_summary_on_a_folder_names_the_folder_as_bucket() -> None:
    run = make_run(output_uri="/data/out", counts=Counts(total=1, succeeded=1, failed=0))

    (result,) = summary_of(run, [SummaryItem("a", "succeeded")])["results"]

    assert (result["output_bucket"], result["output_key"]) == ("/data/out", "ocr_results/a_ocr.json")


def test_counts_of_more_ends_than_items_are_refused() -> None:
    with pytest.raises(ValueError, match="add up"):
        Counts(total=1, succeeded=1, failed=1)
