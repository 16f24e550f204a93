"""Whether one engine process keeps its size over a thousand pages."""

from __future__ import annotations

import bisect
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.harness.pages import pages, repeated
from benchmarks.harness.paired import Figures, median
from benchmarks.harness.place import Place
from benchmarks.harness.plots import Picture, lines
from benchmarks.harness.processes import BenchmarkError, Sample, run
from benchmarks.harness.result import Table
from benchmarks.harness.row import Found, Row, at_most
from benchmarks.rows.reading import Reading, committed, write_job

# The detector would scale small pages up, which takes four times as long and gives all of them the same size.
OPTIONS: Mapping[str, Mapping[str, object]] = {"tesseract": {}, "rapidocr": {"detectorSidePx": 640}}
ENGINES = tuple(OPTIONS)
PAGES, QUICK_PAGES = 1000, 60
MEBIBYTE = 1 << 20
AROUND = 0.05  # of all pages: memory at a page is the median over this many before it


@dataclass(frozen=True, slots=True)
class Series:
    """Memory of the engine process and of its supervisor, MiB, by pages finished."""

    done: list[float]
    engine: list[float]
    supervisor: list[float]

    def at(self, page: float, total: int) -> float:
        """The engine process's memory when `page` pages were done."""
        low = bisect.bisect_left(self.done, page - total * AROUND)
        high = bisect.bisect_right(self.done, page)
        return statistics.median(self.engine[low:high] or self.engine[max(0, low - 1) : low + 1])


def measure(place: Place) -> Found:
    """Each engine once."""
    total = QUICK_PAGES if place.quick else PAGES
    engines = ENGINES[:1] if place.quick else ENGINES
    series = {engine: _series(place, engine, total) for engine in engines}
    samples = {engine: [_figures(found, total)] for engine, found in series.items()}
    picture = Picture(place.output / f"{ROW.name}.png", "One engine process, small pages", "MiB resident", "pages read")
    lines(picture, {engine: (found.done, found.engine) for engine, found in series.items()})
    return Found(
        checks=[
            at_most(f"memory the last 500 of 1,000 pages add ({engine})", 5.0, "%", median([runs[0]["growth_percent"]]))
            for engine, runs in samples.items()
        ],
        tables=[_table(samples)],
        samples=samples,
        notes=["memory at a page: the median of the samples over the 50 pages before it"],
        plot=picture.path.name,
    )


def _series(place: Place, engine: str, total: int) -> Series:
    files = pages(place, "notes")

    def choose(size: int) -> list[Path]:
        return repeated(files, size)

    folder = place.folder("memory")
    reading = Reading(place, engine, choose, OPTIONS[engine])
    job = write_job(reading, folder, str(folder / "out"), total)
    done = run(replace(place.pagemill("run", str(job), "--quiet", "--processes", "1"), log=folder / "stderr.log"))
    moments = sorted(committed(str(folder / "out"))[0])
    if len(moments) != total:
        raise BenchmarkError(f"{len(moments)} of {total} pages were read")
    return _by_page(done.samples, moments)


def _by_page(samples: Sequence[Sample], moments: Sequence[float]) -> Series:
    """Samples while pages were read; the supervisor is the oldest process, the engine's the youngest."""
    series = Series([], [], [])
    for sample in samples:
        if moments[0] <= sample.at <= moments[-1] and len(sample.rss_bytes) == 2:
            supervisor, engine = (sample.rss_bytes[pid] / MEBIBYTE for pid in sorted(sample.rss_bytes))
            series.done.append(float(bisect.bisect_right(moments, sample.at)))
            series.engine.append(engine)
            series.supervisor.append(supervisor)
    if not series.done:
        raise BenchmarkError("it was over before its memory was looked at; read more pages")
    return series


def _figures(series: Series, total: int) -> Figures:
    half, whole = series.at(total / 2, total), series.at(total, total)
    return {
        "mib_at_half": half,
        "mib_at_end": whole,
        "growth_percent": (whole / half - 1) * 100,
        "supervisor_mib_at_end": series.supervisor[-1],
        "pages": float(total),
    }


def _table(samples: Mapping[str, Sequence[Figures]]) -> Table:
    names = ("mib_at_half", "mib_at_end", "growth_percent", "supervisor_mib_at_end")
    rows = [[engine, *(f"{runs[0][name]:.1f}" for name in names)] for engine, runs in samples.items()]
    columns = ["engine", "MiB after 500 pages", "MiB after 1,000", "added, %", "supervisor at the end, MiB"]
    return Table(title="Resident memory:", columns=columns, rows=rows)


ROW = Row(
    name="memory",
    question="Does an engine process keep its size?",
    how="`pagemill run --processes 1` over 1,000 small pages of a few words, each of another size; resident memory of "
    "the engine process four times a second.",
    measure=measure,
)
