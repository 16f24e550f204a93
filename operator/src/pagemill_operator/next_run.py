"""The program of a recurring run's pod: creates the next job of its series, once, and deletes old finished ones.

Layer: the operator package's, beside `main` and started by it; shares the door to the API server, and nothing else of
the operator. What to do is decided by `pagemill_core.recurring`.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from pagemill_core.errors import (
    AccessDeniedError,
    ClusterUnavailableError,
    ClusterUnsuitableError,
    InvalidSpecError,
    PagemillError,
)
from pagemill_core.recurring import SERIES_LABEL, Keep, Member, Tick, next_tick
from pagemill_core.work.pod import JOB_PATH
from pagemill_operator.cluster import PLURALS, Address, ApiError, Cluster, JsonObject

log = logging.getLogger("pagemill.next-run")


class NextRunSettings(BaseSettings):
    """Settings of the pod, read from the environment with the prefix PAGEMILL_; `pagemill_core.recurring` sets them."""

    model_config = SettingsConfigDict(env_prefix="PAGEMILL_", frozen=True, extra="ignore")

    series: str = Field(min_length=1, description="the series' name, which is the CronJob's")
    namespace: str = Field(min_length=1, description="the namespace of the series and of its jobs")
    trigger: str = Field(min_length=1, description="the name of the Kubernetes Job that this pod belongs to")
    keep_succeeded: int = Field(default=3, ge=0, description="finished jobs that stay: the newest that succeeded")
    keep_failed: int = Field(default=3, ge=0, description="finished jobs that stay: the newest that failed")
    job_path: Path = Field(default=JOB_PATH, description="the template: a job as JSON, without name")


def read_template(path: Path) -> JsonObject:
    """The series' template. Raises: InvalidSpecError when the file holds none."""
    try:
        template = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidSpecError(f"{path} holds no job: {error}", advice="make the CronJob anew") from error
    if not isinstance(template, dict) or template.get("kind") not in PLURALS:
        raise InvalidSpecError(f"{path} holds no {' or '.join(PLURALS)}", advice="make the CronJob anew")
    return template


async def run(settings: NextRunSettings, template: JsonObject, cluster: Cluster) -> None:
    """Do one tick. Doing it again, or twice at once, changes nothing more. Raises: PagemillError."""
    try:
        members = [one async for one in _members(settings, template, cluster)]
        keep = Keep(settings.keep_succeeded, settings.keep_failed)
        tick = next_tick(settings.series, settings.trigger, template, members, keep)
        await _create(settings, tick, template, cluster)
        await _delete(settings, tick, template, cluster)
    except ApiError as error:
        raise _explained(error, settings.namespace) from error


async def _members(settings: NextRunSettings, template: JsonObject, cluster: Cluster) -> AsyncIterator[Member]:
    address = Address(PLURALS[template["kind"]], settings.namespace)
    async for body in cluster.list(address, selector=f"{SERIES_LABEL}={settings.series}"):
        metadata = body["metadata"]
        yield Member(
            name=metadata["name"],
            uid=metadata["uid"],
            phase=str((body.get("status") or {}).get("phase") or ""),
            created_at=dt.datetime.fromisoformat(metadata["creationTimestamp"]),
        )


async def _create(settings: NextRunSettings, tick: Tick, template: JsonObject, cluster: Cluster) -> None:
    fields = {"series": settings.series, "job": tick.due.name}
    if tick.unfinished:
        log.info("Skipped this run: an earlier one is not finished", extra={**fields, "unfinished": tick.unfinished})
        return
    if tick.body is None:
        log.info("The job is there already", extra=fields)
        return
    try:
        await cluster.create(Address(PLURALS[template["kind"]], settings.namespace), tick.body)
    except ApiError as error:
        if not error.is_conflict:
            raise
        log.info("The job is there already", extra=fields)
        return
    log.info("Created the job", extra=fields)


async def _delete(settings: NextRunSettings, tick: Tick, template: JsonObject, cluster: Cluster) -> None:
    """Keep the history short. What is done is done: a right that is missing here does not fail the tick."""
    for member in tick.surplus:
        fields = {"series": settings.series, "job": member.name}
        try:
            await cluster.delete(Address(PLURALS[template["kind"]], settings.namespace, member.name), uid=member.uid)
        except ApiError as error:
            if not (error.is_absent or error.is_conflict):
                log.warning("An old job could not be deleted", extra={**fields, "error": str(error)})
        else:
            log.info("Deleted an old job; its results stay", extra=fields)


def _explained(error: ApiError, namespace: str) -> PagemillError:
    """The error in Pagemill's tree, whose exit code says whether trying again can help."""
    if error.is_terminal:
        return InvalidSpecError(f"the API server refuses the job: {error.message}", advice="mend the series' template")
    if error.status == 403:
        return AccessDeniedError(
            f"the API server refuses: {error.message}",
            advice=f"give namespace {namespace} its account for recurring runs: recurring.enabled of the chart",
        )
    if error.is_absent:
        return ClusterUnsuitableError(f"the API server knows no such kind: {error.message}", advice="apply the CRDs")
    return ClusterUnavailableError(f"the API server: {error}")


def read_settings() -> NextRunSettings:
    """The pod's settings. Raises: InvalidSpecError naming what is missing: the pod is not one of a series."""
    try:
        return NextRunSettings()  # type: ignore[call-arg]  # from the environment
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InvalidSpecError(
            f"PAGEMILL_{str(first['loc'][0]).upper()}: {first['msg']}",
            advice="this command runs in the pods of a series; make one by `pagemill schedule` or the chart",
        ) from error
