"""What is known of a job's progress: a view of the object store, never the truth itself.

Layer: `core.api`. Of constant size in the number of shards; `fit_status` keeps it within `MAX_STATUS_BYTES`.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from pagemill_core.api.v1alpha1.base import ApiModel
from pagemill_core.api.v1alpha1.types import Listed, LongText
from pagemill_core.ids import canonical_json

MAX_STATUS_BYTES = 32 * 1024
MAX_FAILURE_SAMPLES = 20
_SHORT_MESSAGE_CHARS = 160

Phase = Literal["Pending", "Waiting", "Queued", "Planning", "Running", "Suspended", "Finalizing", "Succeeded", "Failed"]
ConditionStatus = Literal["True", "False", "Unknown"]
Short = Annotated[str, Field(max_length=64)]
Line = Annotated[str, Field(max_length=256)]
Uri = Annotated[str, Field(max_length=1152)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Instant = Annotated[AwareDatetime, Field(strict=False)]


class Condition(ApiModel):
    """One observation of the job, as Kubernetes writes conditions."""

    type: Short = Field(description="What is observed: Accepted, Planned, Progressing, Complete, Failed, Suspended.")
    status: ConditionStatus = Field(description="True, False or Unknown.")
    reason: Short = Field(description="A CamelCase constant; docs/reference/api.md lists them.")
    message: LongText = Field(default="", description="What happened and what to do, for people.")
    observed_generation: Count = Field(default=0, description="The spec's generation that this is about.")
    last_transition_time: Instant | None = Field(default=None, description="When status last changed.")


class ItemCounts(ApiModel):
    """Items by outcome. `succeeded + failed + skipped` reaches `total` when all is done."""

    total: Count = Field(default=0, description="Items planned.")
    succeeded: Count = Field(default=0, description="Items with a result.")
    failed: Count = Field(default=0, description="Items that failed, each with a class and a message.")
    skipped: Count = Field(default=0, description="Items found unchanged.")
    already_done: Count = Field(default=0, description="Items left out because an earlier run has done them.")


class ShardCounts(ApiModel):
    """Shards by outcome."""

    total: Count = Field(default=0, description="Shards planned.")
    succeeded: Count = Field(default=0, description="Shards with a commit marker.")
    failed: Count = Field(default=0, description="Shards whose attempts have failed so far, or that were sealed.")


class Cost(ApiModel):
    """Money so far and in the end, as decimal strings."""

    spent: Short = Field(default="0", description="Spent so far: pod seconds times the pool's price, plus API calls.")
    estimated: Short | None = Field(default=None, description="Expected in the end.")
    currency: Short = Field(default="USD", description="Three capital letters.")


class FailureSample(ApiModel):
    """One failed item. All of them are in the store."""

    item: Annotated[str, Field(max_length=1024)] = Field(description="The item's id.")
    class_: Short = Field(alias="class", description="The error's class, such as ImageTruncated.")
    message: Annotated[str, Field(max_length=512)] = Field(default="", description="What went wrong.")


class Results(ApiModel):
    """Where the results are."""

    uri: Uri = Field(description="The output.")
    report: Uri | None = Field(default=None, description="The newest report.")


class ChildJob(ApiModel):
    """A Kubernetes Job that works for this job now or did last."""

    name: Short = Field(description="The Job's name.")
    kind: Literal["Plan", "Work", "Finalize"] = Field(description="What it does.")
    wave: Count | None = Field(default=None, description="The wave, for kind Work, from 1.")


class JobStatus(ApiModel):
    """What Pagemill says about the job."""

    observed_generation: Count | None = Field(default=None, description="The newest generation that was looked at.")
    phase: Phase | None = Field(default=None, description="One word for people; programs read the conditions.")
    message: LongText | None = Field(default=None, description="One line for people: what happens now, or what to do.")
    conditions: Annotated[tuple[Condition, ...], Listed(kind="map", map_key="type", max_length=8)] = Field(
        default=(), description="Observations, in fixed order."
    )
    run: Short | None = Field(default=None, description="The run on this output, such as 00000007-9c66e1f0.")
    work_key: Short | None = Field(default=None, description="Digest of what the work is.")
    planned_at: Instant | None = Field(
        default=None, description="When the plan was committed; from then on what the work is cannot change."
    )
    image: Line | None = Field(default=None, description="The worker image, by digest, that all waves of the run use.")
    items: ItemCounts | None = Field(default=None, description="Items by outcome.")
    shards: ShardCounts | None = Field(default=None, description="Shards by outcome.")
    done: Short | None = Field(default=None, description="Finished and planned items, such as 800012/1204331.")
    rate: Short | None = Field(default=None, description="Speed, such as 41.2/s.")
    eta: Short | None = Field(default=None, description="Time left, such as 2h44m.")
    cost: Cost | None = Field(default=None, description="Money so far and in the end.")
    replicas: Count | None = Field(default=None, description="Worker pods now; for kubectl scale and autoscalers.")
    selector: Line | None = Field(default=None, description="Label selector of the worker pods.")
    failures: Annotated[tuple[FailureSample, ...], Listed(max_length=MAX_FAILURE_SAMPLES)] = Field(
        default=(), description="Samples of failed items; all of them are in the store."
    )
    results: Results | None = Field(default=None, description="Where the results are.")
    jobs: Annotated[tuple[ChildJob, ...], Listed(kind="map", map_key="name", max_length=8)] = Field(
        default=(), description="The Kubernetes Jobs of this job."
    )
    start_time: Instant | None = Field(default=None, description="When work first started.")
    completion_time: Instant | None = Field(default=None, description="When the job ended.")

    def condition(self, kind: str) -> Condition | None:
        """The condition of this type, if it was ever set."""
        return next((condition for condition in self.conditions if condition.type == kind), None)

    def is_true(self, kind: str) -> bool:
        """Whether the condition of this type is set and True."""
        condition = self.condition(kind)
        return condition is not None and condition.status == "True"


def status_bytes(status: JobStatus) -> int:
    """The size of a status as canonical JSON."""
    return len(canonical_json(status.model_dump(mode="json", by_alias=True, exclude_none=True)))


def fit_status(status: JobStatus, max_bytes: int = MAX_STATUS_BYTES) -> JobStatus:
    """Make a status small enough: failure samples go first, from the last one on, then messages are cut.

    Without samples and with short messages every status that the model admits fits into `MAX_STATUS_BYTES`.
    """
    while status.failures and status_bytes(status) > max_bytes:
        status = status.model_copy(update={"failures": status.failures[:-1]})
    if status_bytes(status) <= max_bytes:
        return status
    conditions = tuple(
        condition.model_copy(update={"message": condition.message[:_SHORT_MESSAGE_CHARS]})
        for condition in status.conditions
    )
    line = None if status.message is None else status.message[:_SHORT_MESSAGE_CHARS]
    return status.model_copy(update={"conditions": conditions, "message": line})


def utc(instant: dt.datetime) -> dt.datetime:
    """An instant to the second in UTC, as Kubernetes writes times, so that an unchanged status stays unchanged."""
    return instant.astimezone(dt.UTC).replace(microsecond=0)
