"""What earlier attempts left, and what pods have used: both survive any restart."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest

from pagemill_core.storage.memory import MemoryStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.testing.recording import RecordingStore
from pagemill_core.work import attempts
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.records import AttemptRecord, Ending, UsageRecord
from pagemill_core.work.usage import Spent, UsageReader, cost_of, put_usage

LAYOUT = RunLayout("00000001-aaaaaaaa")


@pytest.fixture
def store() -> RecordingStore:
    return RecordingStore(MemoryStore())


@pytest.fixture
def writer(store: RecordingStore) -> Writer:
    return Writer(store, FakeClock(), random.Random(1))


def read(writer: Writer, shard: int, attempt: str) -> AttemptRecord:
    key = LAYOUT.attempt(shard, attempt)
    blob = writer.get(key)
    assert blob is not None
    return AttemptRecord.from_bytes(blob.data, key)


def test_attempt_without_ending_is_a_death_with_what_it_had_in_flight(writer: Writer) -> None:
    for number, rows in enumerate(([4], [4, 5], [])):
        record = attempts.begin(writer, LAYOUT, 7, f"a{number}", "pod")
        if rows:
            attempts.note_in_flight(writer, LAYOUT, record, rows)
    scan = attempts.scan_segment(writer, LAYOUT, 0)

    history = attempts.history(writer, scan.attempts[7])

    assert history.deaths == 3
    assert history.in_flight == {4: 2, 5: 1}


@pytest.mark.parametrize("ending", ["Drained", "Failed", "Lost", "Committed"])
def test_attempt_with_an_ending_blames_nobody(writer: Writer, ending: Ending) -> None:
    record = attempts.begin(writer, LAYOUT, 7, "a", "pod")
    record = attempts.note_in_flight(writer, LAYOUT, record, [4])
    attempts.end(writer, LAYOUT, record, ending, "spot loss" + "!" * 1000)

    history = attempts.history(writer, [LAYOUT.attempt(7, "a")])

    assert (history.deaths, history.in_flight) == (0, {})
    ended = read(writer, 7, "a")
    assert (ended.ending, ended.in_flight) == (ending, [])
    assert len(ended.reason) == 500


def test_history_of_records_that_vanished_is_empty(writer: Writer) -> None:
    assert attempts.history(writer, [LAYOUT.attempt(7, "gone")]) == attempts.ShardHistory()


def test_scan_segment_costs_three_listings_and_sees_its_own_segment_only(writer: Writer, store: RecordingStore) -> None:
    for shard in (0, 999, 1000, 1001):
        store.inner.put(LAYOUT.marker(shard), b"{}")
        store.inner.put(LAYOUT.attempt(shard, "a"), b"{}")
        store.inner.put(LAYOUT.attempt(shard, "b"), b"{}")
        store.inner.put(LAYOUT.partial(shard, "a"), b"{}")

    scan = attempts.scan_segment(writer, LAYOUT, 1)

    assert store.calls == {"list": 3}
    assert scan.done == {1000, 1001}
    assert {shard: len(found) for shard, found in scan.attempts.items()} == {1000: 2, 1001: 2}
    assert scan.partials == {1000: [LAYOUT.partial(1000, "a")], 1001: [LAYOUT.partial(1001, "a")]}


# -- usage ------------------------------------------------------------------------------------------------------------


def test_cost_is_seconds_times_price_plus_the_api() -> None:
    record = UsageRecord(pod="p", price_per_hour="1.20", seconds=1800.0, api_cost="0.005")

    assert cost_of(record) == Decimal("0.605")


def test_spent_sums_all_pods_and_the_newest_of_each(writer: Writer) -> None:
    reader = UsageReader(writer, LAYOUT)
    assert reader.spent() == Spent()
    put_usage(writer, LAYOUT, UsageRecord(pod="p1", price_per_hour="3600", seconds=1.0))
    put_usage(writer, LAYOUT, UsageRecord(pod="p2", price_per_hour="3600", seconds=2.0, api_cost="0.5"))
    put_usage(writer, LAYOUT, UsageRecord(pod="p1", price_per_hour="3600", seconds=10.0))

    assert reader.spent() == Spent(Decimal("12.5"), 12.0)
    assert UsageReader(writer, LAYOUT).spent() == reader.spent()


def test_spent_reads_only_what_changed(writer: Writer, store: RecordingStore) -> None:
    reader = UsageReader(writer, LAYOUT)
    for pod in range(20):
        put_usage(writer, LAYOUT, UsageRecord(pod=f"p{pod}", seconds=1.0))
    reader.spent()
    put_usage(writer, LAYOUT, UsageRecord(pod="p3", seconds=2.0))
    store.reset()

    assert reader.spent().seconds == 21.0
    assert store.calls == {"list": 1, "get": 1}
