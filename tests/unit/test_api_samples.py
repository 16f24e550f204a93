"""Every sample that users copy is a valid job, read without a warning."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagemill_core.api.load import dump_job, load_jobs, read_jobs

SAMPLES = sorted((Path(__file__).parents[2] / "config" / "samples").glob("*job*.yaml"))


def test_samples_show_each_way_of_use() -> None:
    names = {path.stem for path in SAMPLES}
    assert names >= {
        "ocrjob",
        "ocrjob-images",
        "ocrjob-vlm",
        "embeddingjob-books",
        "embeddingjob-dataset",
        "embeddingjob-chain",
    }


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_sample_is_read_strictly_and_without_warnings(path: Path) -> None:
    loaded = read_jobs(path.read_text(encoding="utf-8"), origin=path.name)
    assert loaded.jobs
    assert loaded.warnings == ()


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_sample_written_and_read_again_is_the_same(path: Path) -> None:
    jobs = load_jobs(path.read_text(encoding="utf-8"), origin=path.name)
    text = "---\n".join(dump_job(job) for job in jobs)
    assert load_jobs(text, origin="dumped") == jobs


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_sample_teaches_in_comments(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# ")
