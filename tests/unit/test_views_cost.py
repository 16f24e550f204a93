"""What reports say a run cost, and where the money went."""

from __future__ import annotations

from decimal import Decimal

from pagemill_worker.bench.costs import RunUse, cost_of
from pagemill_worker.views.run import Cost


def cost() -> Cost:
    use = RunUse(
        machine_s=Decimal(100),
        price_per_hour=Decimal("0.36"),
        processes=2,
        busy_s={"decode": Decimal(20), "recognise": Decimal(140)},
        items=50,
    )
    stages = {share.stage: share.cost for share in cost_of(use).stages}
    return Cost(spent=Decimal("0.01"), currency="USD", formula="f", items=50, by_stage=stages)


def test_cost_by_stage_adds_up_to_what_the_machines_cost() -> None:
    found = cost()
    assert sum(found.by_stage.values()) == Decimal("0.01")
    assert found.by_stage == {"decode": Decimal("0.001"), "recognise": Decimal("0.007"), "idle": Decimal("0.002")}


def test_cost_is_told_to_people_in_one_line_and_to_programs_as_strings() -> None:
    found = cost()
    assert found.told == "decode 0.001000, recognise 0.007000, idle 0.002000; 0.00020000 an item"
    told = found.as_json()
    assert (told["spent"], told["per_item"]) == ("0.01", "0.000200000")
    assert all(isinstance(amount, str) for amount in told["by_stage"].values())


def test_cost_of_a_run_without_items_names_no_price_for_one() -> None:
    assert Cost(spent=Decimal(0), currency="USD", formula="f").told == ""
