"""Cutting: exact where the user says so, else by time with small shards first."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from pagemill_core.errors import SourceError
from pagemill_worker.plan import shards
from pagemill_worker.plan.request import CutOptions
from pagemill_worker.plan.shards import CutRule, ShardCutter, cut_rule


def sizes_of(rule: CutRule, total: int, batch: int = 1000) -> list[int]:
    cutter = ShardCutter(rule)
    assigned = [int(shard) for start in range(0, total, batch) for shard in cutter.assign(min(batch, total - start))]
    assert assigned == sorted(assigned)
    counts = Counter(assigned)
    assert list(counts) == list(range(cutter.shard_count))
    return list(counts.values())


@pytest.mark.parametrize(("total", "want"), [(0, []), (1, [1]), (3, [3]), (4, [3, 1]), (9, [3, 3, 3])], ids=str)
def test_cut_items_per_shard_is_kept_exactly(total: int, want: list[int]) -> None:
    assert sizes_of(cut_rule(CutOptions(items_per_shard=3)), total) == want


def test_cut_by_time_starts_small_and_then_fills_the_target() -> None:
    rule = cut_rule(CutOptions(target_seconds=120, seconds_per_item=2))
    assert sizes_of(rule, 250) == [1, 2, 4, 8, 16, 32, 60, 60, 60, 7]


@pytest.mark.parametrize(
    ("options", "total", "want"),
    [
        (CutOptions(seconds_per_item=600), None, 1),
        (CutOptions(seconds_per_item=0.0001), None, shards.MAX_ITEMS),
        (CutOptions(seconds_per_item=0), None, shards.MAX_ITEMS),
        (CutOptions(seconds_per_item=1), 40, 10),
        (CutOptions(seconds_per_item=1, slots=2), 40, 5),
        (CutOptions(seconds_per_item=1, slots=64), 40, 1),
        (CutOptions(seconds_per_item=1, slots=2), 0, 1),
    ],
)
def test_cut_by_time_stays_within_its_bounds(options: CutOptions, total: int | None, want: int) -> None:
    assert cut_rule(options, total).items == want


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_cut_does_not_depend_on_how_rows_arrive(batch: int) -> None:
    rule = CutRule(10, ramp=True)
    assert sizes_of(rule, 500, batch) == sizes_of(rule, 500, 500)


def test_cut_soft_limit_is_never_passed_however_long_the_source() -> None:
    rule = CutRule(3, soft_limit=64)
    capacities = [rule.capacity(shard) for shard in range(64)]
    assert capacities[:32] == [3] * 32
    assert capacities == sorted(capacities)
    assert capacities[32:34] == [6, 12]
    assert sum(capacities) > 64 * 3
    assert len(sizes_of(rule, sum(capacities))) == 64


def test_cut_more_shards_than_names_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "HARD_SHARDS", 9)
    with pytest.raises(SourceError, match="more than 9 shards"):
        ShardCutter(CutRule(1)).assign(11)


def test_cut_groups_are_not_split_unless_over_the_cap() -> None:
    dice = random.Random(3)
    for _ in range(300):
        rule = CutRule(10, ramp=dice.random() < 0.5)
        groups = [f"book-{number}" for number in range(20) for _ in range(dice.randint(1, 14))]
        assigned = ShardCutter(rule).assign_groups(groups).tolist()
        assert assigned == sorted(assigned)
        assert set(assigned) == set(range(assigned[-1] + 1))
        for name, members in itertools.groupby(zip(groups, assigned, strict=True), lambda pair: pair[0]):
            held = [shard for _, shard in members]
            assert len(held) > rule.items or len(set(held)) == 1, name
        assert max(Counter(assigned).values()) <= rule.items


def test_cut_no_groups_at_all_gives_nothing() -> None:
    cutter = ShardCutter(CutRule(10))
    assert cutter.assign_groups([]).tolist() == []
    assert cutter.shard_count == 0
