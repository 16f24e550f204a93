"""A child Job that failed: what its owner is told, and when it is tried again.

Layer: `operator.reconcile`; pure. Level-triggered without counters: a failed Job stands in the way until what would be
made now differs from it (the spec or the settings were edited), or until its time to be tried again has come.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pagemill_core.api.conditions import Reason
from pagemill_core.work.pod import HASH_ANNOTATION, PodStep
from pagemill_operator.cluster import JsonObject
from pagemill_operator.objects import Child
from pagemill_operator.reconcile import situation as say
from pagemill_operator.reconcile.observed import Observed
from pagemill_operator.reconcile.plan import DeleteJob
from pagemill_operator.reconcile.situation import Situation
from pagemill_operator.store_view import known_reason

POD_FAILURE_POLICY = "PodFailurePolicy"  # the reason of a Job that ended by an exit code no retry can cure
_DEFAULTS = {
    PodStep.PLAN: Reason.PLAN_FAILED,
    PodStep.WORK: Reason.WORKERS_FAILED,
    PodStep.FINALIZE: Reason.FINALIZE_FAILED,
}
# What may be put right without an edit of the job: rights granted, a bucket or a manifest made, a server repaired.
CURABLE = frozenset(
    {
        Reason.ACCESS_DENIED,
        Reason.STORE_UNAVAILABLE,
        Reason.STORE_UNSUITABLE,
        Reason.OBJECT_NOT_FOUND,
        Reason.PRECONDITION_FAILED,
        Reason.THROTTLED,
        Reason.ENGINE_TIMEOUT,
        Reason.OUTPUT_BUSY,
    }
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a child failed, for its owner; `is_final` when only an edit helps."""

    reason: Reason
    message: str
    is_final: bool


def verdict_on(seen: Observed, child: Child) -> Verdict:
    """What the failed child's pods said last, else what Kubernetes says."""
    words = seen.last_words.get(child.uid)
    default = _DEFAULTS[child.step]
    if words is None:
        return Verdict(default, child.failed_message or child.failed_reason, child.failed_reason == POD_FAILURE_POLICY)
    reason = known_reason(words.reason) or default
    message = f"{words.message}; {words.advice}" if words.advice else words.message
    is_final = child.failed_reason == POD_FAILURE_POLICY and reason not in CURABLE
    return Verdict(reason, message, is_final)


def failed_child(seen: Observed, child: Child, wanted: Callable[[], JsonObject]) -> Situation:
    """Tell why `child` failed; take it away when it is time to try `wanted`, what would be made now, in its place."""
    verdict = verdict_on(seen, child)
    is_edited = wanted()["metadata"]["annotations"][HASH_ANNOTATION] != child.hash
    # What was edited is not told as failed for even a moment: somebody may be waiting for the end of the edited job.
    found = _try_again(child) if is_edited else _tell(child, verdict)
    if child.is_deleting:
        return found
    wait_s = child.seen_s + seen.config.limits.retry_failed_after_s - seen.now_s
    if is_edited or (not verdict.is_final and wait_s <= 0):
        return found.doing(DeleteJob(child.name, child.uid))
    return found if verdict.is_final else found.doing(again_in_s=wait_s)


def _try_again(child: Child) -> Situation:
    tell = {PodStep.PLAN: say.planning, PodStep.FINALIZE: say.finalizing}.get(child.step)
    words = "edited since it failed; tried again"
    return say.running(message=words) if tell is None else tell(words)


def _tell(child: Child, verdict: Verdict) -> Situation:
    if child.step is PodStep.PLAN:
        return say.unplanned(verdict.reason, verdict.message, is_final=verdict.is_final)
    if verdict.is_final:
        return say.failed(verdict.reason, verdict.message)
    tell = say.finalizing if child.step is PodStep.FINALIZE else say.running
    return tell(message=f"{verdict.reason}: {verdict.message}; tried again later")
