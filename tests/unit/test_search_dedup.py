"""Near-duplicates: the same groups by comparing all and by the index, whatever the order of linking."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagemill_core.clock import SystemClock
from pagemill_core.errors import InvalidSpecError
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.work.conditional import Writer
from pagemill_worker.embed.search.dedup import DedupSettings, Linked, find_duplicates
from pagemill_worker.testing.vector_dataset import MadePart, clustered, write_vectors

DIM = 24
ROWS = 1200
COPIES = {0: 4, 100: 2, 500: 40}  # first row of a group: its size


@pytest.fixture(scope="module")
def writer() -> Writer:
    rows = clustered(ROWS, DIM, clusters=400, spread=1.2)
    noise = np.random.default_rng(5)
    for first, size in COPIES.items():
        rows[first + 1 : first + size] = rows[first] + noise.normal(size=(size - 1, DIM)).astype(np.float32) * 0.002
    writer = Writer(MemoryStore(), SystemClock(), deadline_s=0)
    widths = [1000 if number in (101, 102) else 640 for number in range(ROWS)]
    part = MadePart(ids=[f"p{number:04d}" for number in range(ROWS)], vectors=rows, columns={"width_px": widths})
    write_vectors(writer.store, part)
    return writer


@pytest.mark.parametrize("exact_rows", [50_000, 100], ids=["each with each", "by an index"])
def test_duplicates_are_found_and_only_they(writer: Writer, exact_rows: int) -> None:
    found = find_duplicates(writer, DedupSettings(threshold=0.999, exact_rows=exact_rows))

    want = sorted(
        ({f"p{number:04d}" for number in range(first, first + size)} for first, size in COPIES.items()), key=len
    )
    assert sorted(({member.row.id for member in group.members} for group in found.groups), key=len) == want
    assert [len(group.members) for group in found.groups] == [40, 4, 2]
    assert found.redundant == 43
    assert found.rows == ROWS
    assert (found.recall == 1.0) == (exact_rows > ROWS)


def test_duplicates_keep_the_largest_picture_then_the_smallest_id(writer: Writer) -> None:
    found = find_duplicates(writer, DedupSettings(threshold=0.999))

    kept = {group.members[0].row.id for group in found.groups}
    assert kept == {"p0500", "p0000", "p0101"}
    for group in found.groups:
        assert [member.is_kept for member in group.members] == [True] + [False] * (len(group.members) - 1)
        assert all(0.999 < member.score <= 1.0001 for member in group.members)


@pytest.mark.parametrize("threshold", [0, -0.5, 1.5])
def test_duplicates_need_a_threshold_that_is_a_cosine(writer: Writer, threshold: float) -> None:
    with pytest.raises(InvalidSpecError, match="no cosine"):
        find_duplicates(writer, DedupSettings(threshold=threshold))


def test_duplicates_of_nothing_are_none() -> None:
    writer = Writer(MemoryStore(), SystemClock(), deadline_s=0)
    write_vectors(writer.store, MadePart(ids=["a"], vectors=clustered(1, 4), failed=frozenset({"a"})))

    assert find_duplicates(writer, DedupSettings()).groups == []


@given(st.lists(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=8), max_size=6))
def test_linked_sets_are_the_connected_ones(batches: list[list[tuple[int, int]]]) -> None:
    sets = Linked(20)
    want = [{number} for number in range(20)]
    for batch in batches:
        sets.link(*(np.asarray([pair[side] for pair in batch], np.int64) for side in (0, 1)))
        for left, right in batch:
            one = next(group for group in want if left in group)
            other = next(group for group in want if right in group)
            if one is not other:
                want.remove(other)
                one |= other

    assert sorted(map(sorted, (group.tolist() for group in sets.groups()))) == sorted(
        sorted(group) for group in want if len(group) > 1
    )
