"""A session over real child processes: what one page does to its process is that page's own affair."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pagemill_core.clock import SystemClock
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.work.commit import read_marker
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_worker.items import PlannedItem
from pagemill_worker.metrics import WorkerMetrics
from pagemill_worker.testing.faulty_runner import setup_message
from pagemill_worker.work import shard_data
from pagemill_worker.work.pool import Pool, PoolSettings
from pagemill_worker.work.session import Hooks, Session, SessionResult, SessionSettings

LAYOUT = RunLayout("00000001-0123abcd")
FINGERPRINT = "f" * 64
SETTINGS = SessionSettings(worker="pod", plan="plan", fingerprint=FINGERPRINT, max_deaths=1)
PER_SHARD = 5


def make_pool(log: Path, **changes: object) -> Pool:
    given: dict[str, object] = {
        "setup": setup_message(log=str(log)),
        "processes": 2,
        "environment": dict(os.environ),
        "item_timeout_s": 2.0,
        "max_deaths": 1,
    }
    return Pool(PoolSettings(**{**given, **changes}))  # type: ignore[arg-type]


class Bench:
    """Shards of `PER_SHARD` items that do as their wishes say."""

    def __init__(self, wishes: Sequence[str], log: Path) -> None:
        self.items = [PlannedItem(row=row, id=f"i{row}", uri=f"x/{wish}") for row, wish in enumerate(wishes)]
        self.shards = range(-(-len(wishes) // PER_SHARD))
        self.writer = Writer(MemoryStore(), SystemClock())
        self.log = log
        self.metrics = WorkerMetrics()

    def run(self, pool: Pool, stop: threading.Event | None = None) -> SessionResult:
        hooks = Hooks(
            items=lambda shard: self.items[shard * PER_SHARD : (shard + 1) * PER_SHARD],
            views=lambda _, __: (),
            should_stop=(stop or threading.Event()).is_set,
            metrics=self.metrics,
        )
        with pool:
            return Session(self.writer, LAYOUT, pool, SETTINGS, hooks).run(self.shards)

    def outcomes(self) -> dict[int, str]:
        """By row: "ok", or the class of its failure."""
        found = {}
        for shard in self.shards:
            marker = read_marker(self.writer, LAYOUT, shard)
            assert marker is not None
            (output,) = marker.outputs
            for row in shard_data.decode(self.writer.store.get(output.key).data, FINGERPRINT, output.key):
                found[row.item.row] = row.failure.error_class if row.failure else "ok"
        return found

    def begun(self) -> Counter[int]:
        return Counter(int(line) for line in self.log.read_text().split())


def test_session_pages_that_kill_hang_or_fail_are_the_only_ones_that_fail(tmp_path: Path) -> None:
    bad = {3: "kill", 7: "hang", 11: "segfault", 12: "missing", 19: "exit"}
    bench = Bench([bad.get(row, "ok") for row in range(20)], tmp_path / "log")
    result = bench.run(make_pool(bench.log))
    assert result.committed == 4
    failed = {row: outcome for row, outcome in bench.outcomes().items() if outcome != "ok"}
    killed = dict.fromkeys((3, 11, 19), "ItemKilledWorker")
    assert failed == {**killed, 7: "ItemTimeout", 12: "ImageMissing"}


def test_session_stopped_with_real_processes_reads_nothing_twice(tmp_path: Path) -> None:
    bench = Bench(["slow"] * 20, tmp_path / "log")
    stop = threading.Event()
    timer = threading.Timer(1.2, stop.set)
    timer.start()
    first = bench.run(make_pool(bench.log), stop)
    timer.join()
    assert first.stopped
    begun = bench.begun().total()
    assert begun < 20, "it was not stopped in the middle"
    assert not bench.run(make_pool(bench.log)).stopped
    assert bench.begun() == dict.fromkeys(range(20), 1)
    assert set(bench.outcomes().values()) == {"ok"}


def test_pool_page_that_is_ready_is_not_blamed_for_the_one_at_work(tmp_path: Path) -> None:
    """One process: the second page is fetched and decoded while the first hangs."""
    bench = Bench(["hang", "ok", "ok"], tmp_path / "log")
    bench.run(make_pool(bench.log, processes=1, max_deaths=0, item_timeout_s=1.0))
    assert bench.outcomes() == {0: "ItemTimeout", 1: "ok", 2: "ok"}


def test_pool_that_drains_tries_nothing_again(tmp_path: Path) -> None:
    bench = Bench(["hang"] * 5, tmp_path / "log")
    stop = threading.Event()
    timer = threading.Timer(0.8, stop.set)
    timer.start()
    started = time.monotonic()
    assert bench.run(make_pool(bench.log, item_timeout_s=3.0, max_deaths=10), stop).stopped
    timer.join()
    assert time.monotonic() - started < 30
    assert max(bench.begun().values()) == 1


def test_session_counts_deaths_by_cause(tmp_path: Path) -> None:
    bench = Bench(["kill", "hang", "ok"], tmp_path / "log")
    pool = make_pool(bench.log, max_deaths=0, item_timeout_s=1.0)
    counted = Pool(pool.settings, bench.metrics.count_death)
    bench.run(counted)
    registry = bench.metrics.registry
    assert registry.get_sample_value("pagemill_engine_deaths_total", {"cause": "timeout"}) == 1
    assert registry.get_sample_value("pagemill_engine_deaths_total", {"cause": "crash"}) == 1
    assert registry.get_sample_value("pagemill_items_total", {"outcome": "failed"}) == 2
