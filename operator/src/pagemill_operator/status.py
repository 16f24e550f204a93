"""Writing a status: once a pass at most, at once when something happened, now and then when only numbers moved.

Layer: the operator; I/O. Progress gives way when the queue grows: a person's change comes before a number.
"""

from __future__ import annotations

from typing import Any

from pagemill_core.api.v1alpha1 import API_VERSION, JobStatus
from pagemill_core.clock import Clock
from pagemill_operator.cluster import PLURALS, STATUS_MANAGER, Address, Cluster, JsonObject
from pagemill_operator.objects import Custom
from pagemill_operator.store_view import StoreSight

PROGRESS_EVERY_S = 6.0  # with a look every ten seconds: some 0.1 writes a second, and no status older than 15 s
DRIFT_EVERY_S = 30.0  # nothing was counted, only the clock went on: rate, time left, cost
ANSWER_S = 1.0  # a store that answers in time has its news in the same write
SHED_EVERY_S = 60.0
SHED_WAIT_S = 2.0  # a queue this far behind doubles the pauses, twice as far trebles them, up to SHED_EVERY_S
_DRIFT = ("rate", "eta", "cost")
_PROGRESS = ("message", "items", "shards", "done", "rate", "eta", "cost", "replicas", "failures", "results", "jobs")


class StatusWriter:
    """Writes statuses and remembers when, by uid."""

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        self._cluster = cluster
        self._clock = clock
        self._written_s: dict[str, float] = {}

    def delay_s(self, custom: Custom, status: JobStatus, queue_wait_s: float, sight: StoreSight) -> float | None:
        """How long to wait before writing: 0 for now, None when there is nothing to write.

        `sight` is what the status was made of. While something is asked of the output another pass is on its way,
        which has more to say: one write then does for both, unless the store takes its time.
        """
        if status == custom.status:
            return None
        now_s = self._clock.monotonic_s()
        if _told(status) != _told(custom.status):
            return max(0.0, sight.asked_s + ANSWER_S - now_s) if sight.is_busy else 0.0
        if sight.is_busy:
            return None
        written_s = self._written_s.get(custom.uid)
        if written_s is None:
            return 0.0
        every_s = PROGRESS_EVERY_S if _counted(status) != _counted(custom.status) else DRIFT_EVERY_S
        every_s = max(every_s, min(SHED_EVERY_S, every_s * (1 + queue_wait_s / SHED_WAIT_S)))
        return max(0.0, written_s + every_s - now_s)

    async def write(self, custom: Custom, status: JobStatus) -> JsonObject:
        """Apply the whole status to this very object. Returns: the object as it is then.

        Raises: ApiError; a conflict when the object changed since it was read, which also keeps a status from landing
        on another object of the same name, and `plannedAt` from being set for a spec that was edited meanwhile.
        """
        key = custom.key
        body = {
            "apiVersion": API_VERSION,
            "kind": key.kind,
            "metadata": {"name": key.name, "namespace": key.namespace, "resourceVersion": custom.resource_version},
            "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        address = Address(PLURALS[key.kind], key.namespace, key.name, "status")
        answer = await self._cluster.apply(address, body, STATUS_MANAGER)
        self._written_s[custom.uid] = self._clock.monotonic_s()
        return answer

    def forget(self, uid: str) -> None:
        """Drop what is kept of a job that is gone."""
        self._written_s.pop(uid, None)


def _counted(status: JobStatus) -> JobStatus:
    """The status without what moves although nothing happens."""
    return status.model_copy(update=dict.fromkeys(_DRIFT))


def _told(status: JobStatus) -> tuple[Any, ...]:
    """What a person is waiting for: everything but numbers that move all the time and the words about them."""
    conditions = tuple((one.type, one.status, one.reason, one.observed_generation) for one in status.conditions)
    rest = status.model_copy(update={"conditions": (), **dict.fromkeys(_PROGRESS)})
    return (conditions, rest)
