"""`pagemill run` against a bare loop over the same engine: what the store, the protocol and the supervision cost."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from benchmarks.harness.pages import Kind, pages, repeated
from benchmarks.harness.paired import Figures, Plan, Side, interleave, median, ratio
from benchmarks.harness.place import Place
from benchmarks.harness.plots import Picture, bars
from benchmarks.harness.result import Check, Table
from benchmarks.harness.row import Found, Row, at_least
from benchmarks.rows.reading import Reading, bare_side, pagemill_side, speeds
from pagemill_core.testing.vlm_faults import Answer
from pagemill_core.testing.vlm_server import BadVlmServer
from pagemill_worker.ocr.engine import EngineSettings, max_in_flight
from pagemill_worker.ocr.registry import adapter
from pagemill_worker.ocr.settings import OcrSettings
from pagemill_worker.ocr.threads import engine_environment
from pagemill_worker.plan.estimate import serverless_cost

TARGET = 0.95
FUNCTION_MEMORY_GB = Decimal(3)
CORE_HOUR_USD = Decimal("0.05")  # arbitrary, in the range of today's on-demand cores; for comparing engines


@dataclass(frozen=True, slots=True)
class Trial:
    """How one engine is measured. Sizes are pages of one run; an engine that reads one page in ten seconds gets few."""

    engine: str
    kind: Kind
    size: int
    pairs: int = 2
    warm_size: int = 4
    quick_size: int = 4
    options: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    @property
    def name(self) -> str:
        return self.label or self.engine


TRIALS = (
    Trial("rapidocr", "comics", size=48),
    Trial("tesseract", "mixed", size=240, pairs=3, warm_size=8, quick_size=8),
    Trial("paddleocr", "comics", size=48),
    Trial("paddleocr", "mixed", size=160, options={"model": "tiny"}, label="paddleocr tiny"),
    Trial("easyocr", "comics", size=10, warm_size=2, quick_size=2),
    Trial("vlm", "mixed", size=400, pairs=3, warm_size=16, quick_size=16),
)


def measure(place: Place, trials: Sequence[Trial] = TRIALS) -> Found:
    """Every engine in turn."""
    checks: list[Check] = []
    samples: dict[str, list[Figures]] = {}
    for trial in trials:
        found = _measure_one(place, trial)
        checks += _checks(trial, *found.values())
        samples |= {f"{trial.name}: {side}": runs for side, runs in found.items()}
    _plot(place, samples)
    return Found(
        checks=checks,
        tables=[speeds(samples), _whole_runs(trials, samples), _costs(place, trials, samples)],
        samples=samples,
        notes=[
            "pages/s and CPU s a page: while every process is at work; whole run: start, model loading, planning, the "
            "dataset and the report included, which a run of minutes pays once",
            "every process of both sides is a session of its own: Linux shares the cores of a busy machine by session",
            f"regions read by both sides: {_regions(samples)}",
        ],
        plot=f"{ROW.name}.png",
    )


def _checks(trial: Trial, ours: Sequence[Figures], theirs: Sequence[Figures]) -> list[Check]:
    """By the clock, and by CPU time: both sides use the cores up, so on a quiet machine the two agree."""
    label = f"`pagemill run`, {trial.name}, against a bare loop"
    return [
        at_least(f"{label}, pages/s", TARGET, "×", ratio(ours, theirs, "pages_per_s")),
        at_least(f"{label}, pages per CPU s", TARGET, "×", ratio(theirs, ours, "cpu_s_per_page")),
    ]


def _measure_one(place: Place, trial: Trial) -> dict[str, list[Figures]]:
    plan = place.plan(Plan(trial.size, trial.pairs, trial.warm_size), trial.quick_size)
    with _reading(place, trial) as reading:
        return interleave(_sides(reading), plan)


def _sides(reading: Reading) -> tuple[Side, Side]:
    return pagemill_side(reading), bare_side(reading)


@contextmanager
def _reading(place: Place, trial: Trial) -> Iterator[Reading]:
    """The engine over its pages; a remote engine gets a server on this machine that answers at once."""
    files = pages(place, trial.kind)
    options = dict(trial.options)
    threads, api_key, variables = 1, None, {}
    with ExitStack() as stack:
        if trial.engine == "vlm":
            server = stack.enter_context(BadVlmServer(lambda _: Answer()))
            options |= {"baseUrl": server.base_url, "model": "bench/instant"}
            api_key = "bench-key"
            variables = {"PAGEMILL_API_KEY": api_key, "PAGEMILL_ALLOWED_HOSTS": "127.0.0.1"}
            threads = max_in_flight(adapter("vlm"), EngineSettings("vlm", options=options, api_key=api_key))

        def choose(size: int) -> list[Path]:
            return repeated(files, size)

        yield Reading(
            place, trial.engine, choose, options, threads, variables, engine_environment(_settings(place)), api_key
        )


def _settings(place: Place) -> OcrSettings:
    return OcrSettings(cache_dir=Path(place.variables["PAGEMILL_OCR_CACHE_DIR"]))


# -- what is shown -----------------------------------------------------------------------------------------------------


def _whole_runs(trials: Sequence[Trial], samples: Mapping[str, list[Figures]]) -> Table:
    """The ratio with everything that a run pays once."""
    rows = []
    for trial in trials:
        ours, theirs = (samples[f"{trial.name}: {side}"] for side in ("pagemill run", "bare loop"))
        found = ratio(ours, theirs, "whole_run_pages_per_s")
        rows.append([trial.name, f"{ours[0]['pages']:.0f}", f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"])
    columns = ["engine", "pages", "× the bare loop's pages/s, whole run"]
    return Table(title="From the start of the command to its end:", columns=columns, rows=rows)


def _costs(place: Place, trials: Sequence[Trial], samples: Mapping[str, list[Figures]]) -> Table:
    rows = []
    for trial in trials:
        runs = samples[f"{trial.name}: pagemill run"]
        speed = median([run["pages_per_s"] for run in runs]).value
        cpu_s = median([run["cpu_s_per_page"] for run in runs]).value
        machine_usd = CORE_HOUR_USD * place.processes * 1000 / (Decimal(str(speed)) * 3600)
        function_usd = serverless_cost(1000, cpu_s, FUNCTION_MEMORY_GB)
        rows.append([trial.name, f"{speed:.2f}", f"{machine_usd:.3f}", f"{function_usd:.3f}"])
    price = f"{CORE_HOUR_USD} USD a core-hour"
    return Table(
        title="What 1,000 pages cost, by time on this machine (busy or not) and by the serverless formula on CPU time "
        f"({FUNCTION_MEMORY_GB} GB a function); model calls of vlm not included:",
        columns=["engine", "pages/s", f"USD at {price}", "USD, serverless"],
        rows=rows,
    )


def _regions(samples: Mapping[str, list[Figures]]) -> str:
    """Both sides must have read the same, or their speeds say nothing."""
    names = [name.partition(": ")[0] for name in samples]
    parts = []
    for name in dict.fromkeys(names):
        counts = {run["regions"] for side, runs in samples.items() if side.startswith(f"{name}: ") for run in runs}
        parts.append(f"{name} {' and '.join(f'{count:.0f}' for count in sorted(counts))}")
    return ", ".join(parts)


def _plot(place: Place, samples: Mapping[str, list[Figures]]) -> None:
    groups: dict[str, dict[str, list[float]]] = {}
    for name, runs in samples.items():
        engine, _, side = name.partition(": ")
        groups.setdefault(engine, {})[side] = [run["pages_per_s"] for run in runs]
    best = {engine: max(itertools.chain(*sides.values())) for engine, sides in groups.items()}
    shares = {
        engine: {side: [value / best[engine] for value in values] for side, values in sides.items()}
        for engine, sides in groups.items()
    }
    picture = Picture(place.output / f"{ROW.name}.png", "pagemill run against a bare loop", "pages/s, of the best run")
    bars(picture, shares)


ROW = Row(
    name="engines",
    question="What does Pagemill cost beside a bare loop over the same engine?",
    how="`pagemill run` from a manifest of files into a folder, with ledger, plan, commits, views, dataset and report, "
    "against N processes that load the same engine with the same settings and read the same files with the same loader "
    "and keep nothing. The vlm engine talks to a server on this machine that answers at once.",
    measure=measure,
)
