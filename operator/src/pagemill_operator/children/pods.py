"""The pod template of all child Jobs: locked down, sized by its pool, with what the user may add and no more.

Layer: `operator.children`; pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from pagemill_core.api.quantities import quantity_bytes
from pagemill_core.api.v1alpha1 import Job, OcrJob, PodTemplate
from pagemill_core.work.pod import (
    API_KEY_PATH,
    CA_PATH,
    JOB_ANNOTATION,
    STEP_LABEL,
    STORE_SECRET_PATH,
    UID_LABEL,
    WORKER_COMMAND,
    PodStep,
    PodTask,
)
from pagemill_operator.children.job_json import job_json
from pagemill_operator.children.volumes import mounts_for
from pagemill_operator.cluster import JsonObject
from pagemill_operator.settings import Config, Pool, WorkerImage

CONTAINER = "worker"
# A pod that is moved for the nodes' sake loses its item at hand; the nodes can wait until it ends.
_STAY_PUT = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PodParts:
    """What a pod is made of. `labels` are ours; `memory_rung` doubles the memory that often, up to the pool's most."""

    job: Job
    task: PodTask
    config: Config
    pool: Pool
    image: WorkerImage
    labels: dict[str, str]
    memory_rung: int = 0


def pod_template(parts: PodParts) -> JsonObject:
    """The template of a Job's pods."""
    extra = parts.job.spec.workers.effective_template
    return {
        "metadata": {
            "labels": {**(extra.labels or {}), **parts.labels},
            "annotations": {**(extra.annotations or {}), **_STAY_PUT, JOB_ANNOTATION: job_json(parts.job)},
        },
        "spec": _pod_spec(parts, extra),
    }


def _pod_spec(parts: PodParts, extra: PodTemplate) -> JsonObject:
    config, pool = parts.config, parts.pool
    mounts = mounts_for(parts.job, pool, parts.image)
    spec: JsonObject = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": config.limits.grace_seconds,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{**_container(parts, extra), "volumeMounts": mounts.mounts}],
        "volumes": mounts.volumes,
        "nodeSelector": pool.node_selector,
        "tolerations": [*pool.tolerations, *(_dump(toleration) for toleration in extra.tolerations or ())],
        "affinity": _dump(extra.affinity) if extra.affinity else None,
        "topologySpreadConstraints": [
            {**_dump(spread), "labelSelector": {"matchLabels": _own(parts)}}
            for spread in extra.topology_spread_constraints or ()
        ],
        "imagePullSecrets": [
            {"name": name}
            for name in dict.fromkeys(
                [*config.images.pull_secrets, *(one.name for one in extra.image_pull_secrets or ())]
            )
        ],
        "serviceAccountName": config.worker_service_account,
        "runtimeClassName": pool.runtime_class,
        "priorityClassName": "" if _is_queued(parts.job) else parts.job.spec.workers.effective_priority_class,
    }
    return {name: value for name, value in spec.items() if value not in (None, "", [], {})}


def _own(parts: PodParts) -> dict[str, str]:
    return {name: parts.labels[name] for name in (UID_LABEL, STEP_LABEL)}


def _is_queued(job: Job) -> bool:
    return bool(job.spec.workers.effective_queue)


def _container(parts: PodParts, extra: PodTemplate) -> JsonObject:
    return {
        "name": CONTAINER,
        "image": parts.image.image,
        "imagePullPolicy": parts.config.images.pull_policy,
        "command": [WORKER_COMMAND],
        "args": [parts.task.step.value],
        "env": _environment(parts, extra),
        "resources": _resources(parts),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _environment(parts: PodParts, extra: PodTemplate) -> list[JsonObject]:
    """One entry a name: a second one would be an error of server-side apply. Ours win over the user's."""
    literal = {
        **{variable.name: variable.value for variable in extra.env or ()},
        **parts.image.environment,
        **_with_files(parts.job, parts.task).to_env(),
    }
    entries: dict[str, JsonObject] = {
        # $ is doubled, since Kubernetes would otherwise replace $(NAME) and $$ in a value.
        name: {"name": name, "value": value.replace("$", "$$")}
        for name, value in literal.items()
    }
    for name, path in (("PAGEMILL_POD_NAME", "metadata.name"), ("PAGEMILL_POD_UID", "metadata.uid")):
        entries[name] = {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
    limit = {"resourceFieldRef": {"containerName": CONTAINER, "resource": "limits.memory"}}
    entries["PAGEMILL_MEMORY_LIMIT_BYTES"] = {"name": "PAGEMILL_MEMORY_LIMIT_BYTES", "valueFrom": limit}
    return list(entries.values())


def _with_files(job: Job, task: PodTask) -> PodTask:
    """The task with the paths of the Secrets that are mounted."""
    storage = job.spec.effective_storage
    has_key = isinstance(job, OcrJob) and job.spec.effective_engine.api_key_secret_ref is not None
    return task.model_copy(
        update={
            "store_secret_path": STORE_SECRET_PATH if storage.secret_ref else None,
            "ca_path": CA_PATH if storage.ca_secret_ref else None,
            "api_key_path": API_KEY_PATH if has_key else None,
        }
    )


def _resources(parts: PodParts) -> JsonObject:
    """The pool's size, then the user's wishes, then the rung of the memory ladder, then the accelerator."""
    pool, wishes = parts.pool, parts.job.spec.workers.resources
    base = {"cpu": pool.cpu, "memory": pool.memory}
    requests = {**base, "ephemeral-storage": pool.ephemeral_storage}
    limits = dict(base)
    if wishes is not None:
        # A wish for one of the two holds for both, as Kubernetes has it for limits alone.
        requests.update({**(wishes.limits or {}), **(wishes.requests or {})})
        limits.update({**(wishes.requests or {}), **(wishes.limits or {})})
    memory = raised_memory(limits["memory"], parts.memory_rung, pool.max_memory_bytes)
    if memory != limits["memory"]:
        requests["memory"] = limits["memory"] = memory
    if pool.accelerator is not None and parts.task.step is PodStep.WORK:
        limits[pool.accelerator.resource] = requests[pool.accelerator.resource] = str(pool.accelerator.count)
    return {"requests": requests, "limits": limits}


def memory_limit(job: Job, pool: Pool) -> str:
    """The memory of a pod before any raise."""
    wishes = job.spec.workers.resources
    wished = {**(wishes.requests or {}), **(wishes.limits or {})} if wishes is not None else {}
    return str(wished.get("memory", pool.memory))


def raised_memory(memory: str, rung: int, most_bytes: int) -> str:
    """`memory` doubled `rung` times, at most `most_bytes`, never less than it was; unchanged text on rung 0."""
    start = quantity_bytes(memory)
    raised = max(start, min(start * 2**rung, most_bytes))
    return memory if raised == start else str(raised)


def _dump(part: object) -> JsonObject:
    dumped: JsonObject = part.model_dump(mode="json", by_alias=True, exclude_none=True)  # type: ignore[attr-defined]
    return dumped
