"""Whether a job on a cluster has come to rest, with which exit status, and what its owner does next.

Layer: `cli.cluster`; pure. The conditions decide, never the phase, which is a word for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pagemill_cli.cluster.views import JobView
from pagemill_core import errors
from pagemill_core.api.conditions import ConditionType, Reason
from pagemill_core.errors import InvalidSpecError, PagemillError

EXIT_STOPPED: Final = 75
_OWN_CODES: Final[Mapping[str, int]] = {Reason.ENGINE_BROKEN: 69, Reason.CANCELLED: 130}
_WAITS: Final = frozenset(
    {
        Reason.STORE_UNAVAILABLE,
        Reason.STORE_FULL,
        Reason.THROTTLED,
        Reason.OUTPUT_BUSY,
        Reason.OBJECT_NOT_FOUND,
        Reason.WAITING_FOR_DEPENDENCIES,
        Reason.PENDING,
    }
)
"""Reasons of Accepted=False that pass by themselves, or that others than the job's owner mend."""


def _codes() -> dict[str, int]:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PagemillError)]
    return {kind("").reason: kind.exit_code for kind in kinds}


EXIT_BY_REASON: Final[Mapping[str, int]] = {**_codes(), **_OWN_CODES}


@dataclass(frozen=True, slots=True)
class Ending:
    """A job that will not change unless somebody does something. `reason` is "" when all is well."""

    exit_status: int
    reason: str = ""
    message: str = ""


def ending_of(job: JobView) -> Ending | None:
    """How the job has come to rest, None while it is on its way, or while its newest spec was not looked at yet."""
    if not job.is_current:
        return None
    for kind in (ConditionType.FAILED, ConditionType.COMPLETE, ConditionType.SUSPENDED, ConditionType.ACCEPTED):
        condition = job.status.condition(kind)
        if condition is None:
            continue
        is_true, reason, message = condition.status == "True", condition.reason, condition.message
        if kind is ConditionType.FAILED and is_true:
            return Ending(EXIT_BY_REASON.get(reason, EXIT_STOPPED), reason, message)
        if kind is ConditionType.COMPLETE and is_true:
            return Ending(0)
        if kind is ConditionType.SUSPENDED and is_true and reason == Reason.SUSPENDED_BY_USER:
            return Ending(EXIT_STOPPED, reason, message)
        if kind is ConditionType.ACCEPTED and condition.status == "False" and reason not in _WAITS:
            return Ending(EXIT_BY_REASON.get(reason, InvalidSpecError.exit_code), reason, message)
    return None


def next_steps(job: JobView) -> list[str]:
    """What to type or to do now, most useful first; commands stand in backticks."""
    if job.is_deleting:
        return ["the job is being deleted; `pagemill submit` takes it up again later"]
    if job.status.observed_generation is None:
        return [
            "no operator has looked at the job yet: is it running, and does it watch this namespace? "
            "`kubectl get pods --all-namespaces -l app.kubernetes.io/name=pagemill`"
        ]
    if not job.is_current:
        return ["the newest edit was not looked at yet"]
    ended = ending_of(job)
    if ended is None:
        return _under_way(job)
    if ended.exit_status == 0:
        return _complete(job)
    return _stopped(job, ended.reason)


def _under_way(job: JobView) -> list[str]:
    steps = [f"`pagemill logs {job.words} -f`", f"`pagemill suspend {job.words}`"]
    if job.status.phase == "Queued":
        steps.insert(0, f"`kubectl get workloads -n {job.namespace}` says why queue {job.queue} keeps it waiting")
    return steps


def _complete(job: JobView) -> list[str]:
    failed = job.status.items.failed if job.status.items else 0
    steps = [f"`pagemill verify {job.output_uri}`"]
    if failed and job.status.run:
        steps.insert(0, f"try the failed items again: a job with source: {{retryOf: {{run: {job.status.run}}}}}")
    return steps


def _stopped(job: JobView, reason: str) -> list[str]:
    if reason == Reason.SUSPENDED_BY_USER:
        if job.suspend:
            return [f"`pagemill resume {job.words}`"]
        return [f"`kubectl scale {job.words} --replicas=4`"]
    if reason in _ADVICE:
        return [_ADVICE[reason].format(job=job.words, namespace=job.namespace, output=job.output_uri)]
    return ["mend what the message names, then `pagemill submit` the file again: finished pages are kept"]


_ADVICE: Final[Mapping[str, str]] = {
    Reason.BUDGET_EXCEEDED: "raise spec.budget.maxCost and `pagemill submit` the file again: it goes on",
    Reason.DEADLINE_EXCEEDED: "raise spec.deadlineSeconds and `pagemill submit` the file again: it goes on",
    Reason.TOO_MANY_FAILURES: "look at the classes (`pagemill status {output}`), mend the source or the engine, "
    "or raise spec.retries.maxFailedItems",
    Reason.SHARDS_EXHAUSTED: "find out why (`pagemill logs {job}`), then raise spec.retries.waves",
    Reason.ENGINE_BROKEN: "find out why (`pagemill logs {job}`); the worker image or the engine's options are broken",
    Reason.OUTPUT_IN_USE: "give the job another output.uri, or set output.onConflict: Replace",
    Reason.ENDPOINT_NOT_ALLOWED: "ask who runs the operator to add the endpoint to its allowedEndpoints",
    Reason.OUTPUT_NOT_ALLOWED: "write where the message says, or ask who runs the operator to extend its outputs",
    Reason.SECRET_NOT_ALLOWED: "give the Secret a name that the message allows",
    Reason.SECRET_MISSING: "create the Secret in namespace {namespace}; the job then goes on by itself",
    Reason.POOL_UNKNOWN: "choose one of the pools that the message lists",
    Reason.IMAGE_UNKNOWN: "choose an engine that the message lists, or ask who runs the operator for its image",
    Reason.PLAN_FAILED: "`pagemill logs {job} --step plan`",
    Reason.WORKERS_FAILED: "`pagemill logs {job} --step work`",
    Reason.FINALIZE_FAILED: "`pagemill logs {job} --step finalize`",
}
