"""Which run answers a request: adopt, resume, claim, take over, or wait."""

from __future__ import annotations

import random
from typing import Any

import pytest

from pagemill_core.errors import IntegrityError, OutputBusyError
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.testing.scripted_store import Answer, ScriptedStore
from pagemill_core.work import layout
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.ledger import EXPIRY_S, Held, Ledger, Owner, Standing, WorkRequest
from pagemill_core.work.records import Holder, RunEntry

A, B = "a" * 64, "b" * 64


class Output:
    """One output with as many machines looking at it as a test likes; each has a monotonic clock of its own."""

    def __init__(self) -> None:
        self.store = ScriptedStore(MemoryStore("out"))

    def ledger(self, owner: str, *, clock: FakeClock | None = None, **options: Any) -> Ledger:
        writer = Writer(self.store, clock or FakeClock(), random.Random(owner))
        return Ledger(writer, Owner(owner, f"job {owner}", **options))

    def entry(self, seq: int) -> RunEntry:
        key = layout.run_entry(seq)
        return RunEntry.from_bytes(self.store.inner.get(key).data, key)

    def commit_one(self, run: str) -> None:
        self.store.inner.put(RunLayout(run).marker(0), b"{}")

    def count(self) -> int:
        return len(list(self.store.inner.list(layout.RUNS_PREFIX)))


@pytest.fixture
def output() -> Output:
    return Output()


def request(work_key: str = A, **options: Any) -> WorkRequest:
    return WorkRequest(work_key, options.pop("kind", "OcrJob"), **options)


def finish(ledger: Ledger, held: Held, fingerprint: str = "f1") -> Held:
    return ledger.update(held, state="Finished", fingerprint=fingerprint)


# -- claiming and resuming --------------------------------------------------------------------------------------------


def test_adopt_new_output_claims_run_one(output: Output) -> None:
    adoption = output.ledger("u1").adopt(request())

    assert adoption.standing is Standing.CLAIMED
    assert adoption.held.run == f"00000001-{A[:8]}"
    entry = output.entry(1)
    assert (entry.state, entry.desired, entry.owner, entry.owner_name, entry.epoch) == (
        "Open",
        "Run",
        "u1",
        "job u1",
        1,
    )


@pytest.mark.parametrize("answer", [Answer.LOST, Answer.TOLD_EXISTS, Answer.REFUSED])
def test_adopt_claim_reply_lost_is_recognised_as_mine(output: Output, answer: Answer) -> None:
    output.store.script("put_if_absent", answer)

    adoption = output.ledger("u1").adopt(request())

    assert adoption.standing is Standing.CLAIMED
    assert output.count() == 1
    assert output.ledger("u1").renew(adoption.held, 1.0).entry.active_seconds == 1.0


def test_adopt_claim_reply_lost_then_changed_by_another_is_resumed(output: Output) -> None:
    """The entry names me, though the write is no longer mine: still mine."""
    output.store.script("put_if_absent", Answer.LOST)
    other = output.ledger("someone")
    paused: list[Held] = []

    def pause_before_retry(operation: str, _key: str) -> None:
        if operation == "put_if_absent" and output.count() == 1 and not paused:
            paused.append(other.request(1, desired="Pause"))

    output.store.before = pause_before_retry
    adoption = output.ledger("u1").adopt(request())

    assert adoption.standing is Standing.RESUMED
    assert adoption.held.entry.desired == "Pause"
    assert output.count() == 1


def test_adopt_open_run_of_mine_resumes_it_unchanged(output: Output) -> None:
    first = output.ledger("u1").adopt(request())

    again = output.ledger("u1").adopt(request())

    assert again.standing is Standing.RESUMED
    assert again.held == first.held


def test_adopt_open_run_of_same_work_by_another_is_busy_and_names_the_way_out(output: Output) -> None:
    output.ledger("u1").adopt(request())

    with pytest.raises(OutputBusyError, match="job u1") as caught:
        output.ledger("u2").adopt(request())

    assert "pagemill release" in caught.value.advice
    assert "onConflict" in caught.value.advice


def test_adopt_released_run_of_same_work_takes_it_over_in_a_new_epoch(output: Output) -> None:
    first = output.ledger("u1")
    first.update(first.adopt(request()).held, owner="", desired="Stop")

    adoption = output.ledger("u2").adopt(request())

    assert adoption.standing is Standing.RESUMED
    entry = adoption.held.entry
    assert (entry.owner, entry.epoch, entry.desired) == ("u2", 2, "Run")


def test_adopt_two_racing_for_a_released_run_one_gets_it(output: Output) -> None:
    first = output.ledger("u1")
    first.update(first.adopt(request()).held, owner="")
    rival = output.ledger("u3")

    def rival_first(operation: str, _key: str) -> None:
        if operation == "put_if_match":
            output.store.before = None
            rival.adopt(request())

    output.store.before = rival_first

    with pytest.raises(OutputBusyError, match="job u3"):
        output.ledger("u2").adopt(request())


def test_adopt_two_racing_for_a_new_output_one_claims_it(output: Output) -> None:
    rival = output.ledger("u3")

    def rival_first(operation: str, _key: str) -> None:
        if operation == "put_if_absent":
            output.store.before = None
            rival.adopt(request(B))

    output.store.before = rival_first

    with pytest.raises(OutputBusyError, match="job u3"):
        output.ledger("u2").adopt(request())
    assert output.count() == 1


# -- taking over ------------------------------------------------------------------------------------------------------


def test_adopt_run_unchanged_for_ten_minutes_on_my_own_clock_is_taken_over(output: Output) -> None:
    output.ledger("u1").adopt(request())
    clock = FakeClock()
    patient = output.ledger("u2", clock=clock)
    for _ in range(10):
        with pytest.raises(OutputBusyError):
            patient.adopt(request())
        clock.advance(EXPIRY_S / 10)

    assert patient.adopt(request()).held.entry.owner == "u2"


def test_adopt_renewed_run_is_never_taken_over(output: Output) -> None:
    owner, clock = output.ledger("u1"), FakeClock()
    held = owner.adopt(request()).held
    patient = output.ledger("u2", clock=clock)
    for _ in range(50):
        with pytest.raises(OutputBusyError):
            patient.adopt(request())
        held = owner.renew(held, 0.0)
        clock.advance(EXPIRY_S - 1)


def test_adopt_wall_clocks_hours_apart_change_nothing(output: Output) -> None:
    """Expiry is never judged by comparing two machines' clocks."""
    early, late = FakeClock(), FakeClock()
    early.jump_wall(-8 * 3600)
    late.jump_wall(+8 * 3600)
    output.ledger("u1", clock=early).adopt(request())

    with pytest.raises(OutputBusyError):
        output.ledger("u2", clock=late).adopt(request())


def test_adopt_first_look_after_a_long_wait_does_not_count_as_waiting(output: Output) -> None:
    output.ledger("u1").adopt(request())
    clock = FakeClock()
    clock.advance(10 * EXPIRY_S)

    with pytest.raises(OutputBusyError):
        output.ledger("u2", clock=clock).adopt(request())


def test_adopt_holder_seen_dead_on_this_machine_is_taken_over_at_once(output: Output) -> None:
    output.ledger("u1", holder=Holder(host="h", pid=7)).adopt(request())
    writer = Writer(output.store, FakeClock(), random.Random(2))
    watcher = Ledger(writer, Owner("u2"), is_gone=lambda holder: holder.pid == 7)

    assert watcher.adopt(request()).held.entry.owner == "u2"


def test_take_over_loser_learns_it_at_its_next_renewal_and_update(output: Output) -> None:
    loser = output.ledger("u1")
    held = loser.adopt(request()).held
    clock = FakeClock()
    winner = output.ledger("u2", clock=clock)
    with pytest.raises(OutputBusyError):
        winner.adopt(request())
    clock.advance(EXPIRY_S)
    winner.adopt(request())

    with pytest.raises(OutputBusyError, match="job u2"):
        loser.renew(held, 60.0)
    with pytest.raises(OutputBusyError):
        loser.update(held, state="Finished")
    assert output.entry(1).owner == "u2"
    assert output.entry(1).state == "Open"


@pytest.mark.parametrize("state", ["Open", "Sealing"])
def test_take_over_keeps_the_state_so_that_sealing_goes_on(output: Output, state: str) -> None:
    first = output.ledger("u1")
    first.update(first.adopt(request()).held, state=state, owner="")

    assert output.ledger("u2").adopt(request()).held.entry.state == state


# -- other work -------------------------------------------------------------------------------------------------------


def test_adopt_edited_spec_gives_up_my_own_open_run_and_claims_the_next(output: Output) -> None:
    owner = output.ledger("u1")
    first = owner.adopt(request(A))
    output.commit_one(first.held.run)

    second = owner.adopt(request(B))

    assert second.standing is Standing.CLAIMED
    assert second.held.entry.seq == 2
    assert (output.entry(1).state, output.entry(1).reason) == ("GivenUp", "Superseded")
    assert output.entry(1).finished_at


def test_adopt_edited_spec_while_sealing_gives_up_too(output: Output) -> None:
    owner = output.ledger("u1")
    owner.update(owner.adopt(request(A)).held, state="Sealing")

    assert owner.adopt(request(B)).held.entry.seq == 2
    assert output.entry(1).state == "GivenUp"


def test_adopt_other_work_owned_by_another_is_busy(output: Output) -> None:
    output.ledger("u1").adopt(request(A))

    with pytest.raises(OutputBusyError):
        output.ledger("u2").adopt(request(B))


def test_adopt_other_work_unowned_without_marker_is_given_up(output: Output) -> None:
    first = output.ledger("u1")
    first.update(first.adopt(request(A)).held, owner="")

    assert output.ledger("u2").adopt(request(B)).held.entry.seq == 2
    assert output.entry(1).state == "GivenUp"


def test_adopt_other_work_unowned_with_a_marker_is_busy(output: Output) -> None:
    first = output.ledger("u1")
    held = first.update(first.adopt(request(A)).held, owner="", owner_name="")
    output.commit_one(held.run)

    with pytest.raises(OutputBusyError, match="committed work"):
        output.ledger("u2").adopt(request(B))


def test_adopt_other_work_with_replace_gives_up_anything(output: Output) -> None:
    first = output.ledger("u1").adopt(request(A))
    output.commit_one(first.held.run)

    assert output.ledger("u2").adopt(request(B, replace=True)).held.entry.seq == 2
    assert output.entry(1).state == "GivenUp"


def test_adopt_run_released_by_hand_claims_the_next(output: Output) -> None:
    first = output.ledger("u1").adopt(request(A))
    output.commit_one(first.held.run)
    output.ledger("admin").request(1, state="GivenUp", reason="Released", owner="")

    assert output.ledger("u2").adopt(request(B)).held.entry.seq == 2


# -- finished work ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("owner", ["u1", "u2"])
def test_adopt_finished_work_is_complete_for_anyone(output: Output, owner: str) -> None:
    first = output.ledger("u1")
    finish(first, first.adopt(request()).held)

    adoption = output.ledger(owner).adopt(request())

    assert adoption.standing is Standing.COMPLETE
    assert adoption.held.entry.seq == 1
    assert output.count() == 1


def test_adopt_finished_incremental_work_a_hundred_times_by_its_owner_starts_no_run(output: Output) -> None:
    owner = output.ledger("u1")
    finish(owner, owner.adopt(request(incremental=True)).held)

    for _ in range(100):
        assert output.ledger("u1").adopt(request(incremental=True)).standing is Standing.COMPLETE

    assert output.count() == 1


def test_adopt_finished_incremental_work_by_another_claims_the_next_run(output: Output) -> None:
    first = output.ledger("u1")
    finish(first, first.adopt(request(incremental=True)).held)

    adoption = output.ledger("u2").adopt(request(incremental=True))

    assert (adoption.standing, adoption.held.entry.seq, adoption.predecessors) == (Standing.CLAIMED, 2, ())


def test_adopt_two_incremental_jobs_of_the_same_work_do_not_claim_in_turn(output: Output) -> None:
    first, second = output.ledger("u1"), output.ledger("u2")
    finish(first, first.adopt(request(incremental=True)).held)
    finish(second, second.adopt(request(incremental=True)).held)

    for _ in range(10):
        assert first.adopt(request(incremental=True)).standing is Standing.COMPLETE
        assert second.adopt(request(incremental=True)).standing is Standing.COMPLETE
    assert output.count() == 2


def test_adopt_repeated_pass_after_other_work_replaced_mine_starts_no_run(output: Output) -> None:
    first, other = output.ledger("u1"), output.ledger("u2")
    finish(first, first.adopt(request(A)).held, "f1")
    finish(other, other.adopt(request(B, replace=True)).held, "f2")

    assert output.ledger("u1").adopt(request(A)).standing is Standing.COMPLETE
    assert output.count() == 2


def test_adopt_edited_and_edited_back_to_another_fingerprint_is_new_work(output: Output) -> None:
    """What is shown is of the second fingerprint; to say Complete would be a lie. Its planner decides."""
    owner = output.ledger("u1")
    finish(owner, owner.adopt(request(A)).held, "f1")
    finish(owner, owner.adopt(request(B)).held, "f2")

    assert owner.adopt(request(A)).standing is Standing.CLAIMED


def test_adopt_edited_and_edited_back_before_the_edit_finished_is_still_complete(output: Output) -> None:
    owner = output.ledger("u1")
    finish(owner, owner.adopt(request(A, incremental=True)).held, "f1")
    owner.update(owner.adopt(request(B, incremental=True)).held, state="GivenUp", reason="OutputInUse")

    assert owner.adopt(request(A, incremental=True)).standing is Standing.COMPLETE


def test_adopt_looks_past_finished_work_of_the_same_fingerprint(output: Output) -> None:
    first, other = output.ledger("u1"), output.ledger("u2")
    finish(first, first.adopt(request(A)).held, "f1")
    finish(other, other.adopt(request(B)).held, "f1")

    assert output.ledger("u3").adopt(request(A)).held.entry.seq == 1


@pytest.mark.parametrize(
    ("fingerprint", "kind"), [("f2", "OcrJob"), ("f1", "EmbeddingJob")], ids=["other-fingerprint", "other-kind"]
)
def test_adopt_does_not_look_past_another_kind_or_fingerprint(output: Output, fingerprint: str, kind: str) -> None:
    first, other = output.ledger("u1"), output.ledger("u2")
    finish(first, first.adopt(request(A)).held, "f1")
    finish(other, other.adopt(request(B, kind=kind)).held, fingerprint)

    adoption = output.ledger("u3").adopt(request(A))

    assert (adoption.standing, adoption.held.entry.seq) == (Standing.CLAIMED, 3)


# -- given-up work ----------------------------------------------------------------------------------------------------


def test_adopt_given_up_work_claims_the_next_run_and_names_its_predecessors(output: Output) -> None:
    owner = output.ledger("u1")
    for _ in range(3):
        adoption = owner.adopt(request())
        owner.update(adoption.held, state="GivenUp", reason="TooManyFailures")

    adoption = owner.adopt(request())

    assert adoption.standing is Standing.CLAIMED
    # Each left out what those before it had done, so the newest alone would lose the work of the others.
    assert [entry.seq for entry in adoption.predecessors] == [3, 2, 1]


def test_adopt_resumed_run_still_knows_its_predecessors_past_other_work(output: Output) -> None:
    """A controller that restarts before the plan exists must subtract the same as the one before it."""
    owner = output.ledger("u1")
    owner.adopt(request(A))
    owner.adopt(request(B))
    claimed = owner.adopt(request(A))

    resumed = output.ledger("u1").adopt(request(A))

    assert resumed.standing is Standing.RESUMED
    assert resumed.predecessors == claimed.predecessors
    assert [entry.seq for entry in resumed.predecessors] == [1]


def test_adopt_predecessors_end_at_the_last_finished_run(output: Output) -> None:
    first, second = output.ledger("u1"), output.ledger("u2")
    first.update(first.adopt(request(incremental=True)).held, state="GivenUp")
    finish(first, first.adopt(request(incremental=True)).held)
    second.update(second.adopt(request(incremental=True)).held, state="GivenUp")

    adoption = second.adopt(request(incremental=True))

    assert [entry.seq for entry in adoption.predecessors] == [3]


def test_adopt_finished_then_incremental_given_up_is_not_complete(output: Output) -> None:
    first, second = output.ledger("u1"), output.ledger("u2")
    finish(first, first.adopt(request(incremental=True)).held)
    second.update(second.adopt(request(incremental=True)).held, state="GivenUp")

    assert output.ledger("u3").adopt(request(incremental=True)).standing is Standing.CLAIMED


# -- changing ---------------------------------------------------------------------------------------------------------


def test_renew_keeps_what_others_set_and_counts_each_second_once(output: Output) -> None:
    owner = output.ledger("u1")
    held = owner.adopt(request()).held
    output.ledger("cli").request(1, desired="Pause")

    renewed = owner.renew(held, 180.0)

    assert renewed.entry.desired == "Pause"
    assert renewed.entry.active_seconds == 180.0
    assert renewed.entry.beat == 1


def test_renew_reply_lost_and_then_changed_by_another_counts_once(output: Output) -> None:
    owner, other = output.ledger("u1"), output.ledger("cli")
    held = owner.adopt(request()).held
    output.store.script("put_if_match", Answer.LOST)

    def pause_before_retry(operation: str, _key: str) -> None:
        if operation == "put_if_match" and output.entry(1).beat == 1:
            output.store.before = None
            other.request(1, desired="Pause")

    output.store.before = pause_before_retry
    renewed = owner.renew(held, 180.0)

    assert (renewed.entry.beat, renewed.entry.active_seconds, renewed.entry.desired) == (1, 180.0, "Pause")


@pytest.mark.parametrize("answer", [Answer.LOST, Answer.TOLD_EXISTS, Answer.REFUSED])
def test_update_whatever_the_answer_happens_once(output: Output, answer: Answer) -> None:
    owner = output.ledger("u1")
    held = owner.adopt(request()).held
    output.store.script("put_if_match", answer)

    updated = owner.update(held, state="Finished")

    assert updated.entry.state == "Finished"
    assert output.entry(1) == updated.entry


def test_update_after_the_run_was_given_up_by_another_refuses(output: Output) -> None:
    owner = output.ledger("u1")
    held = owner.adopt(request()).held
    output.ledger("admin").request(1, state="GivenUp", reason="Released")

    with pytest.raises(OutputBusyError, match="GivenUp"):
        owner.update(held, state="Finished")
    with pytest.raises(OutputBusyError):
        owner.renew(held, 1.0)
    assert output.entry(1).state == "GivenUp"


@pytest.mark.parametrize("state", ["Finished", "GivenUp"])
def test_request_of_an_ended_run_changes_nothing(output: Output, state: str) -> None:
    owner = output.ledger("u1")
    owner.update(owner.adopt(request()).held, state=state)
    before = output.store.inner.get(layout.run_entry(1))

    assert output.ledger("cli").request(1, desired="Stop", state="GivenUp").entry.state == state
    assert output.store.inner.get(layout.run_entry(1)).token == before.token


def test_change_with_an_old_token_does_nothing(output: Output) -> None:
    owner = output.ledger("u1")
    held = owner.adopt(request()).held
    owner.renew(held, 1.0)

    assert owner.change(held, state="GivenUp") is None
    assert output.entry(1).state == "Open"


def test_read_of_a_run_that_is_not_there_says_so(output: Output) -> None:
    with pytest.raises(IntegrityError, match="no run 3"):
        output.ledger("u1").read(3)


def test_history_lists_runs_newest_first_and_ignores_foreign_files(output: Output) -> None:
    owner = output.ledger("u1")
    for key in (A, B, A):
        owner.adopt(request(key))
    output.store.inner.put(f"{layout.RUNS_PREFIX}notes.txt", b"hello")

    assert [held.entry.seq for held in owner.history()] == [3, 2, 1]


def test_adopt_cost_for_a_finished_job_is_two_requests(output: Output) -> None:
    owner = output.ledger("u1")
    finish(owner, owner.adopt(request()).held)
    output.store.calls.clear()

    output.ledger("u2").adopt(request())

    # Looking back re-reads nothing: ended entries never change.
    assert [operation for operation, _ in output.store.calls] == ["list", "get"]
