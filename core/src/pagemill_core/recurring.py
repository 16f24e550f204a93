"""Recurring runs: the CronJob of a series, and what its pod decides at each tick. One definition for whoever makes one.

Layer: the top of core, pure: no I/O, no clock. `pagemill schedule` writes `cron_job` to the cluster, the chart's
template says the same (a test compares them), and `pagemill-operator next-run` asks `next_tick` in the pod.

A series is a CronJob and the jobs that it made. Each job is named after the instant that it was due, so a tick that is
done twice is done once. All of them have the series' label and none has an owner: deleting the CronJob ends the
series, and leaves its jobs and their results.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pagemill_core.api.v1alpha1 import API_VERSION, Job
from pagemill_core.api.v1alpha1.types import OBJECT_NAME_PATTERN
from pagemill_core.clock import iso
from pagemill_core.errors import InvalidSpecError
from pagemill_core.ids import canonical_json
from pagemill_core.work.pod import FAIL_JOB_EXIT_CODES, GROUP, JOB_ANNOTATION, JOB_PATH

SERIES_LABEL: Final = f"{GROUP}/series"
SCHEDULED_AT_ANNOTATION: Final = f"{GROUP}/scheduled-at"
SERVICE_ACCOUNT: Final = "pagemill-recurring"
COMMAND: Final = ("pagemill-operator", "next-run")
CONTAINER: Final = "next-run"
# What the pod of a series does: list the series, create the next job, delete old finished ones.
RULES: Final = (
    {"apiGroups": [GROUP], "resources": ["ocrjobs", "embeddingjobs"], "verbs": ["list", "create", "delete"]},
)
# A job's name has at most 63 characters and the tick's instant takes 14 of them.
MAX_SERIES_CHARS: Final = 49
_JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
_FINISHED: Final = ("Succeeded", "Failed")
_LABELS: Final = {
    "app.kubernetes.io/name": "pagemill",
    "app.kubernetes.io/component": "recurring",
    "app.kubernetes.io/part-of": "pagemill",
}

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A series as it is asked for. `cron` is Kubernetes' syntax; `image` is the operator's."""

    name: str
    namespace: str
    job: Job
    cron: str
    image: str
    time_zone: str = "Etc/UTC"
    suspend: bool = False
    keep_succeeded: int = 3
    keep_failed: int = 3
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()


def cron_job(series: Series) -> Manifest:
    """The CronJob of a series. Raises: InvalidSpecError when the name or the job cannot recur."""
    check_name(series.name)
    labels = {**_LABELS, SERIES_LABEL: series.name}
    annotations = {JOB_ANNOTATION: canonical_json(template_of(series.job)).decode()}
    pod = {"metadata": {"labels": labels, "annotations": annotations}, "spec": _pod_spec(series)}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": series.name, "namespace": series.namespace, "labels": labels},
        "spec": {
            "schedule": series.cron,
            "timeZone": series.time_zone,
            "suspend": series.suspend,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 600,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {
                "metadata": {"labels": labels},
                "spec": {
                    "backoffLimit": 6,
                    "activeDeadlineSeconds": 600,
                    "podFailurePolicy": {"rules": _failure_rules()},
                    "template": pod,
                },
            },
        },
    }


def _failure_rules() -> list[Manifest]:
    """Disruptions cost nothing, and what trying again cannot cure ends the tick."""
    incurable = {"containerName": CONTAINER, "operator": "In", "values": list(FAIL_JOB_EXIT_CODES)}
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": incurable},
    ]


def access(namespace: str) -> tuple[Manifest, Manifest, Manifest]:
    """The service account of a namespace's series, and its Role and RoleBinding: what the chart makes."""
    metadata = {"name": SERVICE_ACCOUNT, "namespace": namespace, "labels": dict(_LABELS)}
    version = "rbac.authorization.k8s.io/v1"
    account: Manifest = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    role: Manifest = {
        "apiVersion": version,
        "kind": "Role",
        "metadata": metadata,
        "rules": [dict(one) for one in RULES],
    }
    binding: Manifest = {
        "apiVersion": version,
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": SERVICE_ACCOUNT},
        "subjects": [{"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": namespace}],
    }
    return {**account, "automountServiceAccountToken": False}, role, binding


def check_name(name: str) -> None:
    """Raises: InvalidSpecError when a series cannot be called so."""
    if not re.fullmatch(OBJECT_NAME_PATTERN, name) or len(name) > MAX_SERIES_CHARS:
        raise InvalidSpecError(
            f"a series cannot be called {name!r}",
            advice=f"use at most {MAX_SERIES_CHARS} of a-z, 0-9, - and ., with a letter or digit at both ends",
        )


def template_of(job: Job) -> Manifest:
    """What every job of a series is: the given one without its name, and incremental.

    Raises: InvalidSpecError for a job that cannot be done again and again.
    """
    if job.spec.incremental is False:
        raise InvalidSpecError(
            "spec.incremental: false would do everything again at each tick",
            advice="remove the field, or set it to true",
        )
    if job.spec.source.retry_of is not None:
        raise InvalidSpecError("spec.source.retryOf is one run's failures", advice="give a manifest or images instead")
    if job.spec.output.files == "Single":
        raise InvalidSpecError(
            "spec.output.files: recurring runs add files", advice="remove it, or set it to Partitioned"
        )
    given = job.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True, exclude={"status"})
    metadata = {name: given["metadata"][name] for name in ("annotations", "labels") if given["metadata"].get(name)}
    return {
        "apiVersion": API_VERSION,
        "kind": job.kind,
        "metadata": metadata,
        "spec": {**given["spec"], "incremental": True},
    }


def _pod_spec(series: Series) -> Manifest:
    spec: Manifest = {
        "serviceAccountName": SERVICE_ACCOUNT,
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(series)],
        "volumes": [_job_volume(), {"name": "tmp", "emptyDir": {"sizeLimit": "16Mi"}}],
    }
    if series.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in series.pull_secrets]
    return spec


def _container(series: Series) -> Manifest:
    return {
        "name": CONTAINER,
        "image": series.image,
        "imagePullPolicy": series.pull_policy,
        "command": list(COMMAND),
        "env": [
            {"name": "PAGEMILL_SERIES", "value": series.name},
            {"name": "PAGEMILL_KEEP_SUCCEEDED", "value": str(series.keep_succeeded)},
            {"name": "PAGEMILL_KEEP_FAILED", "value": str(series.keep_failed)},
            _from_field("PAGEMILL_NAMESPACE", "metadata.namespace"),
            _from_field("PAGEMILL_TRIGGER", f"metadata.labels['{_JOB_NAME_LABEL}']"),
        ],
        "resources": {
            "requests": {"cpu": "50m", "memory": "96Mi", "ephemeral-storage": "32Mi"},
            "limits": {"memory": "192Mi", "ephemeral-storage": "32Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "job", "mountPath": str(JOB_PATH.parent), "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        ],
    }


def _from_field(name: str, path: str) -> Manifest:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _job_volume() -> Manifest:
    item = {"path": JOB_PATH.name, "fieldRef": {"fieldPath": f"metadata.annotations['{JOB_ANNOTATION}']"}}
    return {"name": "job", "downwardAPI": {"items": [item]}}


# -- a tick -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Due:
    """Which job a tick is for. `at` is None for a tick that a person started by hand."""

    name: str
    at: dt.datetime | None


def due(series: str, trigger: str) -> Due:
    """Which job the Kubernetes Job `trigger` is to create.

    The CronJob controller names its Jobs `<series>-<minutes since 1970>`. Any other name is a person's
    (`kubectl create job --from=cronjob/…`) and becomes part of the job's name as it is.
    """
    found = re.fullmatch(rf"{re.escape(series)}-(\d{{7,9}})", trigger)
    if found is None:
        own = trigger.removeprefix(f"{series}-")
        return Due(f"{series}-{own}"[:63].rstrip("-."), None)
    at = dt.datetime.fromtimestamp(int(found[1]) * 60, dt.UTC)
    return Due(f"{series}-{at:%Y%m%d-%H%M}", at)


@dataclass(frozen=True, slots=True)
class Member:
    """A job of the series that exists."""

    name: str
    uid: str
    phase: str
    created_at: dt.datetime

    @property
    def is_finished(self) -> bool:
        return self.phase in _FINISHED


@dataclass(frozen=True, slots=True)
class Tick:
    """What to do: create `body` unless it is None, then delete `surplus`. `unfinished` names who is in the way."""

    due: Due
    body: Manifest | None
    unfinished: str
    surplus: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Keep:
    """How many finished jobs of a series stay, the newest of each outcome."""

    succeeded: int
    failed: int


def next_tick(series: str, trigger: str, template: Manifest, members: Sequence[Member], keep: Keep) -> Tick:
    """Decide a tick. The job is not created when it exists, nor while another one of the series is unfinished."""
    wanted = due(series, trigger)
    others = [member for member in members if member.name != wanted.name]
    unfinished = next((member.name for member in others if not member.is_finished), "")
    is_new = len(others) == len(members)
    body = _body(series, wanted, template) if is_new and not unfinished else None
    return Tick(wanted, body, unfinished if is_new else "", _surplus(others, keep))


def _body(series: str, wanted: Due, template: Manifest) -> Manifest:
    metadata = template.get("metadata") or {}
    annotations = dict(metadata.get("annotations") or {})
    if wanted.at is not None:
        annotations[SCHEDULED_AT_ANNOTATION] = iso(wanted.at)
    labels = {**(metadata.get("labels") or {}), SERIES_LABEL: series}
    return {**template, "metadata": {"name": wanted.name, "labels": labels, "annotations": annotations}}


def _surplus(members: Sequence[Member], keep: Keep) -> tuple[Member, ...]:
    newest_first = sorted(members, key=lambda member: (member.created_at, member.name), reverse=True)
    succeeded = [member for member in newest_first if member.phase == "Succeeded"]
    failed = [member for member in newest_first if member.phase == "Failed"]
    return (*succeeded[keep.succeeded :], *failed[keep.failed :])
