"""Timing a job's own pages with its own engine before anything is spent.

Layer: `cli.local`. Reads pages spread evenly over the plan, through the same pool of processes as a run; commits
nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pagemill_core.errors import FilteredByStage
from pagemill_worker.environment import JobEnvironment
from pagemill_worker.items import ItemResult, PlannedItem
from pagemill_worker.kinds import kind_of
from pagemill_worker.plan.reader import ShardReader
from pagemill_worker.work.pool import Answer, Pool, PoolSettings
from pagemill_worker.work.step import WorkOptions

POLL_S = 0.2
SHOWN = 3


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """How many pages, in how many processes; `environment` is the process's own. `log` is a file that takes what
    engine processes print."""

    pages: int
    processes: int
    environment: Mapping[str, str]
    log: Path = Path(os.devnull)


@dataclass(frozen=True, slots=True)
class StageSample:
    """One stage in a sample: items that went through it, and its share of the time that all of them took."""

    items: int
    seconds_per_item: float
    share: float


@dataclass(frozen=True, slots=True)
class Sample:
    """What was measured. `seconds_per_item` is one page in one process while all processes work.

    `load_seconds` is how long the engine took to be ready, once a process; `api_cost_per_item` what an API charged.
    `stages` are in the order of the job's; `notes` and `failures` (item, class, message) are of the first few items.
    """

    items: int
    failed: int
    seconds_per_item: float
    load_seconds: float
    api_cost_per_item: float
    filtered: int = 0
    stages: Mapping[str, StageSample] = field(default_factory=dict)
    notes: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    failures: tuple[tuple[str, str, str], ...] = ()


def take_sample(environment: JobEnvironment, reader: ShardReader, items: int, asked: SampleRequest) -> Sample:
    """Read some pages of the plan. Raises: EngineUnavailableError, and what the store raises."""
    chosen = _spread(reader, items, asked.pages)
    if not chosen:
        return Sample(0, 0, 0.0, 0.0, 0.0)
    with asked.log.open("ab") as log:
        options = WorkOptions(
            processes=min(asked.processes, len(chosen)),
            worker="sample",
            environment=asked.environment,
            stderr=log,
        )
        return _measure(kind_of(environment).pool_settings(options), chosen)


def _spread(reader: ShardReader, items: int, wanted: int) -> list[PlannedItem]:
    """Up to `wanted` items evenly over the plan, those that already failed in it left out."""
    step = max(1, items // wanted)
    chosen: list[PlannedItem] = []
    due = 0
    for _, item in reader.all_items():
        if item.row >= due and item.failure is None:
            chosen.append(item)
            due = len(chosen) * step
            if len(chosen) == wanted:
                break
    return chosen


def _measure(settings: PoolSettings, chosen: list[PlannedItem]) -> Sample:
    answers: list[Answer] = []
    todo = list(chosen)
    started = time.monotonic()
    with Pool(settings) as pool:
        while len(answers) < len(chosen):
            while todo and pool.hunger > 0:
                pool.submit(todo.pop(0))
            answers += pool.poll(POLL_S)
    wall = time.monotonic() - started
    work = [sum(answer.result.seconds.values()) for answer in answers]
    failed = sum(answer.result.status == "failed" for answer in answers)
    # What the processes did not spend on pages they spent on loading the engine.
    load = max(0.0, wall - sum(work) / settings.processes)
    results = sorted((answer.result for answer in answers), key=lambda result: result.item.row)
    return Sample(
        items=len(answers),
        failed=failed,
        seconds_per_item=round(sum(work) / len(work), 4),
        load_seconds=round(load, 2),
        api_cost_per_item=sum(answer.api_cost for answer in answers) / len(answers),
        filtered=sum(_class_of(answer.result) == FilteredByStage.__name__ for answer in answers),
        stages=_stages([answer.result.seconds for answer in answers], settings.stages, sum(work)),
        notes=tuple((result.item.id, notes) for result in results if (notes := _notes(result)))[:SHOWN],
        failures=tuple(
            (result.item.id, result.failure.error_class, result.failure.message)
            for result in results
            if result.failure is not None
        )[:SHOWN],
    )


def _stages(seconds: Sequence[Mapping[str, float]], order: Sequence[str], spent: float) -> dict[str, StageSample]:
    """Stages as the job has them, then any other that items name."""
    names = dict.fromkeys([*order, *(name for each in seconds for name in each)])
    found: dict[str, StageSample] = {}
    for name in names:
        taken = [each[name] for each in seconds if name in each]
        if taken:
            share = sum(taken) / spent if spent else 0.0
            found[name] = StageSample(len(taken), round(sum(taken) / len(taken), 6), round(share, 4))
    return found


def _class_of(result: ItemResult) -> str:
    return result.failure.error_class if result.failure is not None else ""


def _notes(result: ItemResult) -> Mapping[str, Any]:
    """What stages of the job's own noted of an item, by stage."""
    payload = result.payload or {}
    row = payload.get("row")
    found = row["metadata"].get("stages") if row is not None else payload.get("notes")
    return found or {}
