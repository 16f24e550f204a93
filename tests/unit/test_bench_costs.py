"""A run's cost taken apart: the parts add up, and idle time is not hidden."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from pagemill_worker.bench.costs import IDLE, RunUse, StorePrices, StoreUse, cost_of, formula_of


def make_use(**changes: Any) -> RunUse:
    given: dict[str, Any] = {
        "machine_s": Decimal(1800),
        "price_per_hour": Decimal("0.40"),
        "processes": 2,
        "busy_s": {"fetch": Decimal(360), "recognise": Decimal(2520)},
        "items": 1000,
    }
    return RunUse(**{**given, **changes})


def test_cost_by_stage_adds_up_to_the_machines_with_idle_time_shown() -> None:
    cost = cost_of(make_use())

    assert {share.stage: share.cost for share in cost.stages} == {
        "fetch": Decimal("0.02"),
        "recognise": Decimal("0.14"),
        IDLE: Decimal("0.04"),
    }
    assert sum(share.cost for share in cost.stages) == cost.machines == Decimal("0.2")
    assert sum(share.share for share in cost.stages) == 1
    assert cost.stages[1].per_item == Decimal("0.00014")
    assert cost.per_items(1000) == Decimal("0.2")


def test_cost_of_stages_busier_than_their_processes_leaves_nothing_idle() -> None:
    cost = cost_of(make_use(busy_s={"recognise": Decimal(7200)}))

    assert [(share.stage, share.cost) for share in cost.stages] == [("recognise", Decimal("0.2")), (IDLE, Decimal(0))]


def test_cost_of_apis_requests_and_storage_stand_by_themselves() -> None:
    prices = StorePrices(thousand_writes=Decimal("0.005"), thousand_reads=Decimal("0.0004"), gb_month=Decimal("0.023"))
    use = make_use(api_cost=Decimal("1.5"), store=StoreUse(writes=2000, reads=10_000, kept_bytes=2 * 10**9))

    cost = cost_of(use, prices)

    assert (cost.api, cost.requests, cost.storage_a_month) == (Decimal("1.5"), Decimal("0.014"), Decimal("0.046"))
    assert cost.total == Decimal("1.714")
    assert formula_of(use, cost) == "1800 s × 0.40/h ÷ 3600 = 0.200000 + APIs 1.500000 + 12,000 requests 0.014000"


@pytest.mark.parametrize(
    ("changes", "want"),
    [({"items": 0}, None), ({"machine_s": Decimal(0), "busy_s": {}}, Decimal(0))],
    ids=["items", "time"],
)
def test_cost_of_a_run_that_did_nothing_divides_by_nothing(changes: dict[str, Any], want: Decimal | None) -> None:
    cost = cost_of(make_use(**changes))

    assert cost.stages[-1].stage == IDLE
    assert cost.per_items(1000) == want
