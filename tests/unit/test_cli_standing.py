"""What `status`, `runs` and `release` make of a ledger."""

from __future__ import annotations

import pytest

from pagemill_cli.local.run import this_process
from pagemill_cli.output.count import MarkerCount
from pagemill_cli.output.standing import Watcher, all_runs, ledger_of, open_run, release, run_named
from pagemill_cli.testing.made_runs import FAILED, SUCCEEDED, MadeOutput
from pagemill_core.errors import ObjectNotFoundError, OutputBusyError
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.work.ledger import EXPIRY_S, Held
from pagemill_core.work.records import Holder
from pagemill_core.work.tracker import Tracker

OUTCOMES = {"a": SUCCEEDED, "b": FAILED, "c": SUCCEEDED}
ELSEWHERE = Holder(host="another", boot_id="b", pid=7, started="1")
DEAD_HERE = this_process().model_copy(update={"boot_id": "an earlier boot"})


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def made(clock: FakeClock) -> MadeOutput:
    return MadeOutput(MemoryStore(), clock)


def change(made: MadeOutput, held: Held, **fields: object) -> None:
    assert ledger_of(made.target).change(held, **fields) is not None


def phase(made: MadeOutput) -> tuple[str, str]:
    standing = Watcher(made.target).look()
    return standing.phase, standing.reason


def test_status_of_a_finished_run_counts_what_it_did(made: MadeOutput) -> None:
    made.finish(OUTCOMES)

    standing = Watcher(made.target).look()

    assert (standing.phase, standing.reason) == ("Succeeded", "CompletedWithFailures")
    assert standing.as_json()["items"] == {"total": 3, "succeeded": 2, "failed": 1, "skipped": 0, "alreadyDone": 0}
    assert standing.as_json()["failedByClass"] == {"ImageMissing": 1}
    assert standing.as_json()["owner"] is None


def test_status_of_an_empty_output_says_that_it_holds_no_run(made: MadeOutput) -> None:
    with pytest.raises(ObjectNotFoundError, match="holds no run"):
        Watcher(made.target).look()


def test_status_follows_a_run_from_claim_to_commit(made: MadeOutput, clock: FakeClock) -> None:
    held = made.claim()
    assert phase(made) == ("Planning", "Planning")

    kind = made.plan(held, ["a", "b", "c", "d", "e"])
    assert phase(made) == ("Running", "ShardsCommitting")

    watcher = Watcher(made.target)
    outcomes = dict.fromkeys("abcde", SUCCEEDED)
    made.commit(kind, 0, outcomes)
    assert watcher.look().totals.items.succeeded == 2
    clock.advance(2)
    made.commit(kind, 1, outcomes)
    standing = watcher.look()
    assert (standing.totals.items.succeeded, standing.rate, standing.eta_s) == (4, 2.0, 0.5)

    made.commit(kind, 2, outcomes)
    assert phase(made) == ("Finalizing", "Finalizing")


def test_status_writes_nothing_where_the_tracker_would_fold(made: MadeOutput) -> None:
    held = made.claim()
    kind = made.plan(held, ["a", "b"])
    made.commit(kind, 0, dict.fromkeys("ab", SUCCEEDED))
    before = {info.key for info in made.store.list("")}

    totals = MarkerCount(made.writer, kind.layout, 1).poll()

    assert {info.key for info in made.store.list("")} == before
    assert totals == Tracker(made.writer, kind.layout, 1).poll()


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        ({"owner": "", "reason": "Interrupted"}, ("Suspended", "Interrupted")),
        ({"owner": "", "reason": "BudgetExceeded"}, ("Failed", "BudgetExceeded")),
        ({"holder": DEAD_HERE}, ("Suspended", "OwnerGone")),
        ({"state": "GivenUp", "reason": "TooManyFailures"}, ("Failed", "TooManyFailures")),
    ],
    ids=["interrupted", "over-budget", "process-died", "given-up"],
)
def test_status_of_a_run_nobody_works_on_says_why(
    made: MadeOutput, fields: dict[str, object], want: tuple[str, str]
) -> None:
    change(made, made.claim(), **fields)

    assert phase(made) == want


def test_runs_are_listed_newest_first(made: MadeOutput) -> None:
    runs = [made.finish({"a": SUCCEEDED}).run for _ in range(3)]

    assert [standing.run for standing in all_runs(made.target)] == runs[::-1]
    assert [standing.run for standing in all_runs(made.target, 2)] == runs[:0:-1]


def test_run_is_named_by_number_or_id(made: MadeOutput) -> None:
    first, second = made.finish({"a": SUCCEEDED}), made.finish({"a": SUCCEEDED})

    assert run_named(made.target, "").run == second.run
    assert run_named(made.target, "1").run == first.run
    assert run_named(made.target, first.run).run == first.run
    for unknown in ("3", "00000001-00000000", "x"):
        with pytest.raises(ObjectNotFoundError):
            run_named(made.target, unknown)


@pytest.mark.parametrize(
    "fields", [{"holder": DEAD_HERE}, {"owner": ""}], ids=["its-process-died-here", "it-was-let-go"]
)
def test_release_gives_up_a_run_nobody_works_on(made: MadeOutput, fields: dict[str, object]) -> None:
    change(made, made.claim(), **fields)
    found = open_run(made.target)
    assert found is not None

    assert release(made.target, found, force=False).entry.state == "GivenUp"
    assert open_run(made.target) is None


def test_release_of_a_run_seen_lately_elsewhere_needs_force(made: MadeOutput) -> None:
    change(made, made.claim(), holder=ELSEWHERE)
    found = open_run(made.target)
    assert found is not None

    with pytest.raises(OutputBusyError, match="was seen until"):
        release(made.target, found, force=False)
    assert release(made.target, found, force=True).entry.reason == "Released"


def test_release_of_a_run_not_seen_for_long_needs_no_force(made: MadeOutput, clock: FakeClock) -> None:
    change(made, made.claim(), holder=ELSEWHERE)
    clock.advance(EXPIRY_S + 1)
    found = open_run(made.target)
    assert found is not None

    assert release(made.target, found, force=False).entry.state == "GivenUp"


def test_release_never_takes_a_run_from_a_living_process_of_this_machine(made: MadeOutput) -> None:
    change(made, made.claim(), holder=this_process())
    found = open_run(made.target)
    assert found is not None

    with pytest.raises(OutputBusyError, match="of this machine is at work"):
        release(made.target, found, force=True)


def test_release_loses_to_an_owner_who_came_back(made: MadeOutput, clock: FakeClock) -> None:
    held = made.claim()
    clock.advance(EXPIRY_S + 1)
    found = open_run(made.target)
    assert found is not None
    change(made, held, beat=1)

    with pytest.raises(OutputBusyError, match="changed"):
        release(made.target, found, force=False)
