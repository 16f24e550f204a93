"""A job's own stages: from its file to a message for children, and from the message to loaded stages.

Layer: the top of `worker.stages`, its door for `kinds` and the runners.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from pagemill_core.api.v1alpha1.workers import Stage as StageSpec
from pagemill_core.ids import digest
from pagemill_worker.machine import boot_id, process_started
from pagemill_worker.ocr.guard import load_boundary
from pagemill_worker.stages.chain import Chain, Chains, LoadedStage
from pagemill_worker.stages.contract import Stage
from pagemill_worker.stages.loading import make_stage, stage_version
from pagemill_worker.stages.pipeline import Pipeline, arrange, check_types
from pagemill_worker.stages.settings import StagesSettings


class OwnStage(BaseModel):
    """One stage as a child is told of it. The child takes it from its supervisor, who has checked it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    use: str
    options: dict[str, str]
    batch_size: int
    attempts: int
    is_behind: bool


class ChainSetup(BaseModel):
    """All own stages in the order they run, and the packages they may come from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stages: tuple[OwnStage, ...] = ()
    packages: str = ""

    def __bool__(self) -> bool:
        return bool(self.stages)

    @property
    def items_at_once(self) -> int:
        """How many items a process should have in hand so that batches can fill: two of the largest."""
        return 2 * max((stage.batch_size for stage in self.stages), default=1)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(stage.name for stage in self.stages)


def chain_setup(pipeline: Pipeline, stages: Sequence[StageSpec]) -> ChainSetup:
    """What children are told of a job's own stages.

    Raises: InvalidSpecError, EngineUnavailableError for stages that cannot be used as the job says.
    """
    arranged = arrange(pipeline, stages)
    settings = StagesSettings()
    made = {stage.name: make_stage(stage.use or "", stage.options or {}, settings) for stage in arranged.all}
    check_types(pipeline, arranged, {name: (type(stage).takes, type(stage).gives) for name, stage in made.items()})
    return ChainSetup(
        stages=tuple(_told(stage, made[stage.name], is_behind=stage in arranged.behind) for stage in arranged.all),
        packages=settings.packages,
    )


def chain_fingerprint(setup: ChainSetup) -> list[dict[str, Any]]:
    """What decides what own stages do to results, in the order they run."""
    settings = StagesSettings(packages=setup.packages)
    return [
        {
            "use": stage.use,
            "version": stage_version(make_stage(stage.use, stage.options, settings)),
            "options": stage.options,
            "isBehindModel": stage.is_behind,
        }
        for stage in setup.stages
    ]


def load_chains(setup: ChainSetup) -> Chains:
    """Make a child's stages and set them up; the first child of a machine sets up what all share.

    Raises: EngineUnavailableError; InvalidSpecError.
    """
    settings = StagesSettings(packages=setup.packages)
    loaded: list[tuple[OwnStage, LoadedStage]] = []
    for given in setup.stages:
        stage = make_stage(given.use, given.options, settings)
        one = LoadedStage(
            name=given.name,
            stage=stage,
            batch_size=given.batch_size,
            attempts=given.attempts,
            keeps_one=given.is_behind,
        )
        once_on_node(given, stage)
        one.load()
        loaded.append((given, one))
    before = [one for given, one in loaded if not given.is_behind]
    batched = next((place for place, one in enumerate(before) if one.batch_size > 1), len(before))
    return Chains(
        ahead=Chain(tuple(before[:batched])),
        before=Chain(tuple(before[batched:])),
        behind=Chain(tuple(one for given, one in loaded if given.is_behind)),
    )


def once_on_node(given: OwnStage, stage: Stage) -> None:
    """Call `setup_on_node` in the first of a supervisor's children, while the others wait.

    A file in the machine's temporary folder says that it is done; it is of this supervisor and of these options, so
    another run sets up anew.
    """
    parent = os.getppid()
    who = digest([boot_id(), parent, process_started(parent), given.model_dump(mode="json")])
    path = Path(tempfile.gettempdir(), f"pagemill-stage-{who[:32]}")
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if file.seek(0, os.SEEK_END):
            return
        with load_boundary(f"stage {given.name}"):
            stage.setup_on_node()
        file.write(b"done")


def _told(stage: StageSpec, made: Stage, *, is_behind: bool) -> OwnStage:
    batch = stage.effective_batch_size
    return OwnStage(
        name=stage.name,
        use=stage.use or "",
        options=dict(stage.options or {}),
        batch_size=batch if isinstance(batch, int) else max(1, made.batch_size),
        attempts=stage.effective_attempts,
        is_behind=is_behind,
    )
