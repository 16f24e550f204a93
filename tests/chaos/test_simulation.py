"""The work protocol under seeded schedules of every fault: no promise is ever broken, and everything ends."""

from __future__ import annotations

from typing import Literal

import pytest

from pagemill_core.testing.sim.schedule import simulate, small_segments

CHUNKS = 20
SCHEDULES = {"short": 10_000, "long": 1_000_000}


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_simulation_every_schedule_keeps_every_promise(chunk: int, chaos_length: Literal["short", "long"]) -> None:
    share = SCHEDULES[chaos_length] // CHUNKS
    with small_segments():
        for seed in range(chunk * share, (chunk + 1) * share):
            simulate(seed)


def test_simulation_finished_jobs_reconciled_a_hundred_times_claim_nothing() -> None:
    with small_segments():
        for seed in range(20):
            simulate(seed, reconciled_times=100)


def test_simulation_same_seed_gives_the_same_operations() -> None:
    traces: list[list[str]] = [[], []]
    with small_segments():
        for trace in traces:
            for seed in range(40):
                trace.append(str(simulate(seed, trace=trace.append)))

    assert traces[0] == traces[1]
    assert len(traces[0]) > 2000


def test_simulation_short_run_meets_every_fault_and_every_ending() -> None:
    """A simulation that never gets into trouble proves nothing."""
    lines: list[str] = []
    outcomes: set[str] = set()
    runs = 0
    with small_segments():
        for seed in range(1000):
            outcome = simulate(seed, trace=lines.append)
            outcomes.update(outcome.outcomes)
            runs = max(runs, outcome.runs)

    everything = "\n".join(lines)
    for fault in ("refused", "throttled", "reply lost", "echo", "late", "killed", "stalled", "woke", "late CREATE"):
        assert f" {fault}" in everything, f"no schedule met {fault!r}"
    assert outcomes >= {"Complete", "Deleted", "Failed/OutputInUse"}
    assert runs >= 4
