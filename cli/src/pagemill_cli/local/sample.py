"""Timing a job's own pages with its own engine before anything is spent.

Layer: `cli.local`. Reads pages spread evenly over the plan, through the same pool of processes as a run; commits
nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pagemill_worker.environment import JobEnvironment
from pagemill_worker.items import PlannedItem
from pagemill_worker.kinds import kind_of
from pagemill_worker.plan.reader import ShardReader
from pagemill_worker.work.pool import Answer, Pool, PoolSettings
from pagemill_worker.work.step import WorkOptions

POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """How many pages, in how many processes; `environment` is the process's own."""

    pages: int
    processes: int
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sample:
    """What was measured. `seconds_per_item` is one page in one process while all processes work.

    `load_seconds` is how long the engine took to be ready, once a process; `api_cost_per_item` what an API charged.
    """

    items: int
    failed: int
    seconds_per_item: float
    load_seconds: float
    api_cost_per_item: float


def take_sample(environment: JobEnvironment, reader: ShardReader, items: int, asked: SampleRequest) -> Sample:
    """Read some pages of the plan. Raises: EngineUnavailableError, and what the store raises."""
    chosen = _spread(reader, items, asked.pages)
    if not chosen:
        return Sample(0, 0, 0.0, 0.0, 0.0)
    with Path(os.devnull).open("ab") as nowhere:
        options = WorkOptions(
            processes=min(asked.processes, len(chosen)),
            worker="sample",
            environment=asked.environment,
            stderr=nowhere,
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
    return Sample(
        items=len(answers),
        failed=failed,
        seconds_per_item=round(sum(work) / len(work), 4),
        load_seconds=round(load, 2),
        api_cost_per_item=sum(answer.api_cost for answer in answers) / len(answers),
    )
