"""A million rows with vectors through plan, commit and finalize, with an encoder that costs nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

from benchmarks.harness.paired import Figures, median
from benchmarks.harness.place import Place
from benchmarks.harness.plots import Picture, bars
from benchmarks.harness.processes import BenchmarkError, run
from benchmarks.harness.result import Table
from benchmarks.harness.row import Found, Row, at_least, at_most

ROWS, QUICK_ROWS = 1_000_000, 2_000
SHARD_ROWS, QUICK_SHARD_ROWS = 2_000, 500
DIMS = (64, 512)
STEPS = ("plan", "commit", "dataset", "merge")


def measure(place: Place) -> Found:
    """Each length of vectors in a fresh process."""
    rows, shard_rows = (QUICK_ROWS, QUICK_SHARD_ROWS) if place.quick else (ROWS, SHARD_ROWS)
    samples = {dim: _side(place, rows, dim, shard_rows) for dim in DIMS}
    picture = Picture(place.output / f"{ROW.name}.png", f"{rows:,} rows with vectors", "seconds")
    bars(picture, {step: {f"{dim}-d": [found[f"{step}_s"]] for dim, found in samples.items()} for step in STEPS})
    checks = []
    for dim, found in samples.items():
        checks.append(
            at_least(f"rows of {dim} numbers, plan to finalize", 20_000, "rows/s", median([found["rows_per_s"]]))
        )
        checks.append(at_most(f"memory with {dim} numbers", 1024, "MiB", median([found["peak_rss_mib"]])))
    return Found(
        checks=checks,
        tables=[_table(samples)],
        samples={f"{dim}-d": [found] for dim, found in samples.items()},
        notes=[
            "one process with the four store threads of a worker; the output is a local folder",
            "of a row of 512 numbers most time goes into Parquet: 2 KB are written three times and read twice",
        ],
        plot=picture.path.name,
    )


def _side(place: Place, rows: int, dim: int, shard_rows: int) -> Figures:
    folder = place.folder("vectors")
    work = {"folder": str(folder / "out"), "rows": rows, "dim": dim, "shard_rows": shard_rows}
    command = replace(place.python("benchmarks.sides.million_vectors"), stdin=json.dumps(work).encode())
    found: Figures = json.loads(run(command).stdout)
    shutil.rmtree(folder)
    if found["rows"] != rows:
        raise BenchmarkError(f"{found['rows']:.0f} of {rows} rows arrived")
    return found


def _table(samples: dict[int, Figures]) -> Table:
    figures = ("plan_s", "commit_s", "dataset_s", "merge_s", "cpu_s", "peak_rss_mib", "table_mib")
    columns = ["numbers a row", "plan, s", "commit, s", "dataset, s", "merge, s", "CPU s", "peak MiB", "table, MiB"]
    cells = [[str(dim), *(f"{found[name]:.1f}" for name in figures)] for dim, found in samples.items()]
    return Table(title="By the vectors' length:", columns=columns, rows=cells)


ROW = Row(
    name="vectors",
    question="How long do a million rows with vectors take when the encoder takes no time?",
    how="Made-up rows of unit length are planned, committed in shards of 2,000 and finalized: dataset, item index, "
    "embeddings.parquet, metadata, summary, report.",
    measure=measure,
    is_cheap=True,
)
