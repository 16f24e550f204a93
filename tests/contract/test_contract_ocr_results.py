"""What an OCR job must leave behind, checked on one finished run of the real command, engine and S3 server.

The run reads good, odd and impossible rows from a manifest as people write them; each test looks at one promise. Row
numbers are those of the list by which "it works" is judged.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import tempfile
from dataclasses import dataclass

import pytest

from pagemill_cli.testing.command import Told, s3_environment
from pagemill_cli.testing.ocr_job import OcrJobFile, OcrResults
from pagemill_core.testing import ocr_pages
from pagemill_core.testing.ocr_pages import PrintedPage
from pagemill_core.testing.seaweed import SeaweedServer

pytestmark = pytest.mark.s3

ODD_ID = "Neon Ichiban #3 (2024)/été 100%25/ページ 1…"
PRINTED: dict[str, PrintedPage] = {
    "comic1/page_001": ocr_pages.page(0),
    "comic1/page_002": ocr_pages.page(1),
    ODD_ID: ocr_pages.page(2),
    "french": ocr_pages.french_page(),
}
FILES: dict[str, bytes] = {
    "pages/1.png": PRINTED["comic1/page_001"].as_bytes("PNG"),
    "pages/2.jpg": PRINTED["comic1/page_002"].as_bytes("JPEG"),
    "pages/trois.webp": PRINTED[ODD_ID].as_bytes("WEBP"),
    "pages/french.tiff": PRINTED["french"].as_bytes("TIFF"),
    "pages/blank.png": ocr_pages.blank_page().as_bytes(),
    "pages/cut.jpg": ocr_pages.page(3).as_bytes("JPEG")[:4000],
    "pages/notes.png": b"these are no pixels",
    "pages/nothing.png": b"",
}
ROWS = (
    ("1.png", "comic1/page_001"),
    ("2.jpg", "comic1/page_002"),
    ("trois.webp", ODD_ID),
    ("french.tiff", "french"),
    ("blank.png", "blank"),
    ("lost.png", "missing"),
    ("cut.jpg", "cut"),
    ("notes.png", "no picture"),
    ("nothing.png", "zero bytes"),
    ("1.png", "comic1/page_001"),  # the same row again
    ("2.jpg", "comic1/page_001"),  # the same id for another file
    ("1.png", "../outside"),
    ("1.png", "/etc/passwd"),
    ("1.png", "comic1/../../../outside"),
)
WANT_FAILED = {
    "missing": "ImageMissing",
    "cut": "ImageTruncated",
    "no picture": "NotAnImage",
    "zero bytes": "ImageEmpty",
    "../outside": "UnsafeId",
    "/etc/passwd": "UnsafeId",
    "comic1/../../../outside": "UnsafeId",
}
WANT_PAGES = {*PRINTED, "blank"}


def manifest() -> bytes:
    """As a spreadsheet writes it: BOM, CRLF, further columns, a quoted cell over two lines, another order."""
    lines = ["notes,absolute_image_path,volume,canonical_id"]
    lines += [f'"scanned twice,\r\nsee ""log""",{path},{number},{item}' for number, (path, item) in enumerate(ROWS)]
    return "\ufeff".encode() + "\r\n".join(lines).encode() + b"\r\n"


@dataclass(frozen=True)
class Finished:
    """The run. `bucket` reads everything in its bucket, `results` what lies below the output."""

    told: Told
    results: OcrResults
    bucket: OcrResults
    log: str
    left_on_disk: list[str]


@pytest.fixture(scope="module")
def finished(s3_server: SeaweedServer, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder, scratch = tmp_path_factory.mktemp("job"), tmp_path_factory.mktemp("scratch")
    name = s3_server.fresh_bucket()
    bucket = s3_server.store(name)
    for key, data in {**FILES, "lists/manifest.csv": manifest()}.items():
        bucket.put(f"library/{key}", data)
    job = OcrJobFile(
        folder,
        {
            "source": {
                "manifest": {
                    "uri": f"s3://{name}/library/lists/manifest.csv",
                    "pathPrefix": f"s3://{name}/library/pages",
                }
            },
            "engine": {"name": "tesseract", "languages": ["fr", "en"]},
            "output": {"uri": f"s3://{name}/library/out"},
        },
        environment={**s3_environment(s3_server.server.settings("worker")), "TMPDIR": str(scratch)},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(scratch))
        told = job.run()
    left = sorted(str(path.relative_to(scratch)) for path in scratch.rglob("*"))
    results = OcrResults(s3_server.store(name, "library/out"))
    return Finished(told, results, OcrResults(bucket), job.log.read_text(), left)


def test_run_with_failures_within_the_limit_ends_with_status_0(finished: Finished) -> None:
    assert finished.told.status == 0, finished.told.all
    assert finished.told.json["outcome"] == "Complete"


def test_every_readable_row_has_its_file_under_its_id_verbatim(finished: Finished) -> None:
    """Row 28: `<prefix>/<canonical_id>_ocr.json` for every readable row, slashes nested."""
    assert finished.results.listing("ocr_results/") == sorted(f"ocr_results/{item}_ocr.json" for item in WANT_PAGES)


def test_page_has_every_field_of_the_contract_with_its_type(finished: Finished) -> None:
    """Row 29: all keys and types, timestamp ISO."""
    for item, page in finished.results.pages().items():
        assert page["canonical_id"] == item
        assert page["ocr_method"] == "tesseract"
        assert dt.datetime.fromisoformat(page["timestamp"]).tzinfo is not None
        assert page["source_image_path"].startswith("s3://")
        assert isinstance(page["text_regions"], list)
        assert isinstance(page["full_text"], str)
        assert type(page["num_regions"]) is int
        for region in page["text_regions"]:
            assert region.keys() >= {"text", "confidence", "bbox", "metadata"}
            assert isinstance(region["text"], str)
            assert [type(number) for number in region["bbox"]] == [float] * 4
            assert region["metadata"]["level"] == "word"


def test_page_is_indented_utf_8_without_escapes(finished: Finished) -> None:
    """Row 29: UTF-8 unescaped."""
    french = finished.results.raw("ocr_results/french_ocr.json")
    assert "forêt".encode() in french
    assert "ページ 1…".encode() in finished.results.raw(f"ocr_results/{ODD_ID}_ocr.json")
    assert b"\\u" not in french
    assert french.startswith(b'{\n  "canonical_id": "french",\n')


def test_boxes_lie_inside_the_page_and_confidences_from_0_to_1(finished: Finished) -> None:
    """Row 30: `[x, y, width, height]` inside the page, confidence 0-1."""
    for item, page in finished.results.pages().items():
        width, height = (PRINTED.get(item) or ocr_pages.blank_page()).picture.size
        for region in page["text_regions"]:
            left, top, region_width, region_height = region["bbox"]
            assert left >= 0 and top >= 0 and region_width > 0 and region_height > 0
            assert left + region_width <= width and top + region_height <= height
            assert 0 <= region["confidence"] <= 1


def test_boxes_are_width_and_height_and_not_corners(finished: Finished) -> None:
    """Row 30: the last word of the first line ends where it was printed."""
    page, printed = finished.results.page("comic1/page_001"), PRINTED["comic1/page_001"]
    word = next(region for region in page["text_regions"] if region["text"] == "and")
    right_edge = printed.picture.width - ocr_pages.MARGIN_PX
    assert word["bbox"][0] + word["bbox"][2] == pytest.approx(right_edge, abs=60)
    assert word["bbox"][3] < 2 * ocr_pages.FONT_PX


def test_full_text_is_the_regions_joined_by_spaces_in_reading_order(finished: Finished) -> None:
    """Row 31: ' '.join of region texts in reading order; num_regions = len."""
    for page in finished.results.pages().values():
        texts = [region["text"] for region in page["text_regions"]]
        assert page["full_text"] == " ".join(texts)
        assert page["num_regions"] == len(texts)
    assert finished.results.page("comic1/page_001")["full_text"].startswith("The committee met on Monday")


@pytest.mark.parametrize("item", PRINTED)
def test_nine_of_ten_printed_words_are_read(finished: Finished, item: str) -> None:
    """Row 32: at least 0.9 of the printed words on clean pages."""
    text = finished.results.page(item)["full_text"]
    assert ocr_pages.share_of_words_read(PRINTED[item].words, text) >= 0.9, text


def test_blank_page_is_a_success_without_regions(finished: Finished) -> None:
    """Row 34: a page without text and a page that failed can be told apart."""
    page = finished.results.page("blank")
    assert (page["num_regions"], page["text_regions"], page["full_text"]) == (0, [], "")
    assert finished.results.statuses()["blank"]["status"] == "success"


def test_files_that_are_no_pictures_fail_by_class_and_have_no_result(finished: Finished) -> None:
    """Row 34: a corrupt file is an error with a reason, never a success with 0 regions."""
    statuses = finished.results.statuses()
    for item, error_class in WANT_FAILED.items():
        assert statuses[item]["status"] == "error"
        assert statuses[item]["error_class"] == error_class
        assert statuses[item]["error"]


def test_missing_image_is_told_in_the_words_that_readers_know(finished: Finished) -> None:
    """Row 35: status error, "Image file not found"."""
    line = finished.results.statuses()["missing"]
    assert (line["status"], line["error"]) == ("error", "Image file not found")
    assert "lost.png" in line["error_message"]


def test_manifest_as_spreadsheets_write_it_is_read_whole(finished: Finished) -> None:
    """Row 36: BOM, CRLF, quoted newlines, extra and reordered columns parse; extra ones come along."""
    rows = {row["id"]: row for row in finished.results.rows() if row["status"] == "succeeded"}
    assert rows.keys() == WANT_PAGES
    assert rows["french"]["meta_notes"] == 'scanned twice,\r\nsee "log"'
    assert rows["french"]["meta_volume"] == "3"


def test_same_row_twice_is_read_once(finished: Finished) -> None:
    """Row 38: the same row twice runs once, and a note says so."""
    assert finished.results.summary()["total_images"] == len(ROWS) - 1
    assert any("repeat" in warning for warning in finished.told.json["warnings"]), finished.told.json["warnings"]


def test_same_id_with_two_paths_is_reported_with_both_lines(finished: Finished) -> None:
    """Row 38: the first row is read, the second fails by name."""
    failed = [row for row in finished.results.rows() if row["error_class"] == "DuplicateId"]
    assert [row["id"] for row in failed] == ["comic1/page_001"]
    lines = [int(number) for number in re.findall(r"line (\d+)", failed[0]["error_message"])]
    assert lines == [22, 2]  # each row of the manifest takes two lines
    assert finished.results.page("comic1/page_001")["source_image_path"].endswith("/pages/1.png")


def test_ids_that_climb_write_nothing_outside_the_prefix(finished: Finished) -> None:
    """Row 39: `../` and absolute ids write nothing outside the prefix."""
    outside = [key for key in finished.bucket.listing() if not key.startswith("library/out/")]
    assert outside == sorted(f"library/{key}" for key in (*FILES, "lists/manifest.csv"))
    assert [key for key in finished.bucket.listing() if "passwd" in key or "outside" in key] == []


def test_summary_counts_add_up_and_list_every_failed_page(finished: Finished) -> None:
    """Row 44: counts add up, failed pages listed."""
    summary = finished.results.summary()
    failed = [result for result in summary["results"] if result["status"] == "error"]
    assert summary["total_images"] == len(summary["results"]) == 13
    assert summary["successful"] == len(WANT_PAGES)
    assert summary["failed"] == len(failed) == len(WANT_FAILED) + 1
    assert {result["canonical_id"] for result in failed} == {*WANT_FAILED, "comic1/page_001"}
    assert {"manifest_file", "ocr_method", "backend", "workers", "output_bucket"} <= summary.keys()
    counted = {"planned": 13, "succeeded": 5, "failed": 8, "skipped": 0}
    assert finished.told.json["items"] == counted


def test_summary_names_the_object_of_every_success(finished: Finished) -> None:
    """Row 44: `output_key` in `output_bucket` is the page's file."""
    for result in finished.results.summary()["results"]:
        if result["status"] == "success":
            page = json.loads(finished.bucket.raw(result["output_key"]))
            assert page["canonical_id"] == result["canonical_id"]
            assert page["num_regions"] == result["num_regions"]


def test_no_temporary_file_is_left_in_the_bucket_or_on_disk(finished: Finished) -> None:
    """Row 49: none in the bucket, none left where the work was done."""
    assert finished.left_on_disk == []
    places = r"ocr_results/.+_ocr\.json|summary/run=\d{8}\.json|report\.html|dataset/run=\d{8}/part-\d{5}\.parquet"
    known = re.compile(rf"{places}|\.pagemill/.+")
    assert [key for key in finished.results.listing() if not known.fullmatch(key)] == []
    assert [key for key in finished.results.listing() if re.search(r"\btmp|\btemp|probe", key)] == []


def test_engine_processes_say_nothing(finished: Finished) -> None:
    assert finished.log == ""
