"""Searching a million rows: exactly, and by the index that keeps its recall."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

from benchmarks.harness.paired import Figures, Median, median
from benchmarks.harness.place import Place
from benchmarks.harness.plots import Picture, bars
from benchmarks.harness.processes import BenchmarkError, run
from benchmarks.harness.result import Table
from benchmarks.harness.row import Found, Row, at_least
from pagemill_worker.machine import machine

ROWS, DIM = 1_000_000, 512
QUICK_ROWS, QUICK_DIM = 3_000, 32
QUERIES, QUICK_QUERIES = 200, 20
ROUNDS = 3
MIN_RECALL = 0.95
MIN_RATIO = 20.0


def measure(place: Place) -> Found:
    """Write the rows once, build the index once, search in a fresh process for each round."""
    rows, dim = (QUICK_ROWS, QUICK_DIM) if place.quick else (ROWS, DIM)
    folder = place.folder("search")
    work = {
        "folder": str(folder / "out"),
        "rows": rows,
        "dim": dim,
        "queries": QUICK_QUERIES if place.quick else QUERIES,
        "threads": machine().cores,
        "kind": "ivfPq",
        "min_recall": MIN_RECALL,
    }
    _side(place, {**work, "step": "write"})
    built = _side(place, {**work, "step": "build"})
    rounds = [_side(place, {**work, "step": "search"}) for _ in range(1 if place.quick else ROUNDS)]
    shutil.rmtree(folder)
    if built["rows"] != rows:
        raise BenchmarkError(f"the index holds {built['rows']:.0f} of {rows} rows")
    picture = Picture(place.output / f"{ROW.name}.png", f"One query over {rows:,} × {dim}", "ms, median")
    groups = {"exact": "exact_ms", "by the index": "index_ms"}
    bars(picture, {name: {"search": [figures[figure] for figures in rounds]} for name, figure in groups.items()})
    return Found(
        checks=[
            at_least("index against exact search", MIN_RATIO, "×", _of(rounds, "ratio")),
            at_least("recall at 10 of the index", MIN_RECALL, "", _of(rounds, "recall")),
        ],
        tables=[_latencies(rounds), _building(built)],
        samples={"build": [built], "search": rounds},
        notes=[
            "rows and queries lie in Gaussian clusters of 200; queries are not among the rows",
            "exact: FAISS IndexFlatIP with all cores; by the index: with the candidates' scores, ids and captions",
        ],
        plot=picture.path.name,
    )


def _side(place: Place, work: dict[str, object]) -> Figures:
    command = place.python("benchmarks.sides.search_rows")
    answer: Figures = json.loads(run(replace(command, stdin=json.dumps(work).encode())).stdout)
    return answer


def _of(rounds: list[Figures], figure: str) -> Median:
    return median([figures[figure] for figures in rounds])


def _latencies(rounds: list[Figures]) -> Table:
    names = {"exact": "exact_ms", "index, positions and scores": "positions_ms", "index, with ids": "index_ms"}
    cells = []
    for name, figure in names.items():
        found = _of(rounds, figure)
        cells.append([name, f"{found.value:.2f}", f"{found.low:.2f}–{found.high:.2f}"])
    return Table(title="Median of one query, ms:", columns=["search", "ms", "of rounds"], rows=cells)


def _building(built: Figures) -> Table:
    names = ("build_s", "read_s", "train_s", "add_s", "measure_s", "write_s", "build_mib", "size_mib", "sample_recall")
    columns = ["s", "reading", "training", "adding", "measuring", "writing", "peak MiB", "index, MiB", "recall, sample"]
    effort = [f"{built['nprobe']:.0f}", f"{built['candidates']:.0f}"]
    cells = [*(f"{built[name]:.2f}" for name in names), *effort]
    return Table(title="Building it:", columns=[*columns, "lists looked into", "candidates a row"], rows=[cells])


ROW = Row(
    name="search",
    question="How much faster than an exact search is the index, at a recall of 0.95?",
    how="1,000,000 rows of 512 numbers in Parquet parts of a folder; the index of `formats: [faiss]` is built from "
    "them in one process, then searched in others, one query at a time.",
    measure=measure,
    is_cheap=True,
)
