"""Counting: every marker once, full segments folded, and few requests."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagemill_core.errors import StoreUnavailableError
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.testing.recording import RecordingStore
from pagemill_core.testing.scripted_store import Answer, ScriptedStore
from pagemill_core.work import layout as keys
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.records import Counts, FailureSample, Marker
from pagemill_core.work.rollup import folded_segments, read_rollup, segment_markers, write_rollup
from pagemill_core.work.tracker import GET_INSTEAD_OF_LIST, MAX_SAMPLES, PROMPT_SEGMENTS, Tracker

LAYOUT = RunLayout("00000001-aaaaaaaa")


def make_writer(store: object) -> Writer:
    return Writer(store, FakeClock(), random.Random(1), deadline_s=5.0)  # type: ignore[arg-type]


def make_marker(shard: int, *, failed: int = 0, attempt: str = "a") -> Marker:
    return Marker(
        shard=shard,
        attempt=attempt,
        plan="p",
        fingerprint="f",
        items=Counts(planned=3, succeeded=3 - failed, failed=failed),
        failures=[
            FailureSample(item=f"{shard}-{number}", error_class="NotAnImage") for number in range(min(failed, 3))
        ],
        failure_classes={"NotAnImage": failed} if failed else {},
        started="s",
        finished="f",
        seconds=0.1,
    )


def mark(store: object, shards: Iterable[int], *, failed: int = 0) -> None:
    for shard in shards:
        store.put(LAYOUT.marker(shard), make_marker(shard, failed=failed).to_bytes())  # type: ignore[attr-defined]


def test_tracker_counts_each_marker_once_over_many_polls() -> None:
    store = MemoryStore()
    tracker = Tracker(make_writer(store), LAYOUT, 30)
    mark(store, range(5), failed=1)
    tracker.poll()
    mark(store, range(5, 12))

    for _ in range(3):
        totals = tracker.poll()

    assert (totals.shards, totals.shards_done) == (30, 12)
    assert totals.items == Counts(planned=36, succeeded=31, failed=5)
    assert totals.failure_classes == {"NotAnImage": 5}
    assert not tracker.is_complete
    assert list(tracker.missing()) == list(range(12, 30))


def test_tracker_reads_new_markers_only() -> None:
    store = RecordingStore(MemoryStore())
    tracker = Tracker(make_writer(store), LAYOUT, 100)
    mark(store.inner, range(40))
    tracker.poll()
    mark(store.inner, range(40, 43))
    store.reset()

    tracker.poll()

    assert store.calls == {"list": 1, "get": 3}


@pytest.mark.parametrize(
    ("missing", "want_calls"),
    [
        (GET_INSTEAD_OF_LIST + 1, {"list": 1}),
        (GET_INSTEAD_OF_LIST, {"get": GET_INSTEAD_OF_LIST}),
        (1, {"get": 1}),
    ],
    ids=["list", "eight-gets", "one-get"],
)
def test_tracker_near_the_end_asks_for_the_missing_alone(missing: int, want_calls: dict[str, int]) -> None:
    store = RecordingStore(MemoryStore())
    mark(store.inner, range(100 - missing))
    tracker = Tracker(make_writer(store), LAYOUT, 100)
    tracker.poll()
    store.reset()

    tracker.poll()

    assert store.calls == want_calls


def test_tracker_full_segment_is_folded_and_never_asked_again() -> None:
    store = RecordingStore(MemoryStore())
    tracker = Tracker(make_writer(store), LAYOUT, 20)
    mark(store.inner, range(20))

    tracker.poll()
    assert tracker.is_complete
    store.reset()
    tracker.poll()

    assert store.calls == {}
    assert read_rollup(make_writer(store), LAYOUT, 0) == [make_marker(shard) for shard in range(20)]


def test_tracker_restart_reads_rollups_and_open_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "SEGMENT_SHARDS", 10)
    store = RecordingStore(MemoryStore())
    mark(store.inner, [*range(10), *range(20, 25)], failed=1)
    first = Tracker(make_writer(store), LAYOUT, 35)
    want = first.poll()
    store.reset()

    again = Tracker(make_writer(store), LAYOUT, 35)

    assert again.poll() == want
    # One LIST of rollups and one GET of the folded segment; a LIST each for three open ones, less those with at most
    # eight missing: 10-19 and 20-29 are listed or asked singly, 30-34 has five.
    assert store.calls["list"] <= 4
    assert list(again.missing()) == [*range(10, 20), *range(25, 35)]


def test_tracker_quiet_segment_of_many_is_looked_at_less_often_unless_thorough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "SEGMENT_SHARDS", 10)
    store = RecordingStore(MemoryStore())
    tracker = Tracker(make_writer(store), LAYOUT, 10 * (PROMPT_SEGMENTS + 1))
    mark(store.inner, range(1))
    tracker.poll(thorough=False)
    store.reset()
    for _ in range(16):
        tracker.poll(thorough=False)
    lazily = store.calls["list"]
    store.reset()
    for _ in range(16):
        tracker.poll()
    thoroughly = store.calls["list"]

    assert lazily <= thoroughly * 6 / 16
    assert thoroughly == 16 * (PROMPT_SEGMENTS + 1)


def test_tracker_few_quiet_segments_are_looked_at_in_every_poll() -> None:
    store = MemoryStore()
    tracker = Tracker(make_writer(store), LAYOUT, 100)
    for _ in range(20):
        tracker.poll(thorough=False)
    mark(store, range(1))

    assert tracker.poll(thorough=False).shards_done == 1


def test_tracker_lazy_poll_still_finds_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "SEGMENT_SHARDS", 2)
    store = MemoryStore()
    tracker = Tracker(make_writer(store), LAYOUT, 100)
    for _ in range(20):
        tracker.poll(thorough=False)
    mark(store, range(100))
    for _ in range(8):
        tracker.poll(thorough=False)

    assert tracker.is_complete


@pytest.mark.parametrize("operation", ["list", "get", "put_if_absent"])
def test_tracker_poll_that_fails_anywhere_counts_nothing_twice(monkeypatch: pytest.MonkeyPatch, operation: str) -> None:
    """The first poll after a restart reads two rollups and an open segment; each read in turn meets a dead store."""
    monkeypatch.setattr(keys, "SEGMENT_SHARDS", 10)
    filled = MemoryStore()
    mark(filled, range(20), failed=1)
    want_before = Tracker(make_writer(filled), LAYOUT, 30).poll()
    assert want_before.shards_done == 20
    mark(filled, range(20, 30), failed=2)
    for good in range(14):
        store = ScriptedStore(filled)
        store.script(operation, *[Answer.OK] * good, *[Answer.REFUSED] * 200)
        tracker = Tracker(make_writer(store), LAYOUT, 30)
        try:
            tracker.poll()
        except StoreUnavailableError:
            store.forget()

        totals = tracker.poll()

        assert totals.shards_done == 30
        assert totals.items == Counts(planned=90, succeeded=50, failed=40)
        assert totals.failure_classes == {"NotAnImage": 40}


def test_tracker_of_no_shards_is_complete() -> None:
    tracker = Tracker(make_writer(MemoryStore()), LAYOUT, 0)

    assert tracker.poll().shards_done == 0
    assert tracker.is_complete


def test_tracker_ignores_attempts_partials_and_published() -> None:
    store = MemoryStore()
    for key in (LAYOUT.attempt(1, "a"), LAYOUT.partial(1, "a"), LAYOUT.published(1), LAYOUT.data(1, "a", "x")):
        store.put(key, b"{}")

    assert Tracker(make_writer(store), LAYOUT, 20).poll().shards_done == 0


@given(st.permutations(range(24)), st.lists(st.integers(1, 23), max_size=4))
def test_tracker_totals_do_not_depend_on_the_order_seen(order: list[int], cuts: list[int]) -> None:
    """A merged view is made of the totals, and a late finalizer must write the same bytes."""
    store = MemoryStore()
    tracker = Tracker(make_writer(store), LAYOUT, 24)
    bounds = [0, *sorted(set(cuts)), 24]
    for first, last in zip(bounds, bounds[1:], strict=False):
        mark(store, order[first:last], failed=2)
        tracker.poll()
    fresh = Tracker(make_writer(store), LAYOUT, 24)
    fresh.poll()

    assert tracker.totals == fresh.totals
    assert tracker.totals.model_dump_json() == fresh.totals.model_dump_json()


def test_tracker_keeps_few_samples_those_of_the_first_shards() -> None:
    store = MemoryStore()
    mark(store, range(50), failed=3)
    totals = Tracker(make_writer(store), LAYOUT, 50).poll()

    assert len(totals.failures) == MAX_SAMPLES
    assert totals.failures[0].item == "0-0"
    assert totals.items.failed == 150


# -- rollups ----------------------------------------------------------------------------------------------------------


def test_rollup_is_ordered_by_shard_and_written_once() -> None:
    store = MemoryStore()
    writer = make_writer(store)
    write_rollup(writer, LAYOUT, 0, [make_marker(2), make_marker(0), make_marker(1)])
    token = store.get(LAYOUT.rollup(0)).token
    write_rollup(writer, LAYOUT, 0, [make_marker(0), make_marker(1), make_marker(2)])

    assert [marker.shard for marker in read_rollup(writer, LAYOUT, 0) or ()] == [0, 1, 2]
    assert store.get(LAYOUT.rollup(0)).token == token


def test_rollup_is_json_lines_that_need_no_parquet_to_read() -> None:
    import zstandard

    store = MemoryStore()
    write_rollup(make_writer(store), LAYOUT, 3, [make_marker(3000)])

    lines = zstandard.decompress(store.get(LAYOUT.rollup(3)).data).splitlines()
    assert lines == [make_marker(3000).to_bytes()]


def test_segment_markers_come_from_the_rollup_or_from_the_markers_alike() -> None:
    store = MemoryStore()
    writer = make_writer(store)
    mark(store, [2, 0, 1])
    singly = list(segment_markers(writer, LAYOUT, 0))
    write_rollup(writer, LAYOUT, 0, singly)

    assert list(segment_markers(writer, LAYOUT, 0)) == singly
    assert [marker.shard for marker in singly] == [0, 1, 2]


def test_folded_segments_are_those_with_a_rollup() -> None:
    store = MemoryStore()
    writer = make_writer(store)
    for segment in (0, 7):
        write_rollup(writer, LAYOUT, segment, [make_marker(1000 * segment)])

    assert folded_segments(writer, LAYOUT) == {0, 7}
    assert read_rollup(writer, LAYOUT, 1) is None
