"""The words of a job's conditions: their types, in order, and every reason with what it means.

Layer: `core.api`. The operator and the command line use these constants and no others; docs/reference/api.md lists
them. The reason of a Pagemill error (`PagemillError.reason`) is always one of them.
"""

from __future__ import annotations

from enum import StrEnum


class ConditionType(StrEnum):
    """The types of conditions, in the order in which they stand in every status."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> ConditionType:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    ACCEPTED = "Accepted", "the spec can be run here: it is valid, allowed, and the store can be used"
    PLANNED = "Planned", "the items are counted and cut into shards; what the work is cannot change any more"
    PROGRESSING = "Progressing", "something is being done, or waited for, right now"
    COMPLETE = "Complete", "every item has its outcome and every result is written"
    FAILED = "Failed", "work has stopped before the end and will not go on by itself"
    SUSPENDED = "Suspended", "work is paused by its owner or its queue"


class Reason(StrEnum):
    """Why a condition is as it is. `meaning` says it in a sentence, with what to do where something is to be done."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Reason:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    # The way that all goes well.
    PENDING = "Pending", "not looked at yet"
    SPEC_VALID = "SpecValid", "the spec can be run"
    PLANNING = "Planning", "the plan Job lists the source and cuts it into shards"
    PLAN_COMMITTED = "PlanCommitted", "the plan is written; the message counts items and shards"
    SHARDS_COMMITTING = "ShardsCommitting", "workers are at work"
    FINALIZING = "Finalizing", "all shards are committed; merged files, index and report are being written"
    RUNNING = "Running", "neither complete nor failed yet"
    COMPLETED = "Completed", "every item succeeded or was found unchanged"
    COMPLETED_WITH_FAILURES = "CompletedWithFailures", "some items failed, within retries.maxFailedItems"
    NOTHING_TO_DO = "NothingToDo", "the source holds no item, or an earlier run has done them all"
    NOT_SUSPENDED = "NotSuspended", "work may go on"

    # Waiting: nothing is wrong.
    WAITING_FOR_DEPENDENCIES = "WaitingForDependencies", "the message names the jobs of dependsOn that are not complete"
    WAITING_FOR_PODS = (
        "WaitingForPods",
        "pods are asked for and not running yet; the message says what the cluster says",
    )
    QUEUED = "Queued", "the queue has not admitted the work yet"
    SUSPENDED_BY_USER = "SuspendedByUser", "spec.suspend is true, or parallelism is 0"
    SUSPENDED_BY_QUEUE = "SuspendedByQueue", "the queue has taken the work's place back; it goes on when admitted again"
    OUTPUT_BUSY = "OutputBusy", "another job works on this output now; the message names it and the way out"

    # The spec asks for what cannot be done here.
    INVALID_SPEC = "InvalidSpec", "the spec says something that cannot be done; the message names the field"
    ENDPOINT_NOT_ALLOWED = "EndpointNotAllowed", "the operator's settings do not allow this endpoint"
    OUTPUT_NOT_ALLOWED = "OutputNotAllowed", "the operator's settings do not allow this output to this namespace"
    OUTPUT_UNREACHABLE = "OutputUnreachable", "output.uri is no object store that the operator reaches"
    SECRET_NOT_ALLOWED = "SecretNotAllowed", "a Secret's name does not match the operator's secretNamePattern"
    SECRET_MISSING = "SecretMissing", "a Secret or a key of it does not exist in this namespace"
    POOL_UNKNOWN = "PoolUnknown", "the operator's settings have no such pool; the message lists them"
    IMAGE_UNKNOWN = "ImageUnknown", "the operator's settings name no worker image for this engine or loader"
    DEPENDENCY_CYCLE = "DependencyCycle", "jobs wait for each other; the message shows the circle"
    DEPENDENCY_FAILED = "DependencyFailed", "a job of dependsOn has failed"

    # Errors by their own names (core.errors).
    ACCESS_DENIED = "AccessDenied", "a right or a credential is missing; the message says what to grant"
    STORE_UNSUITABLE = "StoreUnsuitable", "the store lacks conditional writes, locks or links"
    CLUSTER_UNSUITABLE = (
        "ClusterUnsuitable",
        "the cluster does not know Pagemill's kinds; only the command line says so",
    )
    CLUSTER_UNAVAILABLE = "ClusterUnavailable", "the API server does not answer; only the command line says so"
    STORE_UNAVAILABLE = "StoreUnavailable", "the store does not answer; asked again with growing pauses"
    STORE_FULL = "StoreFull", "no space is left on the store; make room, and the work goes on"
    OBJECT_NOT_FOUND = "ObjectNotFound", "a bucket or an object that should be there is not"
    PRECONDITION_FAILED = "PreconditionFailed", "an object changed while it was being replaced; done again"
    THROTTLED = "Throttled", "the store or an API asks for fewer calls; done again later"
    ENGINE_TIMEOUT = "EngineTimeout", "a remote engine did not answer in time; asked again"
    OUTPUT_IN_USE = (
        "OutputInUse",
        "the output belongs to other work or another fingerprint; the message shows how it differs",
    )
    INTEGRITY = "Integrity", "a digest, a count or the plan does not match what was recorded"
    ENGINE_UNAVAILABLE = (
        "EngineUnavailable",
        "an engine, a language or a model is missing; the message says what is there",
    )
    SOURCE = "Source", "the manifest or listing cannot be planned; the message names the first bad line"
    TOO_MANY_FAILURES = "TooManyFailures", "more items failed than retries.maxFailedItems allows"
    BUDGET_EXCEEDED = "BudgetExceeded", "budget.maxCost is spent; raise it to go on"
    DEADLINE_EXCEEDED = "DeadlineExceeded", "deadlineSeconds have passed; raise it to go on"
    CANCELLED = "Cancelled", "somebody asked for the run to stop; what is committed stays"

    # The work itself ended badly.
    PLAN_FAILED = "PlanFailed", "the plan Job ended without a plan; the message has its last words"
    ENGINE_BROKEN = "EngineBroken", "most items failed alike, so the engine or its set-up is broken; mend it and go on"
    SHARDS_EXHAUSTED = "ShardsExhausted", "shards are missing after retries.waves waves; raise it to go on"
    WORKERS_FAILED = "WorkersFailed", "workers ended with an error that retrying cannot cure; the message has it"
    FINALIZE_FAILED = "FinalizeFailed", "the finalize Job ended early; committed data is safe and it is started again"
