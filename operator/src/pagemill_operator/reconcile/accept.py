"""Whether a job may run here at all: what the schema cannot know, because it depends on this cluster's settings.

Layer: `operator.reconcile`; pure. A plain user who may create jobs must not gain more than that by any field.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from pagemill_core.api.conditions import Reason
from pagemill_core.api.v1alpha1 import Job, OcrJob
from pagemill_core.storage.open import is_local
from pagemill_core.work.pod import MAX_JOB_BYTES
from pagemill_operator.reconcile.observed import Observed, engine_of, image_of
from pagemill_operator.settings import Config, Pool

_ORDINARY_RESOURCES = ("cpu", "memory", "ephemeral-storage")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a job is not accepted, with what to do."""

    reason: Reason
    message: str


def refusal(seen: Observed) -> Refusal | None:
    """The first reason why this job cannot run here, None when it can."""
    job = seen.custom.job
    if job is None:
        return Refusal(Reason.INVALID_SPEC, seen.custom.problem)
    return next(_refusals(job, seen), None)


def _refusals(job: Job, seen: Observed) -> Iterator[Refusal]:
    config, namespace = seen.config, seen.custom.key.namespace
    pool = config.pool(job.spec.workers.pool)
    if pool is None:
        names = ", ".join(pool.name for pool in config.pools)
        yield Refusal(Reason.POOL_UNKNOWN, f"workers.pool {job.spec.workers.pool!r} is not there; pools are: {names}")
        return
    if image_of(job, config) is None:
        yield Refusal(
            Reason.IMAGE_UNKNOWN,
            f"no worker image serves {engine_of(job)!r}; there are: {_named_images(job, config) or 'none'}",
        )
    yield from _output(job, namespace, config)
    yield from _endpoints(job, config)
    yield from _secrets(job, seen)
    yield from _template(job, config)
    yield from _pods(job, pool, config)
    if seen.custom.job_bytes > MAX_JOB_BYTES:
        yield Refusal(Reason.INVALID_SPEC, f"the job has {seen.custom.job_bytes:,} bytes, {MAX_JOB_BYTES:,} may be")


def _named_images(job: Job, config: Config) -> str:
    table = config.images.engines if isinstance(job, OcrJob) else config.images.loaders
    return ", ".join(sorted(table))


def _output(job: Job, namespace: str, config: Config) -> Iterator[Refusal]:
    uri = job.spec.output.uri
    if "://" not in uri or is_local(uri):
        yield Refusal(
            Reason.OUTPUT_UNREACHABLE, f"output.uri {uri!r} is no object store; on a cluster write s3://bucket/prefix"
        )
        return
    patterns = (*config.outputs.get("*", ()), *config.outputs.get(namespace, ()))
    prefixes = [prefix.replace("{namespace}", namespace) for prefix in patterns]
    if not any(is_below(uri, prefix) for prefix in prefixes):
        allowed = ", ".join(sorted(prefixes)) or "nothing"
        yield Refusal(
            Reason.OUTPUT_NOT_ALLOWED,
            f"namespace {namespace} may not write to {uri}; it may write to: {allowed} (the operator's outputs)",
        )


def is_below(uri: str, prefix: str) -> bool:
    """Whether `uri` is `prefix` or lies below it, by whole path segments: s3://a/b is not below s3://a/bc."""
    return uri == prefix or uri.startswith(prefix if prefix.endswith("/") else f"{prefix}/")


def _endpoints(job: Job, config: Config) -> Iterator[Refusal]:
    named = {"storage.endpoint": job.spec.effective_storage.effective_endpoint}
    if isinstance(job, OcrJob):
        named["engine.endpoint"] = job.spec.effective_engine.endpoint or ""
    for field, endpoint in named.items():
        if endpoint and not any(_endpoint_matches(endpoint, allowed) for allowed in config.allowed_endpoints):
            known = ", ".join(config.allowed_endpoints) or "none"
            yield Refusal(
                Reason.ENDPOINT_NOT_ALLOWED,
                f"{field} {endpoint!r} is not allowed; allowed are: {known} (the operator's allowedEndpoints)",
            )


def _endpoint_matches(endpoint: str, allowed: str) -> bool:
    """Same scheme, host and port, and the path below: text alone would let a@b or a.b.evil through."""
    given, wanted = urlsplit(endpoint), urlsplit(allowed)
    if given.username is not None or given.password is not None or ".." in given.path.split("/"):
        return False
    same_host = (given.scheme, given.hostname, given.port) == (wanted.scheme, wanted.hostname, wanted.port)
    return same_host and is_below(given.path.rstrip("/") or "/", wanted.path.rstrip("/") or "/")


def _secrets(job: Job, seen: Observed) -> Iterator[Refusal]:
    pattern = seen.config.secret_name_pattern
    for field, name in secret_names(job).items():
        if name in seen.config.reserved_secrets:
            yield Refusal(Reason.SECRET_NOT_ALLOWED, f"{field} names {name!r}, which is the operator's own")
        elif not fnmatch.fnmatchcase(name, pattern):
            yield Refusal(
                Reason.SECRET_NOT_ALLOWED, f"{field} names {name!r}; names of Secrets for jobs match {pattern!r}"
            )
        elif name in seen.missing_secrets:
            yield Refusal(Reason.SECRET_MISSING, f"{field}: there is no Secret {name!r} in this namespace")


def _template(job: Job, config: Config) -> Iterator[Refusal]:
    """What the settings allow less of than the schema does."""
    for volume in job.spec.effective_storage.effective_volumes:
        if not fnmatch.fnmatchcase(volume.claim_name, config.claim_name_pattern):
            yield Refusal(
                Reason.INVALID_SPEC,
                f"storage.volumes names the claim {volume.claim_name!r}; names of claims for jobs match "
                f"{config.claim_name_pattern!r}",
            )
    for key in job.spec.workers.effective_template.labels or {}:
        if not any(fnmatch.fnmatchcase(key, pattern) for pattern in config.label_key_patterns):
            allowed = ", ".join(config.label_key_patterns) or "none"
            yield Refusal(
                Reason.INVALID_SPEC, f"workers.template.labels: {key!r} is not allowed to jobs here; allowed: {allowed}"
            )


def secret_names(job: Job) -> dict[str, str]:
    """The Secrets that a job refers to, by field."""
    storage, found = job.spec.effective_storage, {}
    if storage.secret_ref is not None:
        found["storage.secretRef"] = storage.secret_ref.name
    if storage.ca_secret_ref is not None:
        found["storage.caSecretRef"] = storage.ca_secret_ref.name
    if isinstance(job, OcrJob) and job.spec.effective_engine.api_key_secret_ref is not None:
        found["engine.apiKeySecretRef"] = job.spec.effective_engine.api_key_secret_ref.name
    for secret in job.spec.workers.effective_template.image_pull_secrets or ():
        found[f"workers.template.imagePullSecrets[{secret.name}]"] = secret.name
    return found


def _pods(job: Job, pool: Pool, config: Config) -> Iterator[Refusal]:
    workers = job.spec.workers
    if workers.parallelism > config.limits.max_parallelism:
        yield Refusal(
            Reason.INVALID_SPEC,
            f"workers.parallelism is {workers.parallelism}; here at most {config.limits.max_parallelism} is allowed",
        )
    allowed, priority = config.limits.allowed_priority_classes, workers.effective_priority_class
    if priority and (priority.startswith("system-") if allowed is None else priority not in allowed):
        yield Refusal(Reason.INVALID_SPEC, f"workers.priorityClass {priority!r} is not allowed to jobs here")
    accelerator = (pool.accelerator.resource,) if pool.accelerator else ()
    resources = workers.resources
    asked = {*((resources and resources.requests) or {}), *((resources and resources.limits) or {})}
    for name in sorted(asked.difference(_ORDINARY_RESOURCES, accelerator)):
        yield Refusal(Reason.INVALID_SPEC, f"workers.resources: pool {pool.name} does not offer {name}")
