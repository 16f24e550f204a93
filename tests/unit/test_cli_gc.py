"""What `pagemill gc` may delete, and what it must never touch, on runs made without an engine."""

from __future__ import annotations

import pytest

from pagemill_cli.output.garbage import GRACE, Garbage, find_garbage, sweep
from pagemill_cli.output.item import find_item
from pagemill_cli.output.standing import ledger_of
from pagemill_cli.output.verify import verify_output
from pagemill_cli.testing.made_runs import FAILED, SKIPPED, SUCCEEDED, MadeOutput
from pagemill_core.errors import InvalidSpecError, StoreUnavailableError
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.work.attempts import begin
from pagemill_core.work.commit import put_output
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.ledger import COLLECTED, Held
from pagemill_worker.plan.retry import retry_request

DAY_S = GRACE.total_seconds()
ABC = dict.fromkeys("abc", SUCCEEDED)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def made(clock: FakeClock) -> MadeOutput:
    return MadeOutput(MemoryStore(), clock)


def collect(made: MadeOutput, keep: int = 1) -> list[Garbage]:
    gone: list[Garbage] = []
    sweep(made.target, find_garbage(made.target, keep), gone.append)
    return gone


def keys(made: MadeOutput, prefix: str = "") -> set[str]:
    return {info.key for info in made.store.list(prefix)}


def superseded(made: MadeOutput, keep: int = 1) -> list[str]:
    return [held.run for held in find_garbage(made.target, keep).superseded]


def assert_sound(made: MadeOutput) -> None:
    assert [problem for check in verify_output(made.target) for problem in check.problems] == []


def loser(made: MadeOutput, held: Held, shard: int = 0) -> str:
    """Data of an attempt that lost its race."""
    return put_output(made.writer, RunLayout(held.run), (shard, made.attempt(), "items.parquet"), b"lost", 1).key


def test_gc_leftovers_of_a_finished_run_go_and_what_it_committed_stays(made: MadeOutput) -> None:
    run = made.finish(ABC)
    lost = loser(made, run)
    made.writer.put(RunLayout(run.run).partial(0, "x"), b"partial")
    made.writer.put(RunLayout(run.run).wave(1), b"wave")
    made.writer.put(f"{RunLayout(run.run).plan_attempt('other')}shards-00000.parquet", b"table")
    before = keys(made)

    gone = {each.key for each in collect(made)}

    layout = RunLayout(run.run)
    assert gone == before - keys(made)
    assert lost in gone
    assert {key for key in gone if not key.startswith((f"{layout.prefix}attempts/", f"{layout.prefix}data/"))} == {
        layout.partial(0, "x"),
        layout.wave(1),
        f"{layout.plan_attempt('other')}shards-00000.parquet",
    }
    assert_sound(made)
    assert collect(made) == []


def test_gc_of_an_open_run_touches_nothing_of_it(made: MadeOutput, clock: FakeClock) -> None:
    made.finish(ABC)
    clock.advance(2 * DAY_S)
    held = made.claim()
    kind = made.plan(held, ["a", "b"])
    begin(made.writer, kind.layout, 0, "attempt", "worker")
    loser(made, held)
    before = keys(made, kind.layout.prefix)

    found = find_garbage(made.target, 1)
    sweep(made.target, found, lambda _: None)

    assert keys(made, kind.layout.prefix) == before
    assert "is open" in found.notes[0]


def test_gc_while_a_run_is_open_collects_no_run_and_no_index(made: MadeOutput, clock: FakeClock) -> None:
    made.finish(ABC)
    made.finish(ABC)
    clock.advance(2 * DAY_S)
    made.claim()
    index = keys(made, ".pagemill/index/")

    collect(made)

    assert superseded(made) == []
    assert keys(made, ".pagemill/index/") == index


def test_gc_superseded_run_loses_its_data_and_its_part_of_the_dataset(made: MadeOutput, clock: FakeClock) -> None:
    old, new = made.finish(ABC), made.finish(ABC)
    clock.advance(2 * DAY_S)

    assert superseded(made) == [old.run]
    collect(made)

    layout = RunLayout(old.run)
    assert keys(made, f"{layout.prefix}data/") == set()
    assert keys(made, "dataset/") == {f"dataset/run={new.entry.seq:08d}/part-00000.parquet"}
    assert {layout.plan_pointer, layout.success, layout.marker(0)} <= keys(made)
    assert ledger_of(made.target).read(1).entry.reason == COLLECTED
    assert_sound(made)
    assert collect(made) == []
    found = find_item(made.target, "a", "text")
    assert found is not None
    assert found.data == b"text of a\n"
    with pytest.raises(InvalidSpecError, match="newer runs hold all of it"):
        retry_request(made.writer, old.run)


def test_gc_run_younger_than_a_day_stays(made: MadeOutput, clock: FakeClock) -> None:
    made.finish(ABC)
    made.finish(ABC)
    clock.advance(DAY_S - 60)

    assert superseded(made) == []


@pytest.mark.parametrize(
    ("newer", "want"),
    [
        ({"a": SUCCEEDED, "b": SUCCEEDED}, False),
        ({"a": SUCCEEDED, "b": SUCCEEDED, "c": FAILED}, False),
        ({"a": SUCCEEDED, "b": SUCCEEDED, "c": SKIPPED}, False),
        ({"a": SUCCEEDED, "b": SUCCEEDED, "c": SUCCEEDED, "d": FAILED}, True),
    ],
    ids=["an-item-is-not-in-it", "an-item-failed-since", "an-item-was-skipped", "all-succeeded-again"],
)
def test_gc_run_is_superseded_only_when_all_it_gave_was_given_again(
    made: MadeOutput, clock: FakeClock, newer: dict[str, str], want: bool
) -> None:
    made.finish(ABC)
    made.finish(newer)
    clock.advance(2 * DAY_S)

    assert bool(superseded(made)) is want


def test_gc_failed_items_are_superseded_by_any_newer_outcome(made: MadeOutput, clock: FakeClock) -> None:
    old = made.finish({"a": SUCCEEDED, "b": FAILED})
    made.finish({"a": SUCCEEDED, "b": FAILED})
    clock.advance(2 * DAY_S)

    assert superseded(made) == [old.run]


def test_gc_newest_finished_run_of_each_work_stays_though_other_work_holds_it(
    made: MadeOutput, clock: FakeClock
) -> None:
    made.finish(ABC, work="one")
    made.finish(ABC, work="two")
    clock.advance(2 * DAY_S)

    assert superseded(made) == []


def test_gc_run_that_wrote_another_format_stays_because_its_views_need_it(made: MadeOutput, clock: FakeClock) -> None:
    made.finish(ABC, formats=("json", "text"))
    made.finish(ABC, formats=("json",))
    clock.advance(2 * DAY_S)

    assert superseded(made) == []


def test_gc_keeps_as_many_finished_runs_as_asked(made: MadeOutput, clock: FakeClock) -> None:
    first, second, _ = (made.finish(ABC) for _ in range(3))
    clock.advance(2 * DAY_S)

    assert superseded(made, keep=1) == [second.run, first.run]
    assert superseded(made, keep=2) == [first.run]
    assert superseded(made, keep=3) == []


def test_gc_given_up_run_keeps_everything_for_a_day_then_loses_its_leftovers(
    made: MadeOutput, clock: FakeClock
) -> None:
    held = made.claim()
    kind = made.plan(held, ["a", "b", "c"])
    made.commit(kind, 0, ABC)
    lost = loser(made, held, 1)
    made.end(held, "GivenUp", "TooManyFailures")

    assert collect(made) == []
    clock.advance(DAY_S + 60)
    gone = {each.key for each in collect(made)}

    assert lost in gone
    assert not any(key.startswith(f"{kind.layout.prefix}commit/") for key in gone)
    assert_sound(made)  # what its markers name is all there


def test_gc_given_up_run_without_a_finished_one_after_it_keeps_what_it_committed(
    made: MadeOutput, clock: FakeClock
) -> None:
    held = made.claim("one")
    made.commit(made.plan(held, ["a", "b"]), 0, ABC)
    made.end(held, "GivenUp", "TooManyFailures")
    made.finish(ABC, work="two")
    clock.advance(2 * DAY_S)

    assert superseded(made) == []


def test_gc_old_parts_of_the_index_go_and_the_shown_ones_stay(made: MadeOutput) -> None:
    old = made.finish({"a": SUCCEEDED})
    made.finish({"b": SUCCEEDED})

    gone = [each for each in collect(made) if each.why == "OldIndex"]

    assert [each.run for each in gone] == [old.run]
    assert_sound(made)


class DyingStore(MemoryStore):
    """Refuses every delete after the first `left`."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def delete(self, key: str) -> None:
        if not self.left:
            raise StoreUnavailableError("the store went away")
        self.left -= 1
        super().delete(key)


@pytest.mark.parametrize("left", range(11))
def test_gc_cut_short_anywhere_leaves_a_sound_output_and_the_next_one_finishes(clock: FakeClock, left: int) -> None:
    store = DyingStore(left)
    made = MadeOutput(store, clock)
    made.finish(ABC)
    made.finish(ABC)
    clock.advance(2 * DAY_S)
    with pytest.raises(StoreUnavailableError):
        collect(made)

    assert_sound(made)
    store.left = -1
    collect(made)

    assert_sound(made)
    assert keys(made, RunLayout(ledger_of(made.target).read(1).run).prefix + "data/") == set()
    assert collect(made) == []
