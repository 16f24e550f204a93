"""The simulation itself is tested by planted bugs: each rule of the protocol, broken, must be seen."""

from __future__ import annotations

import re

import pytest

from pagemill_core.testing.sim.mutations import MUTATIONS
from pagemill_core.testing.sim.schedule import ScheduleFailedError, simulate, small_segments

WITHIN_SEEDS = 4000


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_caught(name: str) -> None:
    mutation = MUTATIONS[name]
    with small_segments(), mutation.planted(), pytest.raises(ScheduleFailedError) as caught:
        for seed in range(WITHIN_SEEDS):
            simulate(seed, focus=mutation.focus)

    assert re.search(r"--seed \d+ .*--trace", str(caught.value))


def test_mutations_are_gone_afterwards() -> None:
    with small_segments():
        for name in MUTATIONS:
            with MUTATIONS[name].planted():
                pass
        for seed in range(10):
            simulate(seed)


def test_mutations_cover_the_protocol() -> None:
    assert len(MUTATIONS) >= 30
