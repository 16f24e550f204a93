"""What a second command finds: finished work left alone, damaged files made again, text that other programs can read.

Rows 45 to 48 of the list by which "it works" is judged.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

from pagemill_cli.testing.command import Told, run_command
from pagemill_cli.testing.ocr_job import OcrJobFile, OcrResults
from pagemill_core.storage.folder import FolderStore
from pagemill_core.testing import ocr_pages
from pagemill_worker.plan.estimate import EstimateInput, estimate

BOOKS = {
    "Book One": {"page_001.png": ocr_pages.page(0), "page_002.png": ocr_pages.page(1)},
    "Deux, été #2": {"page_001.jpg": ocr_pages.page(2)},
}


@dataclass(frozen=True)
class Library:
    """A job over books that has run once; tests that change its output work on a copy of it."""

    job: OcrJobFile
    told: Told

    @property
    def results(self) -> OcrResults:
        return OcrResults(FolderStore(self.job.folder / "out"))


def make_library(folder: Path) -> OcrJobFile:
    for book, pages in BOOKS.items():
        (folder / "books" / book).mkdir(parents=True)
        for name, page in pages.items():
            data = page.as_bytes("JPEG" if name.endswith(".jpg") else "PNG")
            (folder / "books" / book / name).write_bytes(data)
    spec = {
        "source": {"images": {"uri": "books"}},
        "output": {"uri": "out", "formats": ["json", "ocrResult"]},
        "sharding": {"itemsPerShard": 1},
    }
    return OcrJobFile(folder, spec, environment={"PAGEMILL_PRICE_PER_HOUR": "36"})


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    job = make_library(tmp_path_factory.mktemp("library"))
    return Library(job, job.run())


@pytest.fixture
def copied(library: Library, tmp_path: Path) -> Library:
    """The library in a folder of its own; modification times come along, so that its pages are the same pages."""
    shutil.copytree(library.job.folder, tmp_path / "copy")
    return Library(OcrJobFile(tmp_path / "copy", library.job.spec, environment=library.job.environment), library.told)


# -- row 45 -----------------------------------------------------------------------------------------------------------


def embedded_texts(books: Path, texts: Path, book: str) -> list[str]:
    """What the books pipeline would embed for each page, written down from its contract.

    Pages are the book's files by code point; beside each, `<stem>.json`, of which `json.dumps(OCRResult)` is embedded:
    missing, unreadable or no object means "", an object without OCRResult means "{}".
    """
    found = []
    for page in sorted((books / book).iterdir()):
        try:
            value = json.loads((texts / book / f"{page.stem}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            value = None
        found.append(json.dumps(value.get("OCRResult", {})) if isinstance(value, dict) else "")
    return found


def test_books_reader_turns_the_files_into_real_text(library: Library) -> None:
    """Row 45: one setting writes `{"OCRResult": …}` that the books pipeline's reader turns into real text."""
    assert library.told.status == 0, library.told.all
    folder = library.job.folder
    for book, pages in BOOKS.items():
        texts = embedded_texts(folder / "books", folder / "out" / "ocr_results", book)
        assert len(texts) == len(pages)
        for text, page in zip(texts, pages.values(), strict=True):
            result = json.loads(text)
            assert ocr_pages.share_of_words_read(page.words, result["full_text"]) >= 0.9
            assert {region["text"] for region in result["text_regions"]} == set(result["full_text"].split("\n"))
            for region in result["text_regions"]:
                left, top, right, bottom = region["bbox"]
                assert 0 <= left < right <= page.picture.width and 0 <= top < bottom <= page.picture.height


def test_both_dialects_tell_the_same_text(library: Library) -> None:
    """Row 45: corners here, width and height there, and the same words."""
    own = library.results.page("Book One/page_001")
    other = json.loads(library.results.raw("ocr_results/Book One/page_001.json"))["OCRResult"]
    assert [region["text"] for region in own["text_regions"]] == [region["text"] for region in other["text_regions"]]
    left, top, width, height = own["text_regions"][0]["bbox"]
    assert other["text_regions"][0]["bbox"] == [left, top, left + width, top + height]


# -- row 46 -----------------------------------------------------------------------------------------------------------


def test_second_run_does_nothing_and_changes_nothing(copied: Library) -> None:
    """Row 46: finished pages are skipped by what is listed; no object is written again."""
    before = copied.results.tokens()
    told = copied.job.run()
    assert told.status == 0, told.all
    assert (told.json["worked"], told.json["outcome"]) == (False, "Complete")
    assert told.json["items"] == library_counts(3)
    assert copied.results.tokens() == before


def library_counts(succeeded: int, failed: int = 0) -> dict[str, int]:
    return {"planned": succeeded + failed, "succeeded": succeeded, "failed": failed, "skipped": 0}


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_result_is_found_and_made_again_from_committed_data(copied: Library, damage: str) -> None:
    """Row 46: a truncated JSON is redone, byte for byte, without reading the page again."""
    path = copied.job.folder / "out" / "ocr_results" / "Book One" / "page_001_ocr.json"
    whole = path.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    else:
        path.unlink()
    shutil.rmtree(copied.job.folder / "books")
    found = run_command("verify", copied.job.write())
    assert found.status == 70, found.all
    assert "Book One/page_001_ocr.json" in found.out + found.err
    repaired = run_command("verify", "--repair", copied.job.file)
    assert repaired.status == 0, repaired.all
    assert path.read_bytes() == whole
    assert run_command("verify", copied.job.file).status == 0


def test_interrupted_run_goes_on_where_it_stopped(copied: Library) -> None:
    """Row 46: an output with committed pages and no end is finished by the same command, page by page."""
    out = copied.job.folder / "out"
    (run,) = [path for path in (out / ".pagemill").iterdir() if path.name.startswith("0")]
    entry_path = out / ".pagemill" / "runs" / "00000001.json"
    entry = json.loads(entry_path.read_text())
    # As if the machine had stopped before the last page was committed.
    for name in ("_SUCCESS.json", "commit/00000/00000002", "published/00000/00000002"):
        (run / name).unlink()
    for path in (*run.glob("rollup/*"), *run.glob("reports/*"), out / "report.html"):
        path.unlink()
    entry_path.write_text(json.dumps({**entry, "state": "Open", "reason": "", "owner": "", "finishedAt": ""}))
    before = copied.results.tokens("ocr_results/Book One/")
    told = copied.job.run()
    assert told.status == 0, told.all
    assert told.json["items"] == library_counts(3)
    assert copied.results.tokens("ocr_results/Book One/") == before
    assert run_command("verify", copied.job.file).status == 0


# -- row 47 -----------------------------------------------------------------------------------------------------------


def test_page_that_needs_too_much_memory_is_tried_again_then_fails_by_name(tmp_path: Path) -> None:
    """Row 47: tried again alone, then failed by name, and its neighbours are read. That the second try may use more
    memory is tested with the pool."""
    (tmp_path / "pages").mkdir()
    for number in range(3):
        (tmp_path / "pages" / f"p{number}.png").write_bytes(ocr_pages.page(number).as_bytes())
    (tmp_path / "pages" / "p1_huge.png").write_bytes(ocr_pages.large_white_png(9_000, 9_000))
    spec = {
        "source": {"images": {"uri": "pages"}},
        "retries": {"perItem": 1, "maxFailedItems": "100%"},
        "sharding": {"itemsPerShard": 4},
        "stages": [{"name": "recognise", "memory": "220Mi"}],
    }
    job = OcrJobFile(tmp_path, spec)
    told = job.run()
    results = OcrResults(FolderStore(tmp_path / "out"))
    assert told.status == 0, told.all
    assert told.json["items"] == library_counts(3, failed=1)
    line = results.statuses()["p1_huge"]
    assert line["error_class"] == "ItemKilledWorker"
    assert "given up after 2 tries" in line["error_message"]
    assert "of memory" in line["error_message"]
    assert results.pages().keys() == {"p0", "p1", "p2"}


# -- row 48 -----------------------------------------------------------------------------------------------------------


def test_estimate_is_the_formula_of_serverless_prices() -> None:
    """Row 48: GB × s × images × 0.0000166667 + images × 0.0000002; 10,000 pages of 10 s in 3 GB cost five dollars."""
    asked = EstimateInput(items=10_000, seconds_per_item=10.0, function_memory_gb=Decimal(3))
    assert estimate(asked).serverless_usd == pytest.approx(Decimal("5.002"), abs=Decimal("0.0005"))


def test_plan_tells_what_a_run_will_cost_and_spends_nothing(tmp_path: Path) -> None:
    """Row 48: the estimate comes before the run, by the formula and by the machine's own price."""
    rows = "".join(f"p{number},pages/{number}.png\n" for number in range(10_000))
    (tmp_path / "manifest.csv").write_text(f"canonical_id,absolute_image_path\n{rows}")
    job = OcrJobFile(tmp_path, {"source": {"manifest": {"uri": "manifest.csv"}}})
    told = run_command("plan", job.write(), "-o", "json", environment={"PAGEMILL_PRICE_PER_HOUR": "36"})
    assert told.status == 0, told.all
    assert told.json["items"] == 10_000
    found = told.json["estimate"]
    seconds = Decimal(str(found["secondsPerItem"]))
    want = 3 * seconds * 10_000 * Decimal("0.0000166667") + 10_000 * Decimal("0.0000002")
    assert Decimal(found["serverlessUsd"]) == pytest.approx(want, abs=Decimal("0.0001"))
    assert Decimal(found["poolCost"]) == pytest.approx(Decimal(str(found["elapsedSeconds"])) / 100, abs=Decimal("0.01"))
    assert not (tmp_path / "out").exists()


def test_cost_is_measured_after_the_run(library: Library) -> None:
    """Row 48: what was spent is the time at work times the machine's price, and not the estimate."""
    measured = library.told.json
    spent = Decimal(measured["spent"])
    assert spent == pytest.approx(Decimal(str(measured["seconds"])) * 36 / 3600, rel=Decimal("0.05"))
    assert spent > 0
    cost = library.results.summary()["pagemill"]["cost"]
    assert cost["currency"] == "USD"
    assert Decimal(cost["spent"]) == pytest.approx(spent, rel=Decimal("0.5"))
