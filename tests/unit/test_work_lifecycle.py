"""The rule book of a run: one table from what is seen to the next step."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from pagemill_core.api.quantities import FailureLimit
from pagemill_core.work.lifecycle import Decision, Limits, Observed, Step, decide, too_many_failures
from pagemill_core.work.records import Counts, Totals


def totals(done: int, shards: int, planned: int, failed: int = 0, classes: dict[str, int] | None = None) -> Totals:
    items = Counts(planned=planned, succeeded=planned - failed, failed=failed)
    return Totals(shards=shards, shards_done=done, items=items, failure_classes=classes or {})


def seen(**changes: Any) -> Observed:
    """Ten shards of ten items, half of them done, in the first wave."""
    fields: dict[str, Any] = {
        "state": "Open",
        "desired": "Run",
        "planned_items": 100,
        "totals": totals(5, 10, 50),
        "wave": 1,
        "wave_is_over": False,
    }
    return Observed(**{**fields, **changes})


COMPLETE = totals(10, 10, 100)
STUCK = {"wave": 4, "wave_is_over": True}
TIGHT = Limits(max_failed=FailureLimit(count=10))


@pytest.mark.parametrize(
    ("observed", "limits", "want_step", "want_reason"),
    [
        (seen(state="Finished"), Limits(), Step.DONE, "Finished"),
        (seen(state="GivenUp"), Limits(), Step.DONE, "GivenUp"),
        (seen(planned_items=None, totals=Totals()), Limits(), Step.PLAN, ""),
        (seen(planned_items=0, totals=Totals(), wave=0), Limits(), Step.FINALIZE, ""),
        (seen(wave=0, wave_is_over=True, totals=totals(0, 10, 0)), Limits(), Step.START_WAVE, ""),
        (seen(), Limits(), Step.WAIT, ""),
        (seen(wave_is_over=True), Limits(), Step.START_WAVE, ""),
        (seen(wave=3, wave_is_over=True), Limits(), Step.START_WAVE, ""),
        (seen(wave=1, wave_is_over=True), Limits(waves=0), Step.START_SEALING, "ShardsAbandoned"),
        (seen(**STUCK), Limits(), Step.START_SEALING, "ShardsAbandoned"),
        (seen(**STUCK), TIGHT, Step.STOP, "ShardsExhausted"),
        (seen(**STUCK), Limits(waves=4, max_failed=FailureLimit(count=10)), Step.START_WAVE, ""),
        (seen(**STUCK), Limits(max_failed=FailureLimit(count=50)), Step.START_SEALING, "ShardsAbandoned"),
        (seen(**STUCK), Limits(max_failed=FailureLimit(count=49)), Step.STOP, "ShardsExhausted"),
        (seen(state="Sealing", **STUCK), TIGHT, Step.SEAL, ""),
        (seen(state="Sealing", wave_is_over=False), Limits(), Step.SEAL, ""),
        (seen(state="Sealing", totals=COMPLETE), Limits(), Step.FINALIZE, ""),
        (seen(totals=COMPLETE), Limits(), Step.FINALIZE, ""),
        (seen(desired="Stop"), Limits(), Step.STOP, "Cancelled"),
        (seen(desired="Pause"), Limits(), Step.PAUSE, "Suspended"),
        (seen(desired="Pause", planned_items=None), Limits(), Step.PAUSE, "Suspended"),
        (seen(desired="Stop", totals=COMPLETE), Limits(), Step.FINALIZE, ""),
        (seen(spent=Decimal(5)), Limits(max_cost=Decimal(5)), Step.STOP, "BudgetExceeded"),
        (seen(spent=Decimal("4.99")), Limits(max_cost=Decimal(5)), Step.WAIT, ""),
        (seen(spent=Decimal(9), totals=COMPLETE), Limits(max_cost=Decimal(5)), Step.FINALIZE, ""),
        (seen(active_s=60.0), Limits(deadline_s=60.0), Step.STOP, "DeadlineExceeded"),
        (seen(active_s=59.0), Limits(deadline_s=60.0), Step.WAIT, ""),
        (seen(totals=totals(5, 10, 50, 11)), TIGHT, Step.WAIT, ""),
        (
            seen(planned_items=200, totals=totals(5, 10, 100, 11)),
            TIGHT,
            Step.GIVE_UP,
            "TooManyFailures",
        ),
        (seen(planned_items=200, totals=totals(5, 10, 100, 10)), TIGHT, Step.WAIT, ""),
        (seen(planned_items=200, totals=totals(10, 10, 200, 90)), TIGHT, Step.FINALIZE, ""),
        (
            seen(planned_items=200, state="Sealing", totals=totals(5, 10, 100, 11)),
            TIGHT,
            Step.SEAL,
            "",
        ),
    ],
    ids=lambda value: value.value if isinstance(value, Step) else None,
)
def test_decide_by_the_table(observed: Observed, limits: Limits, want_step: Step, want_reason: str) -> None:
    decision = decide(observed, limits)

    assert (decision.step, decision.reason) == (want_step, want_reason)


def broken(planned: int, failed: int, name: str = "EngineFailed:3f2a") -> Observed:
    counted = totals(5, 100, planned, failed, {name: failed})
    return seen(planned_items=100_000, totals=counted)


@pytest.mark.parametrize(
    ("observed", "want_step"),
    [
        (broken(100, 21), Step.GIVE_UP),
        (broken(100, 20), Step.WAIT),
        (broken(1000, 51), Step.GIVE_UP),
        (broken(1000, 50), Step.WAIT),
        (broken(1500, 60), Step.WAIT),
        (broken(1500, 76), Step.GIVE_UP),
        (broken(5000, 1000), Step.WAIT),
        (broken(1000, 900, "NotAnImage"), Step.WAIT),
    ],
    ids=[
        "many-of-few",
        "twenty-are-no-proof",
        "above-5-percent",
        "5-percent",
        "4-percent-of-1500",
        "above-5-percent-of-1500",
        "later-than-the-first-thousand",
        "items-of-the-user",
    ],
)
def test_decide_one_engine_failure_again_and_again_is_a_broken_engine(observed: Observed, want_step: Step) -> None:
    decision = decide(observed, Limits())

    assert decision.step is want_step
    assert (decision.reason == "EngineBroken") == (want_step is Step.GIVE_UP)


def test_decide_exhausted_says_what_to_raise() -> None:
    decision = decide(seen(**STUCK), TIGHT)

    assert decision == Decision(Step.STOP, "ShardsExhausted", decision.message)
    assert "5 shards with 50 items" in decision.message
    assert "retries.waves" in decision.message
    assert "retries.maxFailedItems" in decision.message


@pytest.mark.parametrize(
    ("failed", "limit", "want"),
    [
        (10, FailureLimit(count=10), False),
        (11, FailureLimit(count=10), True),
        (1, FailureLimit(count=0), True),
        (2, FailureLimit(percent=Decimal(1)), False),
        (3, FailureLimit(percent=Decimal(1)), True),
        (200, None, False),
    ],
)
def test_verdict_of_a_finished_run_follows_the_limit_of_today(
    failed: int, limit: FailureLimit | None, want: bool
) -> None:
    assert bool(too_many_failures(totals(10, 10, 200, failed), 200, Limits(max_failed=limit))) is want


def test_verdict_of_a_small_finished_run_is_judged_too() -> None:
    assert too_many_failures(totals(1, 1, 3, 2), 3, Limits(max_failed=FailureLimit(count=1))).startswith("2 of 3 items")


def test_items_that_a_stage_filtered_are_no_failures() -> None:
    found = totals(1, 1, 3, 2, {"FilteredByStage": 2})
    assert too_many_failures(found, 3, Limits(max_failed=FailureLimit(count=1))) == ""
    worse = totals(1, 1, 5, 4, {"FilteredByStage": 2, "NotAnImage": 2})
    assert too_many_failures(worse, 5, Limits(max_failed=FailureLimit(count=1))).startswith("2 of 5 items")
