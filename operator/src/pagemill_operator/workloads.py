"""Kueue's Workloads of child Jobs: why a queue keeps a Job waiting, and the pause that holds in a queue.

Layer: the operator; I/O, no decisions. Kueue owns `suspend` and the pod template of the Jobs it manages; its Workload
is the one place where it can be asked for something. A cluster without Kueue, or an operator without rights to its
Workloads, is no error: jobs without a queue need neither.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from pagemill_core.clock import Clock
from pagemill_operator.cluster import WORKLOADS, WORKLOADS_BEFORE, Address, ApiError, Cluster, JsonObject

ASK_EVERY_S = 10.0
MAX_KEPT = 2000
JOB_UID_LABEL = "kueue.x-k8s.io/job-uid"
NO_KUEUE = "this cluster has no Kueue, so nobody will admit it"
_FORBIDDEN = 403
_LINE_CHARS = 400


class Workloads:
    """The Workloads of a cluster, in whichever version it serves."""

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        self._cluster = cluster
        self._clock = clock
        self._versions: tuple[str, ...] = (WORKLOADS, WORKLOADS_BEFORE)
        self._said: OrderedDict[str, tuple[float, str]] = OrderedDict()

    async def said(self, namespace: str, job_uid: str) -> str:
        """Why the Job of this uid is not admitted, in Kueue's words; "" when nothing is known. Raises: ApiError."""
        now_s = self._clock.monotonic_s()
        asked_s, text = self._said.get(job_uid, (-ASK_EVERY_S, ""))
        if now_s - asked_s < ASK_EVERY_S:
            return text
        try:
            found = await self._of_job(namespace, job_uid)
            text = _why(found[0]) if found else ""
        except ApiError as error:
            if not (error.is_absent or error.status == _FORBIDDEN):
                raise
            text = NO_KUEUE if error.is_absent else ""
        self._said[job_uid] = (now_s, text)
        while len(self._said) > MAX_KEPT:
            self._said.popitem(last=False)
        return text

    async def set_active(self, namespace: str, job_uid: str, is_active: bool) -> None:
        """Let the queue give the Job its place, or take it back for good. Idempotent.

        A queue that has not seen the Job yet has no Workload: the next pass asks again. Raises: ApiError.
        """
        for workload in await self._of_job(namespace, job_uid):
            if (workload.get("spec") or {}).get("active", True) != is_active:
                address = Address(self._versions[0], namespace, workload["metadata"]["name"])
                await self._cluster.merge(address, {"spec": {"active": is_active}})

    async def _of_job(self, namespace: str, job_uid: str) -> list[JsonObject]:
        selector = f"{JOB_UID_LABEL}={job_uid}"
        for version in self._versions:
            try:
                found = [one async for one in self._cluster.list(Address(version, namespace), selector=selector)]
            except ApiError as error:
                if not error.is_absent or version == self._versions[-1]:
                    raise
            else:
                self._versions = (version, *(other for other in self._versions if other != version))
                return found
        return []


def _why(workload: JsonObject) -> str:
    """Evicted counts before waiting, since whoever was evicted waits too; an admitted one has nothing to say."""
    conditions = list(_conditions(workload))
    for kind, value in (("Evicted", "True"), ("QuotaReserved", "False")):
        for one in conditions:
            if one.get("type") == kind and one.get("status") == value:
                return f"{one.get('reason') or kind}: {one.get('message') or ''}".rstrip(": ")[:_LINE_CHARS]
    return ""


def _conditions(workload: JsonObject) -> Iterator[dict[str, Any]]:
    yield from (workload.get("status") or {}).get("conditions") or ()
