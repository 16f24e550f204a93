"""What reconciling answers: a plan of actions, the status to show, and when to look again.

Layer: `operator.reconcile`; pure data. Every action may be lost, repeated or late; each says all that is needed to do
it, and doing it twice is doing it once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pagemill_core.api.v1alpha1 import JobStatus
from pagemill_core.work.ledger import WorkRequest
from pagemill_operator.cluster import JsonObject


@dataclass(frozen=True, slots=True)
class Adopt:
    """Find or claim the run that does this work."""

    request: WorkRequest


@dataclass(frozen=True, slots=True)
class Look:
    """Take a new picture of the run. `is_active`: pods are at work, so their time counts against the deadline."""

    run: str
    is_active: bool = False
    is_thorough: bool = True


@dataclass(frozen=True, slots=True)
class StartWave:
    """Write the next wave's list of missing shards."""

    run: str
    number: int
    memory_rung: int


@dataclass(frozen=True, slots=True)
class ChangeEntry:
    """Change the run's ledger entry by compare-and-swap."""

    run: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ApplyJob:
    """Create a child Job, or find that it is there."""

    manifest: JsonObject


@dataclass(frozen=True, slots=True)
class SetJob:
    """Change the two fields of a running Job that may change: how many pods at once, and whether any."""

    name: str
    parallelism: int | None = None
    suspend: bool | None = None


@dataclass(frozen=True, slots=True)
class SetWorkload:
    """Let the queue pause a Job, or go on with it: the Job's own suspend field is the queue's."""

    job_uid: str
    is_active: bool


@dataclass(frozen=True, slots=True)
class DeleteJob:
    """Delete one very child Job, with its pods."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class DeleteSelf:
    """Delete the job's own object, whose time after its end has passed; results stay."""

    uid: str


StoreAction = Adopt | Look | StartWave | ChangeEntry
ClusterAction = ApplyJob | SetJob | SetWorkload | DeleteJob | DeleteSelf
Action = StoreAction | ClusterAction


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do now, in order; the status is written after that. `again_in_s`: when nothing else happens before."""

    status: JobStatus
    actions: tuple[Action, ...] = field(default=())
    again_in_s: float | None = None
