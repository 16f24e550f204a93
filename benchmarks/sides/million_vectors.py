"""Takes rows with vectors through plan, commit and finalize, in a process of its own whose peak memory is its own.

The encoder costs nothing: what is measured is everything around it. A program: what to do as JSON on standard input,
figures as JSON on standard output.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from benchmarks.sides.plan_million_rows import peak_rss_bytes
from pagemill_core.clock import SystemClock
from pagemill_core.storage.folder import FolderStore
from pagemill_core.work.finalize import write_dataset
from pagemill_core.work.tracker import Tracker
from pagemill_worker.embed.rows import pack
from pagemill_worker.items import ItemResult, PlannedItem, Scalar
from pagemill_worker.testing.made_embeddings import MadeEmbeddings
from pagemill_worker.work.session import STORE_THREADS

MEBIBYTE = 1 << 20
DIFFERENT = 4096  # vectors; a row has the one of its number modulo this
COLUMNS = {"key": "string", "caption": "string", "width": "int64"}


class VectorWork(BaseModel):
    """How many rows of which length, where to."""

    model_config = ConfigDict(frozen=True)

    folder: str
    rows: int
    dim: int
    shard_rows: int


def main() -> None:
    """Do it and tell."""
    work = VectorWork.model_validate_json(sys.stdin.read())
    sys.stdout.write(json.dumps(run(work)))


def run(work: VectorWork) -> dict[str, float]:
    """Seconds of each step, and of all of them; rows a second of commit and finalize together."""
    store = FolderStore(Path(work.folder), fsync=False)
    output = MadeEmbeddings(store, SystemClock(), shard_items=work.shard_rows)
    before = resource.getrusage(resource.RUSAGE_SELF)
    at = [time.perf_counter()]
    held = output.claim()
    kind = output.plan(held, items(work.rows), COLUMNS)
    at.append(time.perf_counter())
    encode = Encoder(work.dim)
    with ThreadPoolExecutor(STORE_THREADS) as threads:  # as a session commits
        list(threads.map(lambda shard: output.commit(kind, shard, encode), range(kind.pointer.shards)))
    at.append(time.perf_counter())
    totals = Tracker(output.writer, kind.layout, kind.pointer.shards).poll()
    write_dataset(output.writer, kind.layout, kind.pointer.shards, kind)
    at.append(time.perf_counter())
    kind.write_merged(kind.pointer, totals)
    at.append(time.perf_counter())
    after = resource.getrusage(resource.RUSAGE_SELF)
    steps = dict(zip(("plan_s", "commit_s", "dataset_s", "merge_s"), np.diff(at).tolist(), strict=True))
    return {
        **steps,
        "rows": totals.items.succeeded,
        "seconds": at[-1] - at[0],
        "rows_per_s": work.rows / (at[-1] - at[0]),
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_rss_mib": peak_rss_bytes() / MEBIBYTE,
        "table_mib": next(iter(store.list("embeddings.parquet"))).size / MEBIBYTE,
    }


def items(count: int) -> Iterator[PlannedItem]:
    """Rows as a data set has them."""
    for row in range(count):
        columns: dict[str, Scalar] = {"key": f"{row:09d}", "caption": f"picture {row}", "width": 640}
        uri = f"s3://library/pictures/{row // 10000:05d}/{row % 10000:04d}.jpg"
        yield PlannedItem(row, f"{row // 10000:05d}#{row % 10000:09d}", uri, version=f"{row:x}", columns=columns)


class Encoder:
    """Gives a row its vector, of length 1, and what is told of a picture."""

    def __init__(self, dim: int) -> None:
        rows = np.random.default_rng(0).standard_normal((DIFFERENT, dim), dtype=np.float32)
        self._rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        self._facts = pack({"visual": self._rows[:1]})[0]

    def __call__(self, item: PlannedItem) -> ItemResult:
        payload = {"rows": self._facts, "width": 640, "height": 480, "frames": 1}
        seconds = {"fetch": 0.001, "decode": 0.004, "encode": 0.01}
        data = self._rows[item.row % DIFFERENT].tobytes()
        return ItemResult(item, "succeeded", payload, seconds=seconds, version_read=item.version, data=data)


if __name__ == "__main__":
    main()
