"""What the command reads of a job on a cluster, and of its pods: small, typed, and forgiving of everything else.

Layer: `cli.cluster`; parsing only.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from pagemill_cli.cluster.api import JsonObject
from pagemill_core.api.v1alpha1 import JobStatus
from pagemill_core.work.pod import KIND_LABEL, STEP_LABEL, UID_LABEL, WAVE_LABEL

INDEX_LABEL = "batch.kubernetes.io/job-completion-index"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job as the cluster has it now. `note` says what of it this release cannot read."""

    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    suspend: bool
    parallelism: int
    queue: str
    output_uri: str
    is_deleting: bool
    status: JobStatus
    status_json: JsonObject = field(default_factory=dict)
    note: str = ""

    @property
    def is_current(self) -> bool:
        """Whether the status is about the spec as it is now."""
        return self.status.observed_generation == self.generation

    @property
    def words(self) -> str:
        """The job as an argument of a command, whatever namespace the context has."""
        return f"{self} -n {self.namespace}"

    def __str__(self) -> str:
        return f"{self.kind.lower()}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    """A worker pod. `index` is its completion index, -1 for plan and finalize pods."""

    name: str
    step: str
    wave: int
    index: int
    phase: str
    created_at: str
    has_started: bool
    trouble: str

    @property
    def is_over(self) -> bool:
        return self.phase in ("Succeeded", "Failed")


def read_job(body: JsonObject, kind: str) -> JobView:
    """The job in an answer of the API server."""
    metadata, spec, status_json = _part(body, "metadata"), _part(body, "spec"), _part(body, "status")
    workers = _part(spec, "workers")
    status, note = _status(status_json)
    return JobView(
        kind=kind,
        namespace=str(metadata.get("namespace") or ""),
        name=str(metadata.get("name") or ""),
        uid=str(metadata.get("uid") or ""),
        generation=int(metadata.get("generation") or 0),
        suspend=bool(spec.get("suspend")),
        parallelism=int(workers.get("parallelism", 1)),
        queue=str(workers.get("queue") or ""),
        output_uri=str(_part(spec, "output").get("uri") or ""),
        is_deleting="deletionTimestamp" in metadata,
        status=status,
        status_json=status_json,
        note=note,
    )


def _status(given: JsonObject) -> tuple[JobStatus, str]:
    try:
        return JobStatus.model_validate(given), ""
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        return JobStatus(), f"status.{where} is of another release than this command; `kubectl describe` shows it"


def read_pod(body: JsonObject) -> PodView:
    """A worker pod in an answer of the API server."""
    metadata, status = _part(body, "metadata"), _part(body, "status")
    labels, annotations = _part(metadata, "labels"), _part(metadata, "annotations")
    index = labels.get(INDEX_LABEL) or annotations.get(INDEX_LABEL) or "-1"
    states = [_part(one, "state") for one in status.get("containerStatuses") or ()]
    return PodView(
        name=str(metadata.get("name") or ""),
        step=str(labels.get(STEP_LABEL) or ""),
        wave=int(labels.get(WAVE_LABEL) or 0),
        index=int(index),
        phase=str(status.get("phase") or ""),
        created_at=str(metadata.get("creationTimestamp") or ""),
        has_started=any("running" in state or "terminated" in state for state in states),
        trouble=_trouble(status, states),
    )


def _trouble(status: JsonObject, states: list[JsonObject]) -> str:
    """Why a pod does not run, in the cluster's words, "" when it does or nothing is known."""
    for state in states:
        waiting = _part(state, "waiting")
        if waiting.get("reason"):
            return f"{waiting['reason']}: {waiting.get('message') or ''}".rstrip(": ")
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason') or ''}: {condition.get('message') or ''}".strip(": ")
    return ""


def pod_selector(job: JobView, step: str = "", wave: int = 0) -> str:
    """The label selector of a job's own pods."""
    wanted = {UID_LABEL: job.uid, KIND_LABEL: job.kind, STEP_LABEL: step, WAVE_LABEL: str(wave) if wave else ""}
    return ",".join(f"{name}={value}" for name, value in wanted.items() if value)


def age(instant: dt.datetime | None, now: dt.datetime) -> float | None:
    """Seconds since an instant."""
    return None if instant is None else max(0.0, (now - instant).total_seconds())


def _part(body: Any, name: str) -> JsonObject:
    part = body.get(name) if isinstance(body, dict) else None
    return part if isinstance(part, dict) else {}
