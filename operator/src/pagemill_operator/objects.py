"""Small typed views of what the API server sends: enough to decide on, and forgiving of everything else.

Layer: the operator's border, parsing only. The client's own models reject what an older or newer server leaves out.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from pagemill_core.api.problems import explain
from pagemill_core.api.v1alpha1 import KINDS, Job, JobStatus
from pagemill_core.api.workkey import work_key
from pagemill_core.work.pod import HASH_ANNOTATION, KIND_LABEL, STEP_LABEL, UID_LABEL, WAVE_LABEL, PodStep
from pagemill_operator.children.job_json import job_json
from pagemill_operator.cluster import JsonObject


class _View(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


class _OwnerReference(_View):
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class Metadata(_View):
    """What every object has."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: dt.datetime | None = None
    deletion_timestamp: dt.datetime | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: list[_OwnerReference] = []


class _Condition(_View):
    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: dt.datetime | None = None


class _JobSpec(_View):
    parallelism: int = 1
    completions: int = 1
    suspend: bool = False


class _JobStatus(_View):
    active: int = 0
    ready: int = 0
    terminating: int = 0
    succeeded: int = 0
    failed: int = 0
    completed_indexes: str = ""
    start_time: dt.datetime | None = None
    conditions: list[_Condition] = []


class _JobObject(_View):
    metadata: Metadata
    spec: _JobSpec = _JobSpec()
    status: _JobStatus = Field(default=_JobStatus())


@dataclass(frozen=True, slots=True)
class Key:
    """A job of ours, by kind, namespace and name: what the queue holds."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A child Job as last seen. `seen_s` is the operator's monotonic second at which it last changed."""

    name: str
    uid: str
    owner_uid: str
    step: PodStep
    wave: int
    epoch: int
    hash: str
    queue: str = ""
    parallelism: int
    completions: int
    suspend: bool
    active: int
    ready: int
    terminating: int
    has_started: bool
    has_completed_indexes: bool
    is_complete: bool
    is_failed: bool
    failed_reason: str
    failed_message: str
    finished_at: dt.datetime | None
    is_deleting: bool
    seen_s: float = 0.0

    @property
    def is_finished(self) -> bool:
        return self.is_complete or self.is_failed

    def same_as(self, other: Child) -> bool:
        """Whether nothing that matters differs but the time it was seen."""
        return replace(self, seen_s=0.0) == replace(other, seen_s=0.0)

    @property
    def has_pods(self) -> bool:
        return self.active > 0 or self.terminating > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Custom:
    """A job of ours as last seen. `job` is None when its spec is none that this release understands (`problem`).

    `job_bytes` is its size as its pods would get it.
    """

    key: Key
    uid: str
    generation: int
    resource_version: str
    created_at: dt.datetime | None
    is_deleting: bool
    job: Job | None
    problem: str
    work_key: str
    job_bytes: int
    status: JobStatus

    def like(self, other: Custom) -> bool:
        """Whether both are the same object with the same spec."""
        return (self.uid, self.generation, self.is_deleting) == (other.uid, other.generation, other.is_deleting)


QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
EPOCH_ANNOTATION = "pagemill.dev/epoch"  # of the ledger entry when this child was made; its pods obey no other


def key_of_child(body: JsonObject) -> Key | None:
    """The job that owns a child Job, None for a Job of somebody else."""
    metadata = Metadata.model_validate(body["metadata"])
    for owner in metadata.owner_references:
        if owner.kind in KINDS and owner.controller:
            return Key(owner.kind, metadata.namespace, owner.name)
    return None


def read_child(body: JsonObject, now_s: float) -> Child | None:
    """A child Job seen at `now_s`, None when its labels are not ours."""
    seen = _JobObject.model_validate(body)
    labels, status = seen.metadata.labels, seen.status
    if labels.get(STEP_LABEL) not in tuple(PodStep) or labels.get(KIND_LABEL) not in KINDS:
        return None
    failed = _true(status.conditions, "Failed")
    complete = _true(status.conditions, "Complete")
    ended = failed or complete
    return Child(
        name=seen.metadata.name,
        uid=seen.metadata.uid,
        owner_uid=labels.get(UID_LABEL, ""),
        step=PodStep(labels[STEP_LABEL]),
        wave=_number(labels.get(WAVE_LABEL)),
        epoch=_number(seen.metadata.annotations.get(EPOCH_ANNOTATION)),
        hash=seen.metadata.annotations.get(HASH_ANNOTATION, ""),
        queue=labels.get(QUEUE_LABEL, ""),
        parallelism=seen.spec.parallelism,
        completions=seen.spec.completions,
        suspend=seen.spec.suspend,
        active=status.active,
        ready=status.ready,
        terminating=status.terminating,
        has_started=status.start_time is not None,
        has_completed_indexes=bool(status.completed_indexes),
        is_complete=complete is not None,
        is_failed=failed is not None,
        failed_reason=failed.reason if failed else "",
        failed_message=failed.message if failed else "",
        finished_at=ended.last_transition_time if ended else None,
        is_deleting=seen.metadata.deletion_timestamp is not None,
        seen_s=now_s,
    )


def read_custom(body: JsonObject, known: Custom | None = None) -> Custom:
    """A job of ours. A spec that cannot be understood is no error here: its owner is told in the status.

    `known` is what was read of it before: of an unchanged spec nothing is read twice.
    """
    metadata = Metadata.model_validate(body["metadata"])
    if known is not None and (known.uid, known.generation) == (metadata.uid, metadata.generation):
        job, problem, key_of_work, size = known.job, known.problem, known.work_key, known.job_bytes
    else:
        job, problem = _read_spec(body)
        key_of_work = "" if job is None else work_key(job)
        size = 0 if job is None else len(job_json(job).encode())
    return Custom(
        key=Key(body["kind"], metadata.namespace, metadata.name),
        uid=metadata.uid,
        generation=metadata.generation,
        resource_version=metadata.resource_version,
        created_at=metadata.creation_timestamp,
        is_deleting=metadata.deletion_timestamp is not None,
        job=job,
        problem=problem,
        work_key=key_of_work,
        job_bytes=size,
        status=_read_status(body.get("status")),
    )


def _read_spec(body: JsonObject) -> tuple[Job | None, str]:
    """The job, or None and what is wrong with it."""
    model = KINDS[body["kind"]]
    try:
        return model.model_validate({name: value for name, value in body.items() if name != "status"}), ""
    except ValidationError as error:
        return None, "; ".join(f"{'.'.join(map(str, path))}: {text}" for path, text in explain(error, model))


def _read_status(given: Any) -> JobStatus:
    """Our own last status; one that another release wrote and this one cannot read counts as none."""
    try:
        return JobStatus.model_validate(given or {})
    except ValidationError:
        return JobStatus()


def _true(conditions: list[_Condition], kind: str) -> _Condition | None:
    return next((one for one in conditions if one.type == kind and one.status == "True"), None)


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0
