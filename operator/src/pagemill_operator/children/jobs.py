"""The three child Jobs: plan, a wave of work, finalize.

Layer: `operator.children`; pure. Once made, only parallelism and suspend of a Job change; everything else waits for
the next one.
"""

from __future__ import annotations

from dataclasses import dataclass

from pagemill_core.api.v1alpha1 import API_VERSION, Job
from pagemill_core.ids import digest
from pagemill_core.work.pod import (
    HASH_ANNOTATION,
    JOB_LABEL,
    KIND_LABEL,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    RUN_LABEL,
    STEP_LABEL,
    UID_LABEL,
    WAVE_LABEL,
    Ending,
    PodStep,
    PodTask,
)
from pagemill_core.work.waves import completions_for
from pagemill_operator.children import names
from pagemill_operator.children.pods import PodParts, memory_limit, pod_template, raised_memory
from pagemill_operator.children.policy import pod_failure_policy
from pagemill_operator.cluster import JsonObject
from pagemill_operator.objects import EPOCH_ANNOTATION, QUEUE_LABEL, Custom
from pagemill_operator.settings import Config, Pool, WorkerImage

QUEUE_PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
_SINGLE_BACKOFF = 4  # a plan or finalize pod that dies is started again; markers and pointers make that harmless


@dataclass(frozen=True, slots=True, kw_only=True)
class RunParts:
    """A run that Jobs are made for, and with what; `source_uri` is the output of the job that its source names."""

    custom: Custom
    job: Job
    config: Config
    image: WorkerImage
    run: str
    epoch: int
    source_uri: str = ""

    @property
    def pool(self) -> Pool:
        """The pool of the work. The job was accepted, so it is there."""
        pool = self.config.pool(self.job.spec.workers.pool)
        if pool is None:
            raise LookupError(self.job.spec.workers.pool)
        return pool

    @property
    def single_pool(self) -> Pool:
        """Where plan and finalize pods go: they need no accelerator, so the first pool without one serves."""
        if self.pool.accelerator is None:
            return self.pool
        return next((pool for pool in self.config.pools if pool.accelerator is None), self.pool)


def plan_job(parts: RunParts) -> JsonObject:
    """One pod that lists the source and cuts it into shards."""
    slots = max(1, parts.job.spec.workers.parallelism) * parts.pool.cores
    task = _task(parts, PodStep.PLAN, parts.single_pool).model_copy(update={"slots": slots})
    name = names.plan_name(parts.custom.key.name, parts.custom.uid, parts.run)
    return _job(parts, name, task, _single())


def finalize_job(parts: RunParts, ending: Ending, outcome: str = "", message: str = "") -> JsonObject:
    """One pod that ends the run, or this ownership of it."""
    told = {"ending": ending, "outcome": outcome, "outcome_message": message[:500]}
    task = _task(parts, PodStep.FINALIZE, parts.single_pool).model_copy(update=told)
    name = names.finalize_name(parts.custom.key.name, parts.custom.uid, parts.run, (parts.epoch, ending))
    return _job(parts, name, task, _single())


def wave_job(parts: RunParts, wave: int, shard_count: int, memory_rung: int) -> JsonObject:
    """Pods over the shards of a wave: few indexes with many shards each."""
    parallelism = max(1, parts.job.spec.workers.parallelism)
    completions = completions_for(shard_count, parallelism)
    told = {
        "wave": wave,
        "completions": completions,
        "memory_rung": memory_rung,
        "can_have_more_memory": _is_below_the_top(parts, wave, memory_rung),
    }
    task = _task(parts, PodStep.WORK, parts.pool).model_copy(update=told)
    name = names.wave_name(parts.custom.key.name, parts.custom.uid, parts.run, wave)
    spec: JsonObject = {
        "completionMode": "Indexed",
        "completions": completions,
        "parallelism": min(parallelism, completions),
        "backoffLimitPerIndex": parts.config.limits.backoff_per_index,
    }
    return _job(parts, name, task, spec, memory_rung)


def _is_below_the_top(parts: RunParts, wave: int, rung: int) -> bool:
    """Whether the next wave may come, and with more memory."""
    limit, most = memory_limit(parts.job, parts.pool), parts.pool.max_memory_bytes
    may_come = wave <= parts.job.spec.effective_retries.effective_waves
    return may_come and raised_memory(limit, rung + 1, most) != raised_memory(limit, rung, most)


def _single() -> JsonObject:
    return {"completions": 1, "parallelism": 1, "backoffLimit": _SINGLE_BACKOFF}


def _task(parts: RunParts, step: PodStep, pool: Pool) -> PodTask:
    config = parts.config
    return PodTask(
        step=step,
        run=parts.run,
        output_uri=parts.job.spec.output.uri,
        source_uri=parts.source_uri,
        has_accelerator=parts.pool.accelerator is not None,
        owner=parts.custom.uid,
        epoch=parts.epoch,
        pool=pool.name,
        price_per_hour=pool.price_per_hour,
        s3_endpoint=config.default_endpoint,
        s3_region=config.default_region,
        allowed_hosts=",".join(config.allowed_hosts),
    )


def _job(parts: RunParts, name: str, task: PodTask, spec: JsonObject, memory_rung: int = 0) -> JsonObject:
    labels = _labels(parts, task)
    pool = parts.pool if task.step is PodStep.WORK else parts.single_pool
    pod = PodParts(
        job=parts.job,
        task=task,
        config=parts.config,
        pool=pool,
        image=parts.image,
        labels=labels,
        memory_rung=memory_rung,
    )
    body = {
        **spec,
        # Suspended where a queue admits the work: from then on the field is the queue's.
        "suspend": bool(parts.job.spec.workers.effective_queue),
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": pod_failure_policy(),
        "ttlSecondsAfterFinished": parts.config.limits.child_ttl_seconds,
        "template": pod_template(pod),
    }
    key = parts.custom.key
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": key.namespace,
            "labels": {**labels, **_queue_labels(parts.job)},
            "annotations": {HASH_ANNOTATION: digest(body), EPOCH_ANNOTATION: str(parts.epoch)},
            "ownerReferences": [_owner(parts.custom)],
        },
        "spec": body,
    }


def _labels(parts: RunParts, task: PodTask) -> dict[str, str]:
    labels = {
        MANAGED_BY_LABEL: MANAGED_BY,
        JOB_LABEL: parts.custom.key.name,
        KIND_LABEL: parts.custom.key.kind,
        UID_LABEL: parts.custom.uid,
        STEP_LABEL: task.step.value,
        RUN_LABEL: parts.run,
    }
    return {**labels, WAVE_LABEL: str(task.wave)} if task.step is PodStep.WORK else labels


def _queue_labels(job: Job) -> dict[str, str]:
    """Kueue reads them from each Job; the job's own object is a kind it does not know."""
    queue, priority = job.spec.workers.effective_queue, job.spec.workers.effective_priority_class
    if not queue:
        return {}
    return {QUEUE_LABEL: queue, **({QUEUE_PRIORITY_LABEL: priority} if priority else {})}


def _owner(custom: Custom) -> JsonObject:
    return {
        "apiVersion": API_VERSION,
        "kind": custom.key.kind,
        "name": custom.key.name,
        "uid": custom.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
