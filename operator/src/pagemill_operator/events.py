"""Kubernetes Events on changes of condition: what `kubectl describe` shows below the status.

Layer: the operator; I/O. Only after the status was written, each change once. An Event that cannot be written is
counted and lost: it is a courtesy, the status is the promise.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from pagemill_core.api.conditions import ConditionType, Reason
from pagemill_core.api.v1alpha1 import API_VERSION, JobStatus
from pagemill_core.api.v1alpha1.status import Condition
from pagemill_core.clock import Clock
from pagemill_operator.cluster import EVENTS, Address, ApiError, Cluster, JsonObject
from pagemill_operator.metrics import Metrics
from pagemill_operator.objects import Custom

COMPONENT = "pagemill-operator"
REMEMBERED = 10_000
_QUIET = frozenset({Reason.PENDING, Reason.RUNNING, Reason.NOT_SUSPENDED, Reason.PLANNING})


@dataclass
class EventWriter:
    """Writes Events for what changed between two statuses."""

    cluster: Cluster
    clock: Clock
    metrics: Metrics
    _told: OrderedDict[str, None] = field(default_factory=OrderedDict)

    async def tell(self, custom: Custom, status: JobStatus) -> None:
        """Write an Event for each condition whose status or reason changed."""
        for condition in _changed(custom.status, status):
            mark = f"{custom.uid}/{condition.type}/{condition.status}/{condition.reason}/{condition.message}"
            if mark in self._told:
                continue
            self._told[mark] = None
            while len(self._told) > REMEMBERED:
                self._told.popitem(last=False)
            await self._write(custom, condition, mark)

    async def _write(self, custom: Custom, condition: Condition, mark: str) -> None:
        body = _event(custom, condition, mark, self.clock.now())
        try:
            await self.cluster.create(Address(EVENTS, custom.key.namespace), body)
        except ApiError as error:
            if not error.is_conflict:  # a conflict: this very Event was written before a restart
                self.metrics.count("pagemill_operator_events_dropped_total")


def _changed(old: JobStatus, new: JobStatus) -> Iterator[Condition]:
    for condition in new.conditions:
        before = old.condition(condition.type)
        is_news = before is None or (before.status, before.reason) != (condition.status, condition.reason)
        if is_news and condition.reason not in _QUIET and not _repeats(condition, new):
            yield condition


def _repeats(condition: Condition, status: JobStatus) -> bool:
    """Whether a condition that is true tells the same."""
    return condition.status == "False" and any(
        other.status == "True" and other.reason == condition.reason for other in status.conditions
    )


def _event(custom: Custom, condition: Condition, mark: str, now: dt.datetime) -> JsonObject:
    is_bad = (
        condition.status == "True"
        if condition.type == ConditionType.FAILED
        else (condition.status == "False" and condition.type in (ConditionType.ACCEPTED, ConditionType.PLANNED))
    )
    at = now.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    name = hashlib.sha256(mark.encode()).hexdigest()[:12]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{custom.key.name}.{name}", "namespace": custom.key.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": custom.key.kind,
            "name": custom.key.name,
            "namespace": custom.key.namespace,
            "uid": custom.uid,
        },
        "reason": condition.reason,
        "message": condition.message or f"{condition.type} is {condition.status}",
        "type": "Warning" if is_bad else "Normal",
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": COMPONENT,
    }
