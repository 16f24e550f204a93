"""Estimates: the serverless formula and the pool's price, exact decimals."""

from __future__ import annotations

from decimal import Decimal

import pytest

from pagemill_worker.plan.estimate import (
    DEFAULT_SECONDS_PER_ITEM,
    EstimateInput,
    estimate,
    seconds_per_item,
    serverless_cost,
)


@pytest.mark.parametrize(
    ("items", "seconds", "memory_gb", "want"),
    [
        (10_000, 10, Decimal(3), "5.0020"),  # the worked example of the guide this replaces: $5.00
        (0, 10, Decimal(3), "0.0000"),
        (1_000_000, 0.46, Decimal("1.5"), "11.7000"),
    ],
)
def test_estimate_serverless_cost_is_gb_seconds_and_requests(
    items: int, seconds: float, memory_gb: Decimal, want: str
) -> None:
    assert str(serverless_cost(items, seconds, memory_gb)) == want


def test_estimate_time_is_rounds_of_the_slots() -> None:
    found = estimate(EstimateInput(items=10, seconds_per_item=2.0, slots=4, machines=2, price_per_hour=Decimal("0.36")))
    assert (found.work_seconds, found.elapsed_seconds) == (20.0, 6.0)
    assert found.pool_cost == Decimal("0.0012")
    assert not found.is_sampled


@pytest.mark.parametrize(("items", "slots", "want"), [(0, 4, 0.0), (1, 100, 2.0), (5, 0, 10.0)])
def test_estimate_odd_sizes_stay_sensible(items: int, slots: int, want: float) -> None:
    found = estimate(EstimateInput(items=items, seconds_per_item=2.0, slots=slots, is_sampled=True))
    assert (found.elapsed_seconds, found.pool_cost, found.is_sampled) == (want, None, True)


def test_estimate_unknown_engine_gets_a_cautious_figure() -> None:
    assert seconds_per_item("tesseract") < DEFAULT_SECONDS_PER_ITEM == seconds_per_item("someone's own")
