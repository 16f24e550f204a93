"""Waves: every missing shard belongs to exactly one index, and every pod of a wave sees the same list."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagemill_core.storage.memory import MemoryStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.testing.scripted_store import Answer, ScriptedStore
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.records import WaveRecord
from pagemill_core.work.waves import (
    completions_for,
    count,
    create_wave,
    newest_wave,
    read_wave,
    shards_of_index,
    to_ranges,
)

LAYOUT = RunLayout("00000001-aaaaaaaa")
some_shards = st.sets(st.integers(0, 400), min_size=1).map(sorted)


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore(MemoryStore())


@pytest.fixture
def writer(store: ScriptedStore) -> Writer:
    return Writer(store, FakeClock(), random.Random(1))


@given(some_shards)
def test_ranges_hold_exactly_the_shards_in_few_pieces(shards: list[int]) -> None:
    ranges = to_ranges(shards)

    assert [shard for first, last in ranges for shard in range(first, last + 1)] == shards
    assert count(ranges) == len(shards)
    assert all(before[1] + 1 < after[0] for before, after in zip(ranges, ranges[1:], strict=False))


@given(some_shards, st.integers(1, 60))
def test_indexes_cover_a_wave_exactly_and_evenly(shards: list[int], parallelism: int) -> None:
    ranges = to_ranges(shards)
    completions = completions_for(len(shards), parallelism)

    owned = [list(shards_of_index(ranges, index, completions)) for index in range(completions)]

    assert [shard for of_index in owned for shard in of_index] == shards
    sizes = {len(of_index) for of_index in owned}
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1


@pytest.mark.parametrize(
    ("shards", "parallelism", "want"),
    [(1, 50, 1), (10, 4, 10), (1000, 4, 16), (10_000, 300, 1000), (10_000, 2000, 2000), (1500, 2000, 1500)],
    ids=[
        "one",
        "fewer-than-indexes",
        "four-each",
        "at-most-1000",
        "never-below-parallelism",
        "never-one-without-a-shard",
    ],
)
def test_completions_are_enough_for_a_short_tail_and_never_one_a_shard(
    shards: int, parallelism: int, want: int
) -> None:
    assert completions_for(shards, parallelism) == want


def test_no_shards_make_no_ranges() -> None:
    assert to_ranges([]) == []
    assert count([]) == 0


@pytest.mark.parametrize("answer", [Answer.OK, Answer.LOST, Answer.TOLD_EXISTS])
def test_create_wave_reads_back_as_written(writer: Writer, store: ScriptedStore, answer: Answer) -> None:
    store.script("put_if_absent", answer)
    wave = WaveRecord(number=1, ranges=[(0, 4), (7, 7)], memory_rung=1)

    assert create_wave(writer, LAYOUT, wave) == wave
    assert read_wave(writer, LAYOUT, 1) == wave


def test_create_wave_second_controller_gets_the_first_ones_list(writer: Writer) -> None:
    first = create_wave(writer, LAYOUT, WaveRecord(number=1, ranges=[(0, 9)]))

    assert create_wave(writer, LAYOUT, WaveRecord(number=1, ranges=[(0, 3)])) == first


def test_newest_wave_counts_by_number_not_by_name(writer: Writer) -> None:
    assert newest_wave(writer, LAYOUT) == 0
    for number in (1, 2, 9, 10):
        create_wave(writer, LAYOUT, WaveRecord(number=number, ranges=[(0, 0)]))

    assert newest_wave(writer, LAYOUT) == 10
    assert read_wave(writer, LAYOUT, 3) is None
