"""Worker pods as real processes: what an operator starts, in the order in which it starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

from pagemill_core.api.load import dump_job, load_jobs
from pagemill_core.api.workkey import work_key
from pagemill_core.clock import SystemClock
from pagemill_core.storage.folder import FolderStore
from pagemill_core.work.conditional import Writer
from pagemill_core.work.finalize import read_success
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.ledger import Adoption, Ledger, Owner, WorkRequest
from pagemill_core.work.plan import read_plan
from pagemill_core.work.pod import LastWords, PodStep, PodTask
from pagemill_core.work.records import WaveRecord
from pagemill_core.work.tracker import Tracker
from pagemill_core.work.waves import create_wave

OWNER = "0d9f4a3e-uid"


class Cluster:
    """The operator's part, by hand: a claimed run on a folder, and pods started with the task's environment."""

    def __init__(self, folder: Path, language: str = "en") -> None:
        self.folder = folder
        self.output = folder / "out"
        text = (
            "apiVersion: pagemill.dev/v1alpha1\nkind: OcrJob\nmetadata: {name: pods}\nspec:\n"
            f"  source: {{images: {{uri: {folder}/pages}}}}\n"
            f"  engine: {{name: tesseract, languages: [{language}]}}\n  output: {{uri: {self.output}}}\n"
            "  sharding: {itemsPerShard: 1}\n"
        )
        (self.job,) = load_jobs(text, origin="test")
        (folder / "job.json").write_text(dump_job(self.job))
        self.writer = Writer(FolderStore(self.output), SystemClock())
        self.ledger = Ledger(self.writer, Owner(OWNER, "pods"))
        request = WorkRequest(work_key=work_key(self.job), kind="OcrJob")
        self.adoption: Adoption = self.ledger.adopt(request)
        self.layout = RunLayout(self.adoption.held.run)

    def start(self, step: PodStep, **fields: object) -> subprocess.Popen[bytes]:
        task = PodTask(
            step=step,
            run=self.layout.run,
            output_uri=str(self.output),
            owner=OWNER,
            epoch=self.adoption.held.entry.epoch,
            job_path=self.folder / "job.json",
            **fields,  # type: ignore[arg-type]
        )
        index = {"JOB_COMPLETION_INDEX": str(fields.get("completion_index", 0))}
        environment = {**os.environ, **task.to_env(), **index, "PAGEMILL_TERMINATION_PATH": str(self.folder / "words")}
        command = [sys.executable, "-m", "pagemill_worker.main", step.value]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)

    def run(self, step: PodStep, **fields: object) -> int:
        pod = self.start(step, **fields)
        _, log = pod.communicate(timeout=120)
        for line in log.decode().splitlines():
            json.loads(line)  # structured logs, and nothing else
        return pod.returncode


def make_pages(folder: Path, count: int) -> None:
    pages = folder / "pages"
    pages.mkdir()
    for number in range(count):
        page = Image.new("RGB", (420, 90), "white")
        ImageDraw.Draw(page).text((20, 20), f"page number {number}", font=ImageFont.load_default(32), fill="black")
        page.save(pages / f"p{number}.png")


def plan_and_wave(cluster: Cluster) -> int:
    assert cluster.run(PodStep.PLAN) == 0
    pointer = read_plan(cluster.writer, cluster.layout)
    assert pointer is not None
    create_wave(cluster.writer, cluster.layout, WaveRecord(number=1, ranges=[(0, pointer.shards - 1)]))
    return pointer.shards


def test_pods_plan_work_on_two_indexes_and_finalize(tmp_path: Path) -> None:
    make_pages(tmp_path, 4)
    cluster = Cluster(tmp_path)
    assert plan_and_wave(cluster) == 4
    for index in (0, 1):
        assert cluster.run(PodStep.WORK, wave=1, completions=2, completion_index=index, pod_uid=f"u{index}") == 0
    assert Tracker(cluster.writer, cluster.layout, 4).poll().shards_done == 4
    assert cluster.run(PodStep.FINALIZE) == 0
    success = read_success(cluster.writer, cluster.layout)
    assert success is not None
    assert success.totals.items.succeeded == 4
    assert len(list((cluster.output / "ocr_results").glob("p?_ocr.json"))) == 4
    assert "page number 3" in json.loads((cluster.output / "ocr_results" / "p3_ocr.json").read_text())["full_text"]


def test_pod_that_cannot_plan_says_why_in_its_last_words(tmp_path: Path) -> None:
    make_pages(tmp_path, 1)
    cluster = Cluster(tmp_path, language="tlh")
    assert cluster.run(PodStep.PLAN) == 69
    words = LastWords.from_text((tmp_path / "words").read_text())
    assert words is not None
    assert words.reason == "EngineUnavailable"
    assert "tlh" in words.message


def test_pod_that_is_asked_to_stop_exits_143_and_the_next_one_goes_on(tmp_path: Path) -> None:
    make_pages(tmp_path, 12)
    cluster = Cluster(tmp_path)
    plan_and_wave(cluster)
    pod = cluster.start(PodStep.WORK, wave=1, pod_uid="a")
    deadline = time.monotonic() + 60
    while not list(cluster.output.glob(".pagemill/*/commit/*/*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    pod.send_signal(signal.SIGTERM)
    pod.communicate(timeout=60)
    assert pod.returncode == 143
    before = Tracker(cluster.writer, cluster.layout, 12).poll().shards_done
    assert before < 12
    assert cluster.run(PodStep.WORK, wave=1, pod_uid="b") == 0
    assert Tracker(cluster.writer, cluster.layout, 12).poll().shards_done == 12


@pytest.mark.parametrize("change", [{"epoch": 9}, {"owner": "another"}])
def test_pod_of_a_run_that_was_taken_over_does_not_plan(tmp_path: Path, change: dict[str, object]) -> None:
    make_pages(tmp_path, 1)
    cluster = Cluster(tmp_path)
    held = cluster.ledger.read(1)
    assert cluster.ledger.change(held, **change) is not None
    assert cluster.run(PodStep.PLAN) == 75
    assert read_plan(cluster.writer, cluster.layout) is None
