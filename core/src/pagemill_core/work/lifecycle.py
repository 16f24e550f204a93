"""What a run needs next, decided from what is seen: the one rule book of the operator and of `pagemill run`.

Layer: `core.work`; pure. Level-triggered: any call may be lost, repeated or late, and the next one decides afresh.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from pagemill_core.api.quantities import FailureLimit
from pagemill_core.work.records import Desired, RunState, Totals

JUDGE_AFTER_ITEMS = 100
BREAKER_FIRST_ITEMS = 1000
BREAKER_SHARE = 0.05
BREAKER_MIN = 20
FILTERED_CLASS = "FilteredByStage"
BREAKER_CLASS = "EngineFailed"


class Step(StrEnum):
    """What to do now."""

    PLAN = "Plan"
    START_WAVE = "StartWave"
    WAIT = "Wait"
    PAUSE = "Pause"
    START_SEALING = "StartSealing"  # compare-and-swap the entry to Sealing first: no wave starts after it
    SEAL = "Seal"
    FINALIZE = "Finalize"
    STOP = "Stop"  # publish what is committed, write a report, leave the run open
    GIVE_UP = "GiveUp"  # the same, and the run is final
    DONE = "Done"


@dataclass(frozen=True, slots=True)
class Decision:
    """A step, and for endings the reason constant and a sentence for people."""

    step: Step
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """A job's limits. None: no limit. `waves` counts the waves after the first."""

    waves: int = 3
    max_failed: FailureLimit | None = None
    max_cost: Decimal | None = None
    deadline_s: float | None = None

    def allowed_failures(self, planned: int) -> int:
        """How many of `planned` items may fail; all of them when no limit is set."""
        return planned if self.max_failed is None else self.max_failed.allowed(planned)


@dataclass(frozen=True, slots=True)
class Observed:
    """A run as seen now. `planned_items` is None before the plan; `wave` the newest wave, 0 before the first."""

    state: RunState
    desired: Desired
    planned_items: int | None
    totals: Totals
    wave: int = 0
    wave_is_over: bool = True
    spent: Decimal = Decimal(0)
    active_s: float = 0.0


def decide(seen: Observed, limits: Limits) -> Decision:
    """The next step. Ending rules come before working rules; a finished count comes before every limit."""
    if seen.state == "Finished":
        return Decision(Step.DONE, "Finished")
    if seen.state == "GivenUp":
        return Decision(Step.DONE, "GivenUp")
    if seen.planned_items is not None and seen.totals.shards_done == seen.totals.shards:
        return Decision(Step.FINALIZE)
    return _stopping(seen, limits) or _working(seen, limits)


def too_many_failures(totals: Totals, planned: int, limits: Limits) -> str:
    """Why a run has too many failures, "" when it has not. Also recomputes a finished run's verdict."""
    failed, judged = _failed(totals), totals.items.planned
    allowed = limits.allowed_failures(planned)
    if failed <= allowed or (judged < JUDGE_AFTER_ITEMS and judged < planned):
        return ""
    return f"{failed:,} of {planned:,} items failed, {allowed:,} may (retries.maxFailedItems)"


def _failed(totals: Totals) -> int:
    """Failed items, without those that a stage was asked to filter."""
    return totals.items.failed - totals.failure_classes.get(FILTERED_CLASS, 0)


def _broken_engine(totals: Totals) -> str:
    """The breaker: one and the same engine failure on more than 5 % of the first 1,000 items is no item's fault."""
    judged = totals.items.planned
    if judged > 2 * BREAKER_FIRST_ITEMS:  # a poll may see the second thousand before it could judge the first
        return ""
    for name, failed in totals.failure_classes.items():
        if name.startswith(BREAKER_CLASS) and failed > BREAKER_MIN and failed > BREAKER_SHARE * judged:
            return f"{failed:,} of the first {judged:,} items failed alike ({name}): the engine or its set-up is broken"
    return ""


def _stopping(seen: Observed, limits: Limits) -> Decision | None:
    if seen.desired == "Stop":
        return Decision(Step.STOP, "Cancelled", "cancelled; what is committed stays")
    if seen.desired == "Pause":
        return Decision(Step.PAUSE, "Suspended", "suspended; what is committed stays")
    if seen.planned_items is None:
        return None
    return _giving_up(seen, seen.planned_items, limits) or _over_a_limit(seen, limits)


def _giving_up(seen: Observed, planned: int, limits: Limits) -> Decision | None:
    if message := _broken_engine(seen.totals):
        return Decision(Step.GIVE_UP, "EngineBroken", message)
    if seen.state == "Open" and (message := too_many_failures(seen.totals, planned, limits)):
        return Decision(Step.GIVE_UP, "TooManyFailures", message)
    return None


def _over_a_limit(seen: Observed, limits: Limits) -> Decision | None:
    if limits.max_cost is not None and seen.spent >= limits.max_cost:
        return Decision(Step.STOP, "BudgetExceeded", f"spent {seen.spent:.4f} of a budget of {limits.max_cost}")
    if limits.deadline_s is not None and seen.active_s >= limits.deadline_s:
        return Decision(
            Step.STOP, "DeadlineExceeded", f"at work for {seen.active_s:.0f} s of {limits.deadline_s:.0f} s"
        )
    return None


def _working(seen: Observed, limits: Limits) -> Decision:
    if seen.planned_items is None:
        return Decision(Step.PLAN)
    if seen.state == "Sealing":
        return Decision(Step.SEAL)
    if not seen.wave_is_over:
        return Decision(Step.WAIT)
    if seen.wave <= limits.waves:
        return Decision(Step.START_WAVE)
    missing = seen.planned_items - seen.totals.items.planned
    if _failed(seen.totals) + missing <= limits.allowed_failures(seen.planned_items):
        return Decision(
            Step.START_SEALING, "ShardsAbandoned", f"{missing:,} items are in shards that failed in every wave"
        )
    shards = seen.totals.shards - seen.totals.shards_done
    return Decision(
        Step.STOP,
        "ShardsExhausted",
        f"{shards:,} shards with {missing:,} items failed in {seen.wave} waves; "
        "raise retries.waves to try again or retries.maxFailedItems to do without them",
    )
