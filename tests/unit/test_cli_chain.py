"""`pagemill chain`: jobs that wait for one another, drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pagemill_cli.testing.command import Told, run_command

MODEL = {"model": {"name": "all-minilm-l6-v2"}}


def document(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    base = {"output": {"uri": f"out/{name}"}}
    return {"apiVersion": "pagemill.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": {**base, **spec}}


SCANS = document("OcrJob", "scans", source={"images": {"uri": "pages"}})
TEXTS = document("EmbeddingJob", "texts", source={"ocrJob": {"name": "scans"}}, text=MODEL)
SHEETS = document(
    "EmbeddingJob",
    "sheets",
    source={"images": {"uri": "pages"}},
    visual=MODEL,
    dependsOn=[{"kind": "OcrJob", "name": "scans"}, {"kind": "OcrJob", "name": "elsewhere"}],
)


def chain(folder: Path, *documents: dict[str, Any], form: str = "text") -> Told:
    (folder / "pages").mkdir(exist_ok=True)
    file = folder / "jobs.yaml"
    file.write_text("\n---\n".join(json.dumps(one) for one in documents))
    return run_command("chain", file, "-o", form)


def test_chain_draws_jobs_below_those_they_wait_for(tmp_path: Path) -> None:
    told = chain(tmp_path, TEXTS, SCANS, SHEETS)
    assert told.status == 0, told.all
    lines = told.out.splitlines()
    assert lines[0].split() == ["ocrjob/scans", "NotRun"]
    assert "embeddingjob/texts" in lines[1]
    assert "ocrjob/elsewhere  (not in this file)" in told.out
    assert told.out.count("embeddingjob/sheets") == 2, "below each of the two it waits for"


def test_chain_tells_programs_the_same(tmp_path: Path) -> None:
    told = chain(tmp_path, SCANS, TEXTS, form="json")
    assert told.json == [
        {"name": "ocrjob/scans", "waitsFor": [], "phase": "NotRun"},
        {"name": "embeddingjob/texts", "waitsFor": ["ocrjob/scans"], "phase": "NotRun"},
    ]
    diagram = chain(tmp_path, SCANS, TEXTS, form="mermaid").out
    assert diagram.splitlines()[0] == "flowchart LR"
    assert "j0 --> j1" in diagram


def test_chain_refuses_a_circle(tmp_path: Path) -> None:
    first = document("EmbeddingJob", "a", source={"images": {"uri": "pages"}}, visual=MODEL)
    second = document("EmbeddingJob", "b", source={"images": {"uri": "pages"}}, visual=MODEL)
    first["spec"]["dependsOn"] = [{"kind": "EmbeddingJob", "name": "b"}]
    second["spec"]["dependsOn"] = [{"kind": "EmbeddingJob", "name": "a"}]
    told = chain(tmp_path, first, second)
    assert told.status == 78
    assert "wait for one another" in told.err


@pytest.mark.parametrize("command", ["run", "chain"])
def test_a_source_that_names_a_job_of_another_file_says_what_to_write(tmp_path: Path, command: str) -> None:
    (tmp_path / "jobs.yaml").write_text(json.dumps(TEXTS))
    told = run_command(command, tmp_path / "jobs.yaml")
    assert told.status == 78
    assert "source.ocrJob.uri" in told.err
