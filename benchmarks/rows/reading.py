"""What the rows about engines share: `pagemill run` and the other programs as sides that read the same pages.

Layer: `benchmarks.rows`, below the rows. Speed is taken where every process is at work: the first pages, which wait
for models, and the last, when processes run out of work, are left out on both sides. The whole run's speed, start and
end included, stands beside it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness.paired import Figures, Side, median
from benchmarks.harness.place import Place
from benchmarks.harness.processes import BenchmarkError, Command, Finished, run
from benchmarks.harness.result import Table
from benchmarks.sides.bare_loop import LoopDone, LoopWork

Choose = Callable[[int], list[Path]]
"""Which pages a run of so many reads."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One engine over pages. `variables` go into the environment, `uri` is a place for results (None: a folder)."""

    place: Place
    engine: str
    choose: Choose
    options: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1
    variables: Mapping[str, str] = field(default_factory=dict)
    loop_variables: Mapping[str, str] = field(default_factory=dict)
    api_key: str | None = None

    @property
    def in_flight(self) -> int:
        return self.place.processes * self.threads


def pagemill_side(reading: Reading, name: str = "pagemill run") -> Side:
    """`pagemill run` over a manifest of the pages, results into a fresh folder."""

    def go(size: int) -> Figures:
        folder = reading.place.folder("run")
        output = str(folder / "out")
        done = run(_pagemill(reading, folder, output, size))
        moments, regions = committed(output)
        if len(moments) != size:
            raise BenchmarkError(f"pagemill run read {len(moments)} of {size} pages")
        return figures(done, moments, regions, in_flight=reading.in_flight)

    return Side(name, go)


def bare_side(reading: Reading) -> Side:
    """The bare loop over the same engine, with as many processes and threads."""

    def go(size: int) -> Figures:
        work = LoopWork(
            engine=reading.engine,
            options=dict(reading.options),
            api_key=reading.api_key,
            pages=reading.choose(size),
            processes=reading.place.processes,
            threads=reading.threads,
        )
        command = reading.place.python("benchmarks.sides.bare_loop", **reading.loop_variables)
        return loop_figures(run(_fed(command, work.model_dump_json())), size, reading.in_flight)

    return Side("bare loop", go)


def loop_side(name: str, command: Command, work: Callable[[int], object]) -> Side:
    """A program of `benchmarks.sides` that reads with one process; `work(size)` is its input."""

    def go(size: int) -> Figures:
        return loop_figures(run(_fed(command, json.dumps(work(size)))), size, 1)

    return Side(name, go)


def loop_figures(done: Finished, size: int, in_flight: int) -> Figures:
    """The figures of a program that answers as `LoopDone`."""
    answer = LoopDone.model_validate_json(done.stdout)
    if len(answer.finished) != size:
        raise BenchmarkError(f"the loop read {len(answer.finished)} of {size} pages")
    return figures(done, answer.finished, answer.regions, in_flight=in_flight)


def figures(done: Finished, moments: Sequence[float], regions: int, *, in_flight: int) -> Figures:
    """Speeds and costs of one run whose pages were finished at `moments`."""
    ordered = sorted(moments)
    count = len(ordered)
    first = min(2 * in_flight, count // 4)
    last = count - 1 - min(in_flight, count // 8)
    start, end = ordered[first], ordered[last]
    seconds = max(end - start, 1e-6)
    return {
        "pages_per_s": (last - first) / seconds,
        "cpu_s_per_page": done.cpu_between(start, end) / (last - first),
        "whole_run_pages_per_s": count / done.wall_s,
        "whole_run_cpu_s": done.cpu_s,
        "first_page_s": ordered[0] - done.started_at,
        "wall_s": done.wall_s,
        "pages": float(count),
        "regions": float(regions),
    }


def speeds(samples: Mapping[str, list[Figures]]) -> Table:
    """Medians of every side's runs, as a table."""
    rows = []
    for name, runs in samples.items():
        middle = {key: median([run[key] for run in runs]).value for key in runs[0]}
        rows.append(
            [
                name,
                f"{middle['pages']:.0f}",
                f"{middle['pages_per_s']:.2f}",
                f"{middle['cpu_s_per_page']:.3f}",
                f"{middle['whole_run_pages_per_s']:.2f}",
                f"{middle['first_page_s']:.1f}",
            ]
        )
    columns = ["side", "pages", "pages/s", "CPU s a page", "pages/s, whole run", "first page after, s"]
    return Table(title="Medians of the rounds:", columns=columns, rows=rows)


def write_job(reading: Reading, folder: Path, output: str, size: int) -> Path:
    """A job's file and its manifest. Ids are unique, pages may come again."""
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["canonical_id", "absolute_image_path"])
        rows.writerows((f"page_{number:05}", path) for number, path in enumerate(reading.choose(size)))
    options = dict(reading.options)
    engine: dict[str, Any] = {"name": reading.engine, "languages": ["en"]}
    for option, name in (("baseUrl", "endpoint"), ("model", "model")):
        if reading.engine == "vlm" and option in options:
            engine[name] = options.pop(option)
    job = {
        "apiVersion": "pagemill.dev/v1alpha1",
        "kind": "OcrJob",
        "metadata": {"name": "bench"},
        "spec": {
            "source": {"manifest": {"uri": str(manifest)}},
            "engine": {**engine, "options": options},
            "output": {"uri": output, "formats": ["json"]},
        },
    }
    path = folder / "job.yaml"
    path.write_text(json.dumps(job), encoding="utf-8")  # JSON is YAML
    return path


def _pagemill(reading: Reading, folder: Path, output: str, size: int) -> Command:
    job = write_job(reading, folder, output, size)
    log = str(folder / "engines.log")
    count = str(reading.place.processes)
    return reading.place.pagemill(
        "run", str(job), "--quiet", "--output", "json", "--processes", count, "--log", log, **reading.variables
    )


def committed(output: str) -> tuple[list[float], int]:
    """When each page was finished, and how many regions there are, from the dataset of an output folder."""
    import pyarrow.parquet as pq

    parts = [
        pq.ParquetFile(path).read(columns=["finished_at", "num_regions", "status"])
        for path in sorted(Path(output, "dataset").rglob("*.parquet"))
    ]
    rows = [row for part in parts for row in part.to_pylist() if row["status"] == "succeeded"]
    return [row["finished_at"].timestamp() for row in rows], sum(row["num_regions"] for row in rows)


def _fed(command: Command, text: str) -> Command:
    return Command(command.arguments, command.environment, command.folder, command.log, text.encode())
