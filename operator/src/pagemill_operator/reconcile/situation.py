"""Where a job stands, in the words of its status, with what to do about it.

Layer: `operator.reconcile`; pure. Each constructor is one row of the table "what the user sees"; `status` turns a
situation into the whole status.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pagemill_core.api.conditions import ConditionType, Reason
from pagemill_core.api.v1alpha1.status import ConditionStatus, Phase
from pagemill_operator.reconcile.plan import Action

T = ConditionType


@dataclass(frozen=True, slots=True)
class Said:
    """One condition's content."""

    status: ConditionStatus
    reason: Reason
    message: str = ""


_USUAL: Mapping[ConditionType, Said] = {
    T.ACCEPTED: Said("True", Reason.SPEC_VALID),
    T.PLANNED: Said("False", Reason.PENDING),
    T.PROGRESSING: Said("False", Reason.PENDING),
    T.COMPLETE: Said("False", Reason.RUNNING),
    T.FAILED: Said("False", Reason.RUNNING),
    T.SUSPENDED: Said("False", Reason.NOT_SUSPENDED),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """A phase, the conditions that are not as usual, one line for people, and what to do.

    Planned is filled in from the plan where it is not said here.
    """

    phase: Phase
    said: Mapping[ConditionType, Said] = field(default_factory=dict)
    message: str = ""
    actions: tuple[Action, ...] = ()
    again_in_s: float | None = None

    def condition(self, kind: ConditionType) -> Said:
        """What is said of this condition."""
        return self.said.get(kind, _USUAL[kind])

    def doing(self, *actions: Action, again_in_s: float | None = None) -> Situation:
        """This situation with more to do, and looked at again at the latest after `again_in_s`."""
        wishes = [wish for wish in (self.again_in_s, again_in_s) if wish is not None]
        return replace(self, actions=(*self.actions, *actions), again_in_s=min(wishes, default=None))

    @property
    def is_over(self) -> bool:
        """Whether nothing goes on by itself: complete, or failed."""
        return self.condition(T.COMPLETE).status == "True" or self.condition(T.FAILED).status == "True"


def not_accepted(reason: Reason, message: str, *, waits: bool = False) -> Situation:
    """The job cannot run here, or (`waits`) not yet."""
    return Situation(
        phase="Waiting" if waits else "Pending",
        said={T.ACCEPTED: Said("False", reason, message), T.PROGRESSING: Said("False", reason, message)},
        message=message,
    )


def pending(reason: Reason = Reason.PENDING, message: str = "") -> Situation:
    """Accepted by the settings, the output not asked yet."""
    return Situation(phase="Pending", said={T.PROGRESSING: Said("True", reason, message)}, message=message)


def waiting(reason: Reason, message: str) -> Situation:
    """Nothing is wrong; something else must happen first."""
    return Situation(phase="Waiting", said={T.PROGRESSING: Said("False", reason, message)}, message=message)


def suspended(message: str, *, by_queue: bool = False) -> Situation:
    """Paused by its owner, or by its queue after it had begun."""
    reason = Reason.SUSPENDED_BY_QUEUE if by_queue else Reason.SUSPENDED_BY_USER
    return Situation(
        phase="Suspended",
        said={T.SUSPENDED: Said("True", reason, message), T.PROGRESSING: Said("False", reason, message)},
        message=message,
    )


def queued(message: str) -> Situation:
    """The queue has not admitted the work yet."""
    said = {T.PROGRESSING: Said("False", Reason.QUEUED, message)}
    return Situation(phase="Queued", said=said, message=message)


def planning(message: str = "") -> Situation:
    """The plan Job is at work, or about to be."""
    said = Said("True", Reason.PLANNING, message)
    return Situation(
        phase="Planning", said={T.PLANNED: Said("False", Reason.PLANNING), T.PROGRESSING: said}, message=message
    )


def running(reason: Reason = Reason.SHARDS_COMMITTING, message: str = "") -> Situation:
    """Workers are at work, or their pods are on the way."""
    return Situation(phase="Running", said={T.PROGRESSING: Said("True", reason, message)}, message=message)


def finalizing(message: str = "") -> Situation:
    """Views, merged files and reports are being written."""
    said = {T.PROGRESSING: Said("True", Reason.FINALIZING, message)}
    return Situation(phase="Finalizing", said=said, message=message)


def blind(phase: Phase, reason: Reason, message: str) -> Situation:
    """The store does not answer: whatever was going on goes on, unseen."""
    return Situation(phase=phase, said={T.PROGRESSING: Said("Unknown", reason, message)}, message=message)


def unplanned(reason: Reason, message: str, *, is_final: bool) -> Situation:
    """Planning failed; `is_final`: until the spec is edited."""
    said = {T.PLANNED: Said("False", reason, message), T.PROGRESSING: Said("False", reason, message)}
    if is_final:
        said[T.FAILED] = Said("True", reason, message)
    return Situation(phase="Failed" if is_final else "Planning", said=said, message=message)


def failed(reason: Reason, message: str) -> Situation:
    """Work has stopped before the end."""
    said = {T.FAILED: Said("True", reason, message), T.PROGRESSING: Said("False", reason, message)}
    return Situation(phase="Failed", said=said, message=message)


def complete(reason: Reason, message: str) -> Situation:
    """Every item has its outcome."""
    said = {T.COMPLETE: Said("True", reason, message), T.PROGRESSING: Said("False", reason)}
    return Situation(phase="Succeeded", said=said, message=message)
