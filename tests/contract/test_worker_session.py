"""A session over a real store and real threads, with a pool that answers at once: what it leaves in the store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from pagemill_core.clock import SystemClock
from pagemill_core.errors import (
    AccessDeniedError,
    EngineFailed,
    EngineUnavailableError,
    IntegrityError,
    StoreUnavailableError,
)
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.storage.store import ObjectStore
from pagemill_core.testing.fault_store import FaultRates, FaultRule, FaultStore
from pagemill_core.work import attempts
from pagemill_core.work.commit import read_marker
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.publish import View, read_published
from pagemill_core.work.records import AttemptRecord, Marker
from pagemill_worker.items import ItemFailure, ItemResult, PlannedItem
from pagemill_worker.testing.instant import InstantPool, succeed
from pagemill_worker.work import shard_data
from pagemill_worker.work.pool import Answer, PoolSettings
from pagemill_worker.work.session import Hooks, Session, SessionResult, SessionSettings

LAYOUT = RunLayout("00000001-0123abcd")
FINGERPRINT = "f" * 64
PER_SHARD = 4
SETTINGS = SessionSettings(worker="pod-1", plan="plan-1", fingerprint=FINGERPRINT)
POOL = PoolSettings(setup={}, processes=1, environment={}, depth=2, max_deaths=2)


def items_of(shard: int) -> list[PlannedItem]:
    rows = range(shard * PER_SHARD, (shard + 1) * PER_SHARD)
    return [PlannedItem(row=row, id=f"item-{row}", uri=f"x/{row}") for row in rows]


def answer_ok(item: PlannedItem) -> Answer:
    return succeed(item, f"text of {item.id}")


def views(_: Marker, results: Iterable[ItemResult]) -> list[View]:
    return [View(f"views/{result.item.id}", b"view") for result in results if result.status == "succeeded"]


class Bench:
    """A store, a session's settings and hooks; `run` makes a session and lets it work."""

    def __init__(self, store: ObjectStore | None = None) -> None:
        self.store = MemoryStore() if store is None else store
        self.writer = Writer(self.store, SystemClock(), deadline_s=0.05)
        self.begun: list[int] = []

    def run(
        self,
        shards: Sequence[int],
        read: Callable[[PlannedItem], Answer] = answer_ok,
        settings: SessionSettings = SETTINGS,
        **hooks: Any,
    ) -> SessionResult:
        def noting_read(item: PlannedItem) -> Answer:
            self.begun.append(item.row)
            return read(item)

        pool = InstantPool(POOL, read=noting_read)
        told = Hooks(**{"items": items_of, "views": views, **hooks})
        return Session(self.writer, LAYOUT, pool, settings, told).run(shards)  # type: ignore[arg-type]

    def attempts_of(self, shard: int) -> list[AttemptRecord]:
        infos = MemoryStore.list(self.inner, f"{LAYOUT.prefix}attempts/{shard:08d}/")
        return [AttemptRecord.from_bytes(self.inner.get(info.key).data, info.key) for info in infos]

    @property
    def inner(self) -> MemoryStore:
        inner = self.store.inner if isinstance(self.store, FaultStore) else self.store
        assert isinstance(inner, MemoryStore)
        return inner

    def rows(self, shard: int) -> list[ItemResult]:
        marker = read_marker(Writer(self.inner, SystemClock()), LAYOUT, shard)
        assert marker is not None
        (output,) = marker.outputs
        return shard_data.decode(self.inner.get(output.key).data, FINGERPRINT, output.key)


def test_session_commits_every_shard_once_and_publishes_its_views() -> None:
    bench = Bench()
    seen: list[int] = []
    result = bench.run(range(5), committed=lambda marker: seen.append(marker.shard))
    assert (result.committed, result.failed, result.stopped) == (5, {}, False)
    assert sorted(seen) == list(range(5))
    assert sorted(bench.begun) == list(range(5 * PER_SHARD))
    for shard in range(5):
        assert [row.item.row for row in bench.rows(shard)] == [item.row for item in items_of(shard)]
        published = read_published(bench.writer, LAYOUT, shard)
        assert published is not None
        assert [view.key for view in published.views] == [f"views/{item.id}" for item in items_of(shard)]


def test_session_second_time_does_nothing() -> None:
    bench = Bench()
    bench.run(range(3))
    bench.begun.clear()
    assert bench.run(range(3)).committed == 0
    assert bench.begun == []


def test_session_items_failed_in_the_plan_are_rows_and_cost_no_work() -> None:
    bench = Bench()

    def planned(shard: int) -> list[PlannedItem]:
        first, *rest = items_of(shard)
        return [replace(first, failure=ItemFailure("UnsafeId", "the id is empty")), *rest]

    bench.run([0], items=planned)
    assert [row.status for row in bench.rows(0)] == ["failed", "succeeded", "succeeded", "succeeded"]
    assert bench.begun == [1, 2, 3]


def test_session_stopped_saves_what_is_done_and_the_next_one_takes_it_over() -> None:
    bench = Bench()
    done = threading.Event()

    def read(item: PlannedItem) -> Answer:
        if item.row == 1:
            done.set()
        return answer_ok(item)

    result = bench.run([0], read, should_stop=done.is_set)
    assert result.stopped
    assert read_marker(bench.writer, LAYOUT, 0) is None
    (attempt,) = bench.attempts_of(0)
    assert (attempt.ending, attempt.in_flight) == ("Drained", [])

    bench.run([0])
    assert sorted(bench.begun) == [0, 1, 2, 3], "an item was done twice or not at all"
    assert {row.status for row in bench.rows(0)} == {"succeeded"}


def test_session_stopped_before_it_began_leaves_no_death_behind() -> None:
    bench = Bench()
    bench.run([0, 1, 2], should_stop=lambda: True)
    bench.run([0, 1, 2])
    assert [attempts.history(bench.writer, [LAYOUT.attempt(0, a.attempt)]).deaths for a in bench.attempts_of(0)]
    for shard in range(3):
        assert all(record.ending == "Drained" for record in bench.attempts_of(shard)[:-1])


def test_session_stopped_while_a_shard_is_being_opened_ends_its_attempt_too() -> None:
    bench = Bench()
    opened, stop = threading.Event(), threading.Event()

    def slow_items(shard: int) -> list[PlannedItem]:
        if shard == 1:
            opened.set()
            assert stop.wait(10)
        return items_of(shard)

    def should_stop() -> bool:
        if opened.is_set():
            threading.Timer(0.1, stop.set).start()
        return opened.is_set()

    bench.run([0, 1], items=slow_items, should_stop=should_stop)
    assert [record.ending for record in bench.attempts_of(1)] == ["Drained"]


def test_session_saves_partial_rows_every_so_often() -> None:
    bench = Bench()
    seen = threading.Event()

    def read(item: PlannedItem) -> Answer:
        deadline = time.monotonic() + 1.0  # saving goes on beside reading, and may be slower on a busy machine
        while item.row > 0 and not seen.is_set() and time.monotonic() < deadline:
            if list(bench.store.list(f"{LAYOUT.prefix}partial/")):
                seen.set()
            time.sleep(0.002)
        return answer_ok(item)

    bench.run([0, 1, 2, 3], read, replace(SETTINGS, partial_every_s=0.0))
    assert seen.is_set()


def test_session_damaged_partial_rows_are_done_again() -> None:
    bench = Bench()
    bench.store.put(LAYOUT.partial(0, "01AN4Z07BY79KA1307SR9X4MV3"), b"PAR1 but not really")
    assert bench.run([0]).committed == 1
    assert sorted(bench.begun) == [0, 1, 2, 3]


def test_session_partial_rows_of_other_items_are_not_taken_over() -> None:
    bench = Bench()
    strangers = [answer_ok(PlannedItem(row=1, id="other", uri="x/1")).result, answer_ok(items_of(0)[2]).result]
    data = shard_data.encode(strangers, FINGERPRINT)
    bench.store.put(LAYOUT.partial(0, "01AN4Z07BY79KA1307SR9X4MV3"), data)
    bench.run([0])
    assert sorted(bench.begun) == [0, 1, 3]


def test_session_one_shard_whose_data_cannot_be_written_does_not_end_the_rest() -> None:
    rule = FaultRule(FaultRates(unavailable=1.0), frozenset({"put"}), r"data/../00000001/")
    bench = Bench(FaultStore(MemoryStore(), [rule]))
    result = bench.run(range(4))
    assert result.committed == 3
    assert list(result.failed) == [1]
    assert "StoreUnavailable" in result.failed[1]
    (attempt,) = bench.attempts_of(1)
    assert attempt.ending == "Failed"
    assert "unavailable" in attempt.reason

    bench.store.set_rules([])  # type: ignore[attr-defined]
    bench.begun.clear()
    assert bench.run(range(4)).committed == 1
    assert bench.begun == [], "what the failed attempt had done was done again"


def test_session_store_that_refuses_shard_after_shard_ends_it() -> None:
    rule = FaultRule(FaultRates(unavailable=1.0), frozenset({"put"}), r"/data/")
    bench = Bench(FaultStore(MemoryStore(), [rule]))
    with pytest.raises(StoreUnavailableError):
        bench.run(range(100))
    assert len(bench.begun) < 100 * PER_SHARD


@pytest.mark.parametrize("error", [EngineUnavailableError("no model"), StoreUnavailableError("remote side away")])
def test_session_ended_by_its_engine_blames_no_page(error: Exception) -> None:
    bench = Bench()
    attempts.begin(bench.writer, LAYOUT, 0, "01AN4Z07BY79KA1307SR9X4MV3", "pod-0")  # died: so this one takes notes

    def read(item: PlannedItem) -> Answer:
        if item.row == 2:
            raise error
        return answer_ok(item)

    with pytest.raises(type(error)):
        bench.run([0], read)
    record = next(record for record in bench.attempts_of(0) if record.worker == "pod-1")
    assert (record.ending, record.in_flight) == ("Failed", [])

    bench.begun.clear()
    assert bench.run([0]).committed == 1
    assert 0 not in bench.begun, "what was done before the error was done again"


def test_session_access_denied_ends_everything_at_once() -> None:
    rule = FaultRule(FaultRates(denied=1.0), frozenset({"put"}), r"/data/")
    bench = Bench(FaultStore(MemoryStore(), [rule]))
    with pytest.raises(AccessDeniedError):
        bench.run(range(10))


def test_session_shard_that_another_attempt_committed_is_left_to_it() -> None:
    bench, other = Bench(), Bench()
    other.store = bench.store
    other.writer = bench.writer

    def read(item: PlannedItem) -> Answer:
        if item.row == 3:
            other.run([0], settings=replace(SETTINGS, worker="pod-2"))
        return answer_ok(item)

    result = bench.run([0], read)
    assert result.committed == 0
    marker = read_marker(bench.writer, LAYOUT, 0)
    assert marker is not None
    assert marker.worker == "pod-2"
    assert {record.worker: record.ending for record in bench.attempts_of(0)} == {"pod-1": "Lost", "pod-2": None}


def test_session_counts_that_do_not_add_up_are_refused() -> None:
    bench = Bench()

    def read(item: PlannedItem) -> Answer:
        result = ItemResult(item, "unheard-of", failure=ItemFailure.of(EngineFailed("x")))  # type: ignore[arg-type]
        return Answer(result)

    with pytest.raises(IntegrityError, match="4 planned items, but 0 succeeded"):
        bench.run([0], read)
    assert read_marker(bench.writer, LAYOUT, 0) is None


def test_session_from_the_second_attempt_on_names_rows_before_they_are_at_work() -> None:
    bench = Bench()
    attempts.begin(bench.writer, LAYOUT, 0, "01AN4Z07BY79KA1307SR9X4MV3", "pod-0")
    unnamed: list[int] = []

    def read(item: PlannedItem) -> Answer:
        records = [record for record in bench.attempts_of(0) if record.worker == "pod-1"]
        if item.row not in records[0].in_flight:
            unnamed.append(item.row)
        return answer_ok(item)

    bench.run([0], read)
    assert unnamed == []


def test_session_suspects_are_tried_last_and_alone() -> None:
    bench = Bench()
    dead = attempts.begin(bench.writer, LAYOUT, 0, "01AN4Z07BY79KA1307SR9X4MV3", "pod-0")
    attempts.note_in_flight(bench.writer, LAYOUT, dead, [0, 2])
    named: dict[int, list[int]] = {}

    def read(item: PlannedItem) -> Answer:
        records = [record for shard in (0, 1) for record in bench.attempts_of(shard) if record.worker == "pod-1"]
        named[item.row] = [row for record in records for row in record.in_flight]
        return answer_ok(item)

    bench.run([0, 1], read)
    assert bench.begun[-2:] == [0, 2]
    assert (named[0], named[2]) == ([0], [2])


def test_session_suspect_over_its_deaths_fails_untried() -> None:
    bench = Bench()
    for number in range(3):
        dead = attempts.begin(bench.writer, LAYOUT, 0, f"01AN4Z07BY79KA1307SR9X4MV{number}", "pod-0")
        attempts.note_in_flight(bench.writer, LAYOUT, dead, [1])
    bench.run([0])
    (failed,) = [row for row in bench.rows(0) if row.status == "failed"]
    assert failed.item.row == 1
    assert failed.failure is not None
    assert failed.failure.error_class == "ItemKilledWorker"
    assert sorted(bench.begun) == [0, 2, 3]
