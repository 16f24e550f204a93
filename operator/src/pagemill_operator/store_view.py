"""What a job's output says about its run, as one frozen picture: the input that reconciling reads.

Layer: the operator; pure. Pictures are taken by `store_desk`, in threads.
"""

from __future__ import annotations

from dataclasses import dataclass

from pagemill_core.api.conditions import Reason
from pagemill_core.errors import NonRetriableError, PagemillError
from pagemill_core.work.records import PlanPointer, RunEntry, Totals
from pagemill_core.work.usage import Spent

_REASONS = {reason.value: reason for reason in Reason}


def known_reason(text: str) -> Reason | None:
    """The constant of this name, None for a word that is none of ours."""
    return _REASONS.get(text)


@dataclass(frozen=True, slots=True)
class StoreProblem:
    """Why the store could not be asked or would not do what was wanted."""

    reason: Reason
    message: str
    is_final: bool

    @classmethod
    def of(cls, error: PagemillError) -> StoreProblem:
        """The problem for an error; its advice belongs to the message."""
        text = f"{error.message}; {error.advice}" if error.advice else error.message
        return cls(_REASONS[error.reason], text, isinstance(error, NonRetriableError))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreView:
    """A run as it was at `looked_s` (the operator's monotonic clock).

    `wave` is the newest wave, 0 before the first; `wave_shards` and `memory_rung` are of that wave. `active_s` includes
    the time since the entry was last renewed, of which `is_active` says whether it goes on. `rate` is in items a second
    over the last minutes, None while unknown.
    """

    run: str
    entry: RunEntry
    is_mine: bool
    looked_s: float
    plan: PlanPointer | None = None
    totals: Totals = Totals()
    spent: Spent = Spent()
    wave: int = 0
    wave_shards: int = 0
    memory_rung: int = 0
    has_success: bool = False
    active_s: float = 0.0
    is_active: bool = False
    rate: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSight:
    """All that is known of a job's output now. `is_busy` while something is being asked or done there.

    `view` is the last picture that could be taken, `problem` why the newest attempt failed (None: it did not).
    `asked_s` and `tried_s` are when the last attempt began and ended.
    """

    view: StoreView | None = None
    problem: StoreProblem | None = None
    is_busy: bool = False
    asked_s: float = 0.0
    tried_s: float | None = None
