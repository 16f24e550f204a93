"""Engine processes started before there is work for them: taken once, or ended with whoever started them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import pytest

from pagemill_cli.local.engines import EnginesAhead
from pagemill_worker.work.pool import Pool


@dataclass
class NotedPool:
    """What happened to a pool."""

    events: list[str] = field(default_factory=list)

    def start(self) -> None:
        self.events.append("start")

    def close(self) -> None:
        self.events.append("close")


@pytest.fixture
def made() -> list[NotedPool]:
    return []


@pytest.fixture
def make_pool(made: list[NotedPool]) -> Callable[[], Pool]:
    def make() -> Pool:
        made.append(NotedPool())
        return cast(Pool, made[-1])

    return make


def test_engines_taken_after_start_are_the_started_ones_and_stay_open(
    made: list[NotedPool], make_pool: Callable[[], Pool]
) -> None:
    with EnginesAhead(make_pool) as engines:
        engines.start()
        engines.start()
        taken = engines.take()

    assert made == [NotedPool(["start"])]
    assert taken is cast(Pool, made[0])


def test_engines_that_nobody_took_are_ended_even_when_planning_failed(
    made: list[NotedPool], make_pool: Callable[[], Pool]
) -> None:
    with pytest.raises(ValueError, match="no plan"), EnginesAhead(make_pool) as engines:
        engines.start()
        raise ValueError("no plan")

    assert made == [NotedPool(["start", "close"])]


def test_engines_of_a_later_wave_are_new_ones(made: list[NotedPool], make_pool: Callable[[], Pool]) -> None:
    with EnginesAhead(make_pool) as engines:
        engines.start()
        first, second = engines.take(), engines.take()

    assert first is not second
    assert made == [NotedPool(["start"]), NotedPool([])]
