"""The stores that tests lean on: faults strike as asked, by seed, and calls are counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagemill_core.errors import AccessDeniedError, PagemillError, StoreUnavailableError, ThrottledError
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.testing.fault_store import FaultRates, FaultRule, FaultStore
from pagemill_core.testing.recording import RecordingStore


class KilledHere(BaseException):
    """Stands for the process's end at a hook."""


@pytest.mark.parametrize(
    ("rates", "want", "want_written"),
    [
        (FaultRates(lost_reply=1), StoreUnavailableError, True),
        (FaultRates(conflict=1), StoreUnavailableError, False),
        (FaultRates(throttled=1), ThrottledError, False),
        (FaultRates(unavailable=1), StoreUnavailableError, False),
        (FaultRates(denied=1), AccessDeniedError, False),
    ],
    ids=["lost_reply", "conflict", "throttled", "unavailable", "denied"],
)
def test_fault_of_a_create_raises_and_writes_as_it_says(
    rates: FaultRates, want: type[PagemillError], want_written: bool
) -> None:
    inner = MemoryStore()

    with pytest.raises(want):
        FaultStore(inner, [FaultRule(rates)]).put_if_absent("k", b"")
    assert (inner.head("k") is not None) is want_written


def test_winner_that_is_told_exists_has_written() -> None:
    inner = MemoryStore()

    assert FaultStore(inner, [FaultRule(FaultRates(told_exists=1))]).put_if_absent("k", b"") is None
    assert inner.head("k") is not None


def test_cut_listing_gives_some_and_raises() -> None:
    inner = MemoryStore()
    for number in range(10):
        inner.put(f"k/{number}", b"")
    listing = FaultStore(inner, [FaultRule(FaultRates(cut=1))]).list("k/")

    assert len([next(listing) for _ in range(5)]) == 5
    with pytest.raises(StoreUnavailableError):
        next(listing)


def test_slow_operation_takes_the_clock_along() -> None:
    clock = FakeClock()
    store = FaultStore(MemoryStore(), [FaultRule(FaultRates(slow=1, slow_s=40))], clock=clock)

    store.put("k", b"")

    assert clock.monotonic_s() == 40


def test_same_seed_strikes_the_same_operations() -> None:
    def struck(seed: int) -> list[bool]:
        store = FaultStore(MemoryStore(), [FaultRule(FaultRates(unavailable=0.3))], seed=seed)
        outcomes = []
        for number in range(200):
            try:
                store.put(f"k/{number}", b"")
                outcomes.append(False)
            except StoreUnavailableError:
                outcomes.append(True)
        return outcomes

    assert struck(1) == struck(1) != struck(2)
    assert 30 < sum(struck(1)) < 90


def test_first_rule_that_fits_decides() -> None:
    store = FaultStore(
        MemoryStore(),
        [
            FaultRule(FaultRates(), pattern=r"^safe/"),
            FaultRule(FaultRates(denied=1), frozenset(("put",))),
            FaultRule(FaultRates(throttled=1)),
        ],
    )

    store.put("safe/k", b"")
    with pytest.raises(AccessDeniedError):
        store.put("k", b"")
    with pytest.raises(ThrottledError):
        store.get("k")
    assert store.struck == {"denied": 1, "throttled": 1}


def test_outage_begins_and_ends_at_will() -> None:
    store = FaultStore(MemoryStore())
    store.outage = True
    with pytest.raises(StoreUnavailableError):
        list(store.list(""))
    store.outage = False

    assert list(store.list("")) == []


def test_hooks_see_every_operation_and_may_kill_at_each(tmp_path: Path) -> None:
    seen: list[str] = []
    inner = MemoryStore()
    store = FaultStore(inner)
    store.hooks.before = lambda operation, key: seen.append(f"{operation} {key}")
    (tmp_path / "file").write_bytes(b"")
    token = store.put("k", b"")
    store.put_if_match("k", b"1", token)
    store.put_if_absent("k", b"")
    store.put_file("f", tmp_path / "file")
    store.get("k"), store.get_range("k", 0, 1), store.head("k"), store.list("p"), store.delete("k")
    want = "put k, put_if_match k, put_if_absent k, put_file f, get k, get_range k, head k, list p, delete k"
    assert ", ".join(seen) == want

    def kill(operation: str, key: str) -> None:
        raise KilledHere

    store.hooks.before, store.hooks.after = None, kill
    with pytest.raises(KilledHere):
        store.put("after", b"")
    store.hooks.before = kill
    with pytest.raises(KilledHere):
        store.put("before", b"")
    assert inner.head("after") is not None and inner.head("before") is None


def test_recording_store_counts_calls_and_bytes(tmp_path: Path) -> None:
    store = RecordingStore(MemoryStore("inner"))
    (tmp_path / "file").write_bytes(b"12345")
    token = store.put("k", b"123")
    store.put_if_match("k", b"12", token)
    store.put_if_absent("k", b"1")
    store.put_file("f", tmp_path / "file")
    store.get("k"), store.get_range("f", 0, 4), store.head("k"), list(store.list("")), store.delete("k")

    assert store.uri == "memory://inner"
    assert set(store.calls.values()) == {1} and len(store.calls) == 9
    assert (store.written_bytes, store.read_bytes) == (11, 6)
    assert store.log[0] == ("put", "k") and store.log[-1] == ("delete", "k")
    store.reset()
    assert not store.calls and not store.log
