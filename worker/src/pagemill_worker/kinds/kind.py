"""What plan, work and finalize ask of a kind of job.

Layer: the bottom of `worker.kinds`.
"""

from __future__ import annotations

from typing import Any, Protocol

from pagemill_core.work.conditional import Writer
from pagemill_core.work.records import PlanPointer
from pagemill_worker.finalize.committed import CommittedRun
from pagemill_worker.images.limits import ImageLimits
from pagemill_worker.plan.request import PlanRequest
from pagemill_worker.plan.spec import SpecContext
from pagemill_worker.work.pool import PoolSettings
from pagemill_worker.work.step import WorkOptions


class JobKind(Protocol):
    """One job of a kind. Every method may be called at any time and as often as one likes."""

    def check(self) -> None:
        """Refuse what cannot be done, before any work starts. Raises: EngineUnavailableError, InvalidSpecError."""

    def fingerprint_fields(self) -> dict[str, Any]:
        """Everything that decides the bytes of this job's results. Raises: as `check`, which it includes."""

    def request(self, context: SpecContext) -> PlanRequest:
        """What the planner is asked for. Raises: InvalidSpecError."""

    @property
    def limits(self) -> ImageLimits:
        """How large a picture may be, and how finely PDF pages are drawn."""

    @property
    def model(self) -> str:
        """The engine's or model's name, for people and for the table of speeds."""

    def pool_settings(self, options: WorkOptions) -> PoolSettings:
        """How the processes are made that do the work."""

    def committed(self, writer: Writer, pointer: PlanPointer, workers: int) -> CommittedRun:
        """The finalizing half: views, dataset and reports of that run; `workers` is how many processes do its work."""

    def reader(self, writer: Writer, pointer: PlanPointer) -> CommittedRun:
        """The same for whoever only looks: whole-run files are not its business."""
