"""`pagemill verify` finds every kind of damage, and repairs what committed data can make again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pagemill_cli.output.repair import repair_run
from pagemill_cli.output.standing import ledger_of
from pagemill_cli.output.verify import Fault, Problem, RunCheck, verify_output
from pagemill_cli.testing.made_runs import FAILED, SUCCEEDED, MadeOutput
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.work.commit import read_marker
from pagemill_core.work.layout import INDEX_POINTER, RunLayout
from pagemill_core.work.plan import read_plan
from pagemill_core.work.records import Counts

OUTCOMES = {"a": SUCCEEDED, "b": FAILED, "c": SUCCEEDED}
Damage = Callable[[MadeOutput, RunLayout], None]


@pytest.fixture
def made() -> MadeOutput:
    return MadeOutput(MemoryStore(), FakeClock())


def check(made: MadeOutput) -> RunCheck:
    (only,) = verify_output(made.target)
    return only


def faults(made: MadeOutput) -> set[Fault]:
    return {problem.fault for problem in check(made).problems}


def spoil(made: MadeOutput, key: str) -> None:
    """Change one byte in the middle; the size stays."""
    data = bytearray(made.store.get(key).data)
    data[len(data) // 2] ^= 1
    made.store.put(key, bytes(data), meta=dict(made.store.get(key).meta))


def data_key(made: MadeOutput, layout: RunLayout) -> str:
    marker = read_marker(made.writer, layout, 0)
    assert marker is not None
    return marker.outputs[0].key


def table_key(made: MadeOutput, layout: RunLayout) -> str:
    pointer = read_plan(made.writer, layout)
    assert pointer is not None
    return pointer.parts[0].key


def index_part(made: MadeOutput) -> str:
    return next(info.key for info in made.store.list(".pagemill/index/") if info.key != INDEX_POINTER)


def change_marker(made: MadeOutput, layout: RunLayout, **fields: object) -> None:
    marker = read_marker(made.writer, layout, 0)
    assert marker is not None
    made.store.put(layout.marker(0), marker.model_copy(update=fields).to_bytes())


def test_verify_untouched_run_has_no_problem_and_counts_everything(made: MadeOutput) -> None:
    made.finish(OUTCOMES)

    found = check(made)

    assert found.problems == []
    assert (found.shards, found.markers, found.views) == (2, 2, 2)
    assert found.items == Counts(planned=3, succeeded=2, failed=1, skipped=0)


DAMAGES: dict[str, tuple[Damage, set[Fault]]] = {
    "plan-gone": (lambda made, run: made.store.delete(run.plan_pointer), {"PlanMissing"}),
    "plan-unreadable": (lambda made, run: made.store.put(run.plan_pointer, b"{}") and None, {"PlanDamaged"}),
    "plan-table-gone": (lambda made, run: made.store.delete(table_key(made, run)), {"PlanDamaged", "SuccessWrong"}),
    "plan-table-spoilt": (lambda made, run: spoil(made, table_key(made, run)), {"PlanDamaged", "SuccessWrong"}),
    "marker-gone": (
        lambda made, run: made.store.delete(run.marker(0)),
        {"MarkerMissing", "RollupWrong", "SuccessWrong"},
    ),
    "marker-spoilt": (
        lambda made, run: made.store.put(run.marker(0), b"not a marker") and None,
        {"MarkerWrong", "MarkerMissing", "RollupWrong", "SuccessWrong"},
    ),
    "marker-of-another-fingerprint": (
        lambda made, run: change_marker(made, run, fingerprint="0" * 64),
        {"MarkerWrong", "RollupWrong"},
    ),
    "marker-counts-otherwise": (
        lambda made, run: change_marker(made, run, items=Counts(planned=2, succeeded=2)),
        {"RowsWrong", "RollupWrong", "SuccessWrong"},
    ),
    "data-gone": (lambda made, run: made.store.delete(data_key(made, run)), {"DataWrong"}),
    "data-spoilt": (lambda made, run: spoil(made, data_key(made, run)), {"DataWrong"}),
    "rollup-spoilt": (lambda made, run: spoil(made, run.rollup(0)), {"RollupWrong"}),
    "view-gone": (lambda made, run: made.store.delete("ocr_results/a_ocr.json"), {"ViewMissing"}),
    "view-spoilt": (lambda made, run: spoil(made, "ocr_results/a_ocr.json"), {"ViewDamaged"}),
    "view-replaced-by-a-person": (
        lambda made, run: made.store.put("ocr_results/a_ocr.json", b"{}") and None,
        {"ViewDamaged"},
    ),
    "published-gone": (lambda made, run: made.store.delete(run.published(1)), {"ViewsUnpublished"}),
    "published-spoilt": (lambda made, run: made.store.put(run.published(1), b"?") and None, {"ViewsUnpublished"}),
    "dataset-gone": (lambda made, run: made.store.delete("dataset/run=00000001/part-00000.parquet"), {"DatasetWrong"}),
    "dataset-spoilt": (lambda made, run: spoil(made, "dataset/run=00000001/part-00000.parquet"), {"DatasetWrong"}),
    "success-gone": (lambda made, run: made.store.delete(run.success), {"SuccessWrong"}),
    "index-part-gone": (lambda made, run: made.store.delete(index_part(made)), {"IndexWrong"}),
}


@pytest.mark.parametrize(("damage", "want"), DAMAGES.values(), ids=DAMAGES.keys())
def test_verify_finds_the_damage_and_repairs_what_can_be_made_again(
    made: MadeOutput, damage: Damage, want: set[Fault]
) -> None:
    run = made.finish(OUTCOMES)
    damage(made, RunLayout(run.run))

    found = check(made)
    assert {problem.fault for problem in found.problems} == want

    repaired = repair_run(made.target, found)
    want_left = {problem.fault for problem in found.problems if not problem.is_repairable}
    assert {problem.fault for problem in repaired.problems} == want_left


def test_verify_repair_says_what_damaged_data_cannot_give_back(made: MadeOutput) -> None:
    layout = RunLayout(made.finish(OUTCOMES).run)
    made.store.delete("ocr_results/a_ocr.json")
    found = check(made)
    spoil(made, data_key(made, layout))

    repaired = repair_run(made.target, found)

    assert {problem.fault for problem in repaired.problems} == {"DataWrong"}
    assert "cannot be made again" in repaired.note


def test_verify_repair_never_writes_over_a_newer_runs_view(made: MadeOutput) -> None:
    made.finish({"a": SUCCEEDED})
    made.finish({"a": SUCCEEDED})
    newer = made.store.get("ocr_results/a_ocr.json")
    old = ledger_of(made.target).read(1)
    pretended = RunCheck(old, problems=[Problem("ViewDamaged", "ocr_results/a_ocr.json", "", shard=0)])

    repair_run(made.target, pretended)

    assert made.store.get("ocr_results/a_ocr.json").token == newer.token


def test_verify_open_run_misses_no_marker_yet(made: MadeOutput) -> None:
    held = made.claim()
    kind = made.plan(held, list(OUTCOMES))
    made.commit(kind, 1, OUTCOMES)
    made.commit(kind, 0, OUTCOMES, publish=False)

    assert faults(made) == set()


def test_verify_run_without_a_plan_is_told_as_such(made: MadeOutput) -> None:
    made.end(made.claim(), "GivenUp", "Source")

    assert check(made).note == "no plan, so nothing was done"
    assert check(made).problems == []
