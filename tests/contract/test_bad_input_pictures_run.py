"""Pictures that are odd, broken, endless or too many, through the command: decoded right, or failed by their own class.

Never a silent empty result, and a bad page costs its neighbours nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pagemill_cli.testing.command import Told
from pagemill_cli.testing.ocr_job import OcrJobFile, OcrResults
from pagemill_core.storage.folder import FolderStore
from pagemill_core.testing import ocr_pages, odd_images
from pagemill_core.testing.odd_images import OddImage, Readable

HEADER = "canonical_id,absolute_image_path\n"


def job_with_page(folder: Path, **spec: Any) -> OcrJobFile:
    """A job of one page, `pages/p.png`."""
    (folder / "pages").mkdir(parents=True, exist_ok=True)
    (folder / "pages" / "p.png").write_bytes(ocr_pages.note(0).as_bytes())
    return OcrJobFile(folder, {"source": {"images": {"uri": "pages"}}, **spec})


def results_of(job: OcrJobFile) -> OcrResults:
    return OcrResults(FolderStore(job.folder / "out"))


# Several pages in one file are items of their own here, so only pictures that are one item take part.
ODD = [odd for odd in odd_images.ODD_IMAGES if odd.page is None and not odd.name.endswith("planned-whole")]


@dataclass(frozen=True)
class Gallery:
    told: Told
    results: OcrResults
    statuses: Mapping[str, Mapping[str, Any]]


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    """One run over every odd picture there is, each under its name."""
    folder = tmp_path_factory.mktemp("gallery")
    (folder / "pages").mkdir()
    rows = [HEADER]
    for odd in ODD:
        suffix = ".pdf" if odd.name.startswith("pdf") else ".img"
        (folder / "pages" / f"{odd.name}{suffix}").write_bytes(odd.make())
        rows.append(f"{odd.name},{odd.name}{suffix}\n")
    (folder / "manifest.csv").write_text("".join(rows))
    source = {"manifest": {"uri": "manifest.csv", "pathPrefix": str(folder / "pages")}}
    job = OcrJobFile(folder, {"source": source, "sharding": {"itemsPerShard": 50}})
    told = job.run()
    return Gallery(told, results_of(job), results_of(job).statuses())


def test_run_over_every_odd_picture_ends_well_and_counts_each(gallery: Gallery) -> None:
    assert gallery.told.status == 0, gallery.told.all
    assert gallery.told.json["items"]["planned"] == len(ODD) == len(gallery.statuses)


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.name)
def test_odd_picture_is_decoded_or_fails_by_its_own_class(gallery: Gallery, odd: OddImage) -> None:
    """Never a silent empty result: a page is read, or it says why not."""
    status = gallery.statuses.get(odd.name) or gallery.statuses[f"{odd.name}#p0001"]
    if isinstance(odd.want, Readable):
        tiny = min(odd.want.width_px, odd.want.height_px) < 8
        assert status["status"] == ("error" if tiny else "success"), status
        assert not tiny or status["error_class"] == "ImageTooSmall"
    else:
        assert status["status"] == "error", status
        assert status["error_class"] == odd.want.__name__
        assert len(status["error_message"]) > 10


def test_page_that_takes_too_long_fails_alone_as_a_timeout(tmp_path: Path) -> None:
    job = job_with_page(
        tmp_path,
        retries={"perItem": 0, "itemTimeoutSeconds": 1, "maxFailedItems": "100%"},
        sharding={"itemsPerShard": 9},
    )
    (tmp_path / "pages" / "endless.png").write_bytes(ocr_pages.long_page(160, 24).as_bytes())
    (tmp_path / "pages" / "q.png").write_bytes(ocr_pages.note(1).as_bytes())
    told = job.run()
    assert told.status == 0, told.all
    assert told.json["items"] == {"planned": 3, "succeeded": 2, "failed": 1, "skipped": 0}
    assert told.json["failedByClass"] == {"ItemTimeout": 1}
    line = results_of(job).statuses()["endless"]
    assert "it took longer than 1 s" in line["error_message"]


@pytest.mark.parametrize(("limit", "status"), [("0", 3), ("1", 0)])
def test_failures_beyond_the_limit_have_a_status_of_their_own_and_lose_nothing(
    tmp_path: Path, limit: str, status: int
) -> None:
    job = job_with_page(tmp_path, retries={"maxFailedItems": limit})
    (tmp_path / "pages" / "bad.png").write_bytes(b"no picture")
    told = job.run()
    assert told.status == status, told.all
    assert told.json["outcome"] == ("TooManyFailures" if status else "Complete")
    assert results_of(job).pages().keys() == {"p"}
