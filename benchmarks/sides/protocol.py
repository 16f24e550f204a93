"""The protocol alone: begin, output, marker, views and record of tiny shards, as a worker does them, without an engine.

A program: the work as JSON on standard input, CPU seconds by step as JSON on standard output. One of several that
share a run; each owns a range of shards, as the indexes of a Job do.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, ConfigDict

from pagemill_core.clock import SystemClock, iso
from pagemill_core.ids import ulid
from pagemill_core.storage.s3 import S3Store
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.work import attempts
from pagemill_core.work import layout as keys
from pagemill_core.work.commit import commit, put_output
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.publish import View, publish_shard
from pagemill_core.work.records import Counts, Marker

DATA = bytes(range(256)) * 4  # about what one small page's row takes as Parquet
VIEW = b'{"canonical_id": "page", "text_regions": [], "full_text": "", "num_regions": 0}' * 6
PLAN, FINGERPRINT = "01J0000000000000000000PLAN", "f" * 64


class ProtocolWork(BaseModel):
    """A range of shards. `views` small files are published of each; `threads` do shards at once."""

    model_config = ConfigDict(frozen=True)

    bucket: str
    prefix: str
    run: str
    first: int
    last: int
    views: int
    threads: int = 1
    settings: dict[str, Any]


class _Steps:
    """CPU seconds of this process's threads, by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.thread_time()
        yield
        spent = time.thread_time() - started
        with self._lock:
            self.seconds[name] = self.seconds.get(name, 0.0) + spent


def main() -> None:
    """Do the range and tell what it took."""
    work = ProtocolWork.model_validate_json(sys.stdin.read())
    store = S3Store(work.bucket, work.prefix, S3Settings.model_validate(work.settings))
    writer = Writer(store, SystemClock())
    layout = RunLayout(work.run)
    attempts.scan_segment(writer, layout, 99_999)  # so that the first connection is not counted
    steps = _Steps()
    started, cpu_before = time.perf_counter(), time.process_time()
    shards = _unfinished(writer, layout, work, steps)
    do = _doer(writer, layout, work, steps)
    if work.threads == 1:
        won = [do(shard) for shard in shards]
    else:
        with ThreadPoolExecutor(work.threads) as executor:
            won = list(executor.map(do, shards))
    answer = {
        "shards": float(sum(won)),
        "seconds": time.perf_counter() - started,
        "cpu_s": time.process_time() - cpu_before,
        **{f"{name}_s": seconds for name, seconds in steps.seconds.items()},
    }
    store.close()
    sys.stdout.write(json.dumps(answer))


def _unfinished(writer: Writer, layout: RunLayout, work: ProtocolWork, steps: _Steps) -> list[int]:
    """The range less what is done: three listings a segment, as every worker begins."""
    done: set[int] = set()
    for segment in range(keys.segment_of(work.first), keys.segment_of(work.last) + 1):
        with steps("scan"):
            done |= attempts.scan_segment(writer, layout, segment).done
    return [shard for shard in range(work.first, work.last + 1) if shard not in done]


def _doer(writer: Writer, layout: RunLayout, work: ProtocolWork, steps: _Steps) -> Callable[[int], bool]:
    def do(shard: int) -> bool:
        attempt = ulid(int(writer.clock.now().timestamp() * 1000))
        with steps("begin"):
            record = attempts.begin(writer, layout, shard, attempt, "bench/0")
        with steps("output"):
            output = put_output(writer, layout, (shard, attempt, "items.parquet"), DATA, 1)
        with steps("commit"):
            marker = Marker(
                shard=shard,
                attempt=attempt,
                plan=PLAN,
                fingerprint=FINGERPRINT,
                items=Counts(planned=1, succeeded=1),
                outputs=[output],
                started=record.started,
                finished=iso(writer.clock.now()),
                worker="bench/0",
            )
            won = commit(writer, layout, marker).won
        with steps("publish"):
            names = (f"ocr_results/page_{shard:08}_{number}_ocr.json" for number in range(work.views))
            publish_shard(writer, layout, shard, [View(name, VIEW) for name in names])
        return won

    return do


if __name__ == "__main__":
    main()
