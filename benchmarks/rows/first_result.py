"""How long someone waits for the first page's text after typing `pagemill run`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.harness.pages import pages, repeated
from benchmarks.harness.paired import Figures, Plan, Side, interleave, median
from benchmarks.harness.place import Place
from benchmarks.harness.plots import Picture, bars
from benchmarks.harness.processes import BenchmarkError, Watched
from benchmarks.harness.result import Table
from benchmarks.harness.row import Found, Row, at_most
from benchmarks.rows.reading import Reading, bare_side, write_job
from pagemill_worker.ocr.settings import OcrSettings
from pagemill_worker.ocr.threads import engine_environment

PAGES, ROUNDS = 24, 5
LOOK_EVERY_S = 0.01
PATIENCE_S = 120.0


def measure(place: Place) -> Found:
    """`pagemill run` until the first result, and beside it one page by the bare loop: the least it could take."""
    files = pages(place, "comics")

    def choose(size: int) -> list[Path]:
        return repeated(files, size)

    loop_variables = engine_environment(OcrSettings(cache_dir=Path(place.variables["PAGEMILL_OCR_CACHE_DIR"])))
    reading = Reading(place, "rapidocr", choose, loop_variables=loop_variables)
    bare = bare_side(reading)
    sides = (
        Side("pagemill run", lambda _: _until_first_result(reading)),
        Side("bare loop", lambda _: _renamed(bare.run(place.processes))),
    )
    samples = interleave(sides, Plan(PAGES, 1 if place.quick else ROUNDS, 0 if place.quick else 1))
    seconds = {name: median([run["first_result_s"] for run in runs]) for name, runs in samples.items()}
    cpu_s = {name: median([run["cpu_s"] for run in runs]) for name, runs in samples.items()}
    picture = Picture(place.output / f"{ROW.name}.png", "First result after the start (rapidocr)", "seconds")
    bars(picture, {"rapidocr": {name: [run["first_result_s"] for run in runs] for name, runs in samples.items()}})
    return Found(
        checks=[at_most("first result after `pagemill run` starts (rapidocr)", 5.0, "s", seconds["pagemill run"])],
        tables=[
            Table(
                title="Until the first result:",
                columns=["side", "s", "CPU s of all processes"],
                rows=[[name, f"{seconds[name].value:.2f}", f"{cpu_s[name].value:.2f}"] for name in samples],
            )
        ],
        samples=samples,
        notes=[
            f"{place.processes} engine processes on both sides; a page of comics alone takes about two seconds of CPU "
            "time, loading the engine about one and a half",
        ],
        plot=picture.path.name,
    )


def _until_first_result(reading: Reading) -> Figures:
    folder = reading.place.folder("first")
    job = write_job(reading, folder, str(folder / "out"), PAGES)
    count = str(reading.place.processes)
    command = reading.place.pagemill("run", str(job), "--quiet", "--processes", count, **reading.variables)
    with Watched(replace(command, log=folder / "stderr.log")) as watched:
        while not any(_results(folder / "out" / "ocr_results")):
            if watched.process.poll() is not None or time.time() - watched.started_at > PATIENCE_S:
                raise BenchmarkError(f"no first result; see {folder / 'stderr.log'}")
            time.sleep(LOOK_EVERY_S)
        seconds = time.time() - watched.started_at
        cpu_s = watched.sample().cpu_s
        watched.stop()
    return {"first_result_s": seconds, "cpu_s": cpu_s}


def _results(folder: Path) -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    yield from (entry.name for entry in entries if entry.name.endswith("_ocr.json"))


def _renamed(found: Figures) -> Figures:
    return {"first_result_s": found["first_page_s"], "cpu_s": found["whole_run_cpu_s"]}


ROW = Row(
    name="first_result",
    question="How soon is the first result there?",
    how="From starting the command to the first `_ocr.json` in the output folder, rapidocr, files and bytecode in the "
    "page cache, a manifest of comic pages. The bare loop's first page is the least an engine of this kind could take.",
    measure=measure,
)
