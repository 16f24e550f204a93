"""Every local engine through the whole command: one file of four jobs reads the same page, each job with its own.

Engines load slowly, so each is loaded once and reads one page.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from pagemill_cli.testing.command import Told, run_command
from pagemill_cli.testing.ocr_job import OcrJobFile, OcrResults
from pagemill_core.storage.folder import FolderStore
from pagemill_core.testing import ocr_pages

ENGINES = ("tesseract", "rapidocr", "paddleocr", "easyocr")
PAGE = ocr_pages.PrintedPage(ocr_pages.PROSE[0][:3])  # easyocr takes seconds for a whole page


@dataclass(frozen=True)
class Comparison:
    """The four runs. `tesseract_share` is what the bare tesseract command reads of the page's words."""

    told: Told
    results: Mapping[str, OcrResults]
    tesseract_share: float


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("engines")
    (folder / "pages").mkdir()
    (folder / "pages" / "page.png").write_bytes(PAGE.as_bytes())
    documents = [
        {
            "apiVersion": "pagemill.dev/v1alpha1",
            "kind": "OcrJob",
            "metadata": {"name": engine},
            "spec": {
                "source": {"images": {"uri": "pages"}},
                "engine": {"name": engine, "languages": ["en"]},
                "output": {"uri": engine},
            },
        }
        for engine in ENGINES
    ]
    file = folder / "jobs.yaml"
    file.write_text("\n---\n".join(map(json.dumps, documents)))
    told = run_command(
        "run", file, "-p", 1, "-q", "-o", "json", environment={"PAGEMILL_OCR_CACHE_DIR": str(folder / "cache")}
    )
    bare = subprocess.run(
        ["tesseract", folder / "pages" / "page.png", "-", "-l", "eng"], capture_output=True, text=True, check=True
    )
    results = {engine: OcrResults(FolderStore(folder / engine)) for engine in ENGINES}
    return Comparison(told, results, ocr_pages.share_of_words_read(PAGE.words, bare.stdout))


def test_file_of_several_jobs_runs_each_into_its_own_output(comparison: Comparison) -> None:
    """Row 33: `en` works for every engine."""
    assert comparison.told.status == 0, comparison.told.all
    assert [(one["name"], one["outcome"]) for one in comparison.told.json] == [(name, "Complete") for name in ENGINES]
    for engine, results in comparison.results.items():
        assert results.page("page")["ocr_method"] == engine
        assert results.summary()["ocr_method"] == engine


@pytest.mark.parametrize("engine", ENGINES)
def test_engine_reads_nine_of_ten_printed_words(comparison: Comparison, engine: str) -> None:
    """Row 32: at least 0.9 of the printed words on a clean page."""
    text = comparison.results[engine].page("page")["full_text"]
    assert ocr_pages.share_of_words_read(PAGE.words, text) >= 0.9, text


@pytest.mark.parametrize("engine", ["tesseract", "rapidocr", "paddleocr"])
def test_engine_reads_no_fewer_words_than_the_tesseract_command(comparison: Comparison, engine: str) -> None:
    """Row 32: at least Tesseract's own score."""
    text = comparison.results[engine].page("page")["full_text"]
    assert ocr_pages.share_of_words_read(PAGE.words, text) >= comparison.tesseract_share, text


@pytest.mark.parametrize("engine", ENGINES)
def test_engine_boxes_lie_inside_the_page_with_confidences_from_0_to_1(comparison: Comparison, engine: str) -> None:
    """Row 30, for every engine."""
    width, height = PAGE.picture.size
    regions = comparison.results[engine].page("page")["text_regions"]
    assert regions
    for region in regions:
        left, top, region_width, region_height = region["bbox"]
        assert left >= 0 and top >= 0 and left + region_width <= width and top + region_height <= height
        assert 0 <= region["confidence"] <= 1
        assert all(0 <= x <= width and 0 <= y <= height for x, y in region.get("polygon", []))


@pytest.mark.parametrize("engine", ENGINES)
def test_engine_regions_are_in_reading_order(comparison: Comparison, engine: str) -> None:
    """Row 31, for every engine."""
    page = comparison.results[engine].page("page")
    assert page["full_text"] == " ".join(region["text"] for region in page["text_regions"])
    assert page["num_regions"] == len(page["text_regions"])
    words = page["full_text"].split()
    found = [words.index(word) for word in ("committee", "proposals", "budget") if word in words]
    assert len(found) >= 2
    assert found == sorted(found)


def refused(folder: Path, engine: Mapping[str, object], environment: Mapping[str, str]) -> Told:
    """Run a job of one page that must be refused before any work; checks that nothing was written."""
    (folder / "pages").mkdir()
    (folder / "pages" / "page.png").write_bytes(PAGE.as_bytes())
    job = OcrJobFile(folder, {"source": {"images": {"uri": "pages"}}, "engine": engine}, environment=environment)
    told = job.run()
    assert OcrResults(FolderStore(folder / "out")).listing() == []
    assert "Traceback" not in told.err
    return told


@pytest.mark.parametrize("engine", [*ENGINES, "vlm"])
def test_unknown_language_is_refused_before_any_work(tmp_path: Path, engine: str) -> None:
    """Row 33: an unknown language fails the job at admission, naming it and what there is."""
    remote = {"model": "some/model", "endpoint": "http://127.0.0.1:9/v1"} if engine == "vlm" else {}
    told = refused(tmp_path, {"name": engine, "languages": ["klingon"], **remote}, {"PAGEMILL_API_KEY": "key"})
    assert told.status == 69, told.all
    assert told.err.startswith("EngineUnavailable: engine.languages: 'klingon' is no language code known here")
    assert "→ use BCP-47 codes" in told.err


def test_language_without_data_is_refused_with_what_to_install(tmp_path: Path) -> None:
    """Row 34: a language whose data is missing is an error with a way out, not an empty result."""
    told = refused(tmp_path, {"name": "tesseract", "languages": ["en", "ja"]}, {})
    assert told.status == 69, told.all
    assert "tesseract has no data for 'ja' (jpn) on this machine; tesseract reads here: en" in told.err
    assert "→ apt-get install tesseract-ocr-jpn" in told.err


def test_engine_without_its_data_is_refused_and_reads_nothing(tmp_path: Path) -> None:
    """Row 34: a missing engine is an error with a reason."""
    (tmp_path / "nothing").mkdir()
    told = refused(tmp_path, {"name": "tesseract"}, {"PAGEMILL_OCR_TESSDATA_DIR": str(tmp_path / "nothing")})
    assert told.status == 69, told.all
    assert "there is no *.traineddata file" in told.err
    assert "→ set PAGEMILL_OCR_TESSDATA_DIR" in told.err


@pytest.mark.parametrize(("code", "engine"), [("eng", "tesseract"), ("en", "tesseract"), ("EN-us", "tesseract")])
def test_language_by_any_of_its_codes_is_the_same_language(tmp_path: Path, code: str, engine: str) -> None:
    """Row 33: `en` is mapped to the engine's own `eng`, whichever of them is written; an empty listing tells it."""
    (tmp_path / "pages").mkdir()
    spec = {"source": {"images": {"uri": "pages"}}, "engine": {"name": engine, "languages": [code]}}
    told = OcrJobFile(tmp_path, spec).run()
    assert told.status == 0, told.all
