"""That the benchmarks measure at all: their cheap rows with tiny sizes, the files they write, never a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHEAP_ROWS = ("plan", "protocol", "search", "vectors")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    command = [sys.executable, "-m", "benchmarks", *CHEAP_ROWS, "--quick", "--output", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.s3
@pytest.mark.parametrize("name", CHEAP_ROWS)
def test_benchmark_row_quick_writes_a_result_of_its_schema(results: Path, name: str) -> None:
    found = json.loads((results / f"{name}.json").read_text(encoding="utf-8"))

    assert (found["v"], found["name"], found["quick"]) == (1, name, True)
    assert found["samples"]
    assert {"cpu", "cores", "memory_bytes", "versions", "load_before", "load_after"} <= found["machine"].keys()
    for check in found["checks"]:
        low, high = check["spread"]
        assert low <= check["measured"] <= high
        assert (check["at_least"] is None) != (check["at_most"] is None)


@pytest.mark.s3
@pytest.mark.parametrize("name", CHEAP_ROWS)
def test_benchmark_row_quick_draws_its_picture(results: Path, name: str) -> None:
    assert (results / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.s3
def test_benchmark_readme_shows_every_check_and_says_that_it_was_a_smoke_run(results: Path) -> None:
    text = (results / "README.md").read_text(encoding="utf-8")

    labels = [
        check["label"] for name in CHEAP_ROWS for check in json.loads((results / f"{name}.json").read_text())["checks"]
    ]
    assert [label for label in labels if f"| {label} |" not in text] == []
    assert "the figures mean nothing" in text


def test_benchmarks_know_every_row_of_the_table() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )

    rows = ("engines", "tesseract", "paddleocr", "memory", "plan", "protocol", "first_result")
    assert [row for row in rows if f"\n  {row} " not in done.stdout] == []
