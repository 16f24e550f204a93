"""`pagemill run` of a tensor model against a bare PyTorch loop: one process, one thread, one batch size."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.harness.paired import Figures, Plan, Side, interleave, median, ratio
from benchmarks.harness.place import ROOT, Place
from benchmarks.harness.plots import Picture, bars
from benchmarks.harness.processes import BenchmarkError, run
from benchmarks.harness.result import Table
from benchmarks.harness.row import Found, Row, at_least

PARTITIONS, PARTITION_ROWS, QUICK_PARTITIONS = 24, 1000, 2
BATCH = 256
TARGET = 0.95
OURS, LOOP = "pagemill run", "bare PyTorch loop"


def measure(place: Place) -> Found:
    """Both sides in turn over the same partitions; their predictions must add up to the same."""
    sample = _sample(place)
    plan = place.plan(Plan(size=PARTITIONS, pairs=3, warm_size=1), QUICK_PARTITIONS)
    partitions = sorted((sample / "partitions").glob("*.pt"), key=lambda path: int(path.stem))
    samples = interleave((_pagemill(place, sample, partitions), _bare(place, sample, partitions)), plan)
    ours, theirs = samples[OURS], samples[LOOP]
    if abs(ours[-1]["total"] - theirs[-1]["total"]) > 1e-4 * abs(theirs[-1]["total"]):
        raise BenchmarkError(f"predictions add up to {ours[-1]['total']} and {theirs[-1]['total']}")
    bars(
        Picture(
            place.output / f"{ROW.name}.png", "A tensor model, one process, one thread", "rows a second in the loop"
        ),
        {"redshift": {name: [each["rows_per_s"] for each in runs] for name, runs in samples.items()}},
    )
    return Found(
        checks=[
            at_least(
                f"rows/s in the loop, batch {BATCH}, against a bare PyTorch loop",
                TARGET,
                "×",
                ratio(ours, theirs, "rows_per_s"),
            ),
            at_least(
                f"rows per CPU second in the loop, batch {BATCH}, against a bare PyTorch loop",
                TARGET,
                "×",
                ratio(ours, theirs, "rows_per_cpu_s"),
            ),
        ],
        tables=[_table(samples)],
        samples=samples,
        notes=[
            "with reading: from the first partition that is read to the last row; the whole run holds start and reports"
        ],
        plot=f"{ROW.name}.png",
    )


def _sample(place: Place) -> Path:
    """The sample of docs/guide/inference.md, with a wider network, made once."""
    count = QUICK_PARTITIONS if place.quick else PARTITIONS
    folder = place.work / f"redshift-{count}"
    if not (folder / "training.json").is_file():
        sizes = ["--train", "500", "--epochs", "2", "--width", "32"]
        rows = ["--rows", str(count * PARTITION_ROWS), "--partition-rows", str(PARTITION_ROWS)]
        program = str(ROOT / "tools" / "train_redshift.py")
        run(place.command([sys.executable, program, str(folder), *sizes, *rows]))
    return folder


def _pagemill(place: Place, sample: Path, partitions: Sequence[Path]) -> Side:
    def go(size: int) -> Figures:
        folder = place.folder("tensors")
        (folder / "in").mkdir()
        for path in partitions[:size]:
            (folder / "in" / path.name).hardlink_to(path)
        job = {
            "apiVersion": "pagemill.dev/v1alpha1",
            "kind": "EmbeddingJob",
            "metadata": {"name": "bench"},
            "spec": {
                "source": {"tensors": {"uri": str(folder / "in"), "order": "natural"}},
                "inference": {
                    "adapter": "torchExport",
                    "weights": str(sample / "redshift.pt2"),
                    "batchSize": BATCH,
                    "labels": "2",
                },
                "output": {"uri": str(folder / "out"), "formats": ["parquet", "rankFiles"]},
            },
        }
        (folder / "job.yaml").write_text(json.dumps(job), encoding="utf-8")  # JSON is YAML
        words = ["--quiet", "--output", "json", "--processes", "1", "--log", str(folder / "model.log")]
        done = run(place.pagemill("run", str(folder / "job.yaml"), *words))
        found = json.loads((folder / "out" / "results" / "Results.json").read_bytes())
        predictions = pq.read_table(folder / "out" / "predictions.parquet", columns=["prediction"])
        return {
            "rows": float(found["rows"]),
            "rows_per_s": found["rows"] / found["wall_seconds"],
            "rows_per_cpu_s": found["rows"] / found["total_cpu_time (seconds)"],
            "with_reading_rows_per_s": found["rows"] / found["run_wall_seconds"],
            "whole_run_rows_per_s": found["rows"] / done.wall_s,
            "total": float(predictions["prediction"].to_numpy().astype("float64").sum()),
        }

    return Side(OURS, go)


def _bare(place: Place, sample: Path, partitions: Sequence[Path]) -> Side:
    def go(size: int) -> Figures:
        work = {
            "model": str(sample / "redshift.pt2"),
            "partitions": [str(path) for path in partitions[:size]],
            "batch": BATCH,
        }
        one = place.python("benchmarks.sides.torch_loop", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
        done = run(replace(one, stdin=json.dumps(work).encode()))
        answer = json.loads(done.stdout)
        return {
            "rows": float(answer["rows"]),
            "rows_per_s": answer["rows"] / answer["loop_s"],
            "rows_per_cpu_s": answer["rows"] / answer["loop_cpu_s"],
            "with_reading_rows_per_s": answer["rows"] / answer["wall_s"],
            "whole_run_rows_per_s": answer["rows"] / done.wall_s,
            "total": answer["total"],
        }

    return Side(LOOP, go)


def _table(samples: Mapping[str, list[Figures]]) -> Table:
    names = ("rows_per_s", "rows_per_cpu_s", "with_reading_rows_per_s", "whole_run_rows_per_s")
    rows = [
        [name, f"{runs[0]['rows']:.0f}", *(f"{median([each[one] for each in runs]).value:.0f}" for one in names)]
        for name, runs in samples.items()
    ]
    columns = ["side", "rows", "rows/s in the loop", "rows a CPU s", "rows/s with reading", "rows/s, whole run"]
    return Table(title="Medians of the rounds:", columns=columns, rows=rows)


ROW = Row(
    name="tensors",
    question="Does a tensor model run as fast as in a bare PyTorch loop?",
    how=f"`pagemill run` with one process over partitions of {PARTITION_ROWS:,} rows, predictions and reports written, "
    "against one Python process with one thread that reads the same files and calls the same exported model.",
    measure=measure,
)
