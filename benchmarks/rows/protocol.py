"""What the protocol costs a worker: CPU time for each tiny shard, on a real S3 server, two workers at once."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence

from benchmarks.harness.paired import Figures, Median, median
from benchmarks.harness.place import Place
from benchmarks.harness.plots import Picture, bars
from benchmarks.harness.processes import BenchmarkError
from benchmarks.harness.result import Table
from benchmarks.harness.row import Found, Row, at_most
from benchmarks.sides.protocol import ProtocolWork
from pagemill_core.storage.embedded_s3 import EmbeddedS3
from pagemill_worker.environment import reveal

BUCKET = "protocol"
SHARDS, QUICK_SHARDS = 10_000, 40
WORKERS = 2
STEPS = ("scan", "begin", "output", "commit", "publish")
# (label, views a shard, threads): a worker's session does shards in four threads.
VARIANTS = (("no view", 0, 1), ("one view", 1, 1), ("one view, 4 threads", 1, 4))


def measure(place: Place) -> Found:
    """Every variant once: ten thousand shards are an average already."""
    shards = QUICK_SHARDS if place.quick else SHARDS
    samples: dict[str, list[Figures]] = {}
    with EmbeddedS3(place.folder("protocol") / "s3") as server:
        server.create_bucket(BUCKET)
        for number, (label, views, threads) in enumerate(VARIANTS):
            work = ProtocolWork(
                bucket=BUCKET,
                prefix=f"out{number}",
                run="00000001-bench000",
                first=0,
                last=shards - 1,
                views=views,
                threads=threads,
                settings=reveal(server.settings("worker")),
            )
            samples[label] = _workers(place, work)
    costs = {label: _cost(runs) for label, runs in samples.items()}
    picture = Picture(place.output / f"{ROW.name}.png", "CPU time of one shard in the worker", "ms")
    bars(picture, {label: {"worker": [_ms(run, "cpu_s") for run in runs]} for label, runs in samples.items()})
    return Found(
        checks=[
            at_most(f"protocol, 10,000 shards, 2 workers, {label}", 4.0, "ms CPU a shard", costs[label])
            for label in costs
        ],
        tables=[_table(samples)],
        samples=samples,
        notes=[
            "a shard is four requests, and one more for each view: attempt record, output, marker (created once), "
            "views (each created once), record of the views",
            "the range behind a figure is that of the workers",
        ],
        plot=picture.path.name,
    )


def _workers(place: Place, whole: ProtocolWork) -> list[Figures]:
    """All workers at once, each with its share of the shards."""
    command = place.python("benchmarks.sides.protocol")
    size = (whole.last + 1) // WORKERS
    with command.log.open("ab") as log:
        processes = [
            subprocess.Popen(
                command.arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=command.folder,
                env=dict(command.environment),
            )
            for _ in range(WORKERS)
        ]
        for number, process in enumerate(processes):
            share = whole.model_copy(update={"first": number * size, "last": (number + 1) * size - 1})
            assert process.stdin is not None
            process.stdin.write(share.model_dump_json().encode())
            process.stdin.close()
        answers = [process.stdout.read() if process.stdout else b"" for process in processes]
        for process in processes:
            process.wait()
            if process.stdout:
                process.stdout.close()
    found: list[Figures] = [json.loads(answer or b"{}") for answer in answers]
    if sum(run.get("shards", 0) for run in found) != size * WORKERS:
        raise BenchmarkError(f"the workers committed other than {size * WORKERS} shards; see {command.log}")
    return found


def _ms(run: Figures, figure: str) -> float:
    return run[figure] / run["shards"] * 1000


def _cost(runs: Sequence[Figures]) -> Median:
    return median([_ms(run, "cpu_s") for run in runs])


def _table(samples: dict[str, list[Figures]]) -> Table:
    rows = []
    for label, runs in samples.items():
        steps = [f"{median([_ms(run, f'{step}_s') for run in runs]).value:.2f}" for step in STEPS]
        total, wall = _cost(runs).value, median([_ms(run, "seconds") for run in runs]).value
        rows.append([label, f"{total:.2f}", *steps, f"{wall:.1f}"])
    columns = ["variant", "CPU ms a shard", *STEPS, "wall ms"]
    return Table(title="CPU milliseconds of one shard in its worker, by step:", columns=columns, rows=rows)


ROW = Row(
    name="protocol",
    question="What does the protocol cost a worker?",
    how="Two processes do the protocol's part of 10,000 shards of one small output each on the embedded S3 server: "
    "scan of the segment, attempt record, output, commit marker, views and their record. Only the workers' own CPU "
    "time counts, not the server's.",
    measure=measure,
    is_cheap=True,
)
