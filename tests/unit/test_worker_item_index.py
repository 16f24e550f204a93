"""The item index against a model of what it means: the newest outcome of every item, over any sequence of runs."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagemill_core.storage.memory import MemoryStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.work.conditional import Writer
from pagemill_core.work.index import read_index
from pagemill_core.work.layout import RunLayout, run_id
from pagemill_core.work.records import PlanPointer
from pagemill_worker import items
from pagemill_worker.finalize import item_index
from pagemill_worker.finalize.item_index import Fold, fold_index
from pagemill_worker.items import ItemFailure, ItemResult, PlannedItem, Status
from pagemill_worker.plan.digests import identity_digest
from pagemill_worker.plan.planner import TOMBSTONE_SCHEMA, TOMBSTONES

WORK_KEY = "a" * 64
ATTEMPT = "01AN4Z07BY79KA1307SR9X4MV3"


@dataclass(frozen=True)
class Outcome:
    """How one item ended in one run. `is_duplicate`: another row of the source has its id."""

    item: str
    status: Status
    version: str | None = None
    is_duplicate: bool = False


@dataclass(frozen=True)
class Run:
    fingerprint: str
    outcomes: tuple[Outcome, ...]
    gone: frozenset[str] = frozenset()


@dataclass
class Entry:
    """What the model knows of an item."""

    status: str
    version: str | None
    fingerprint: str
    failed_runs: int = 0


@dataclass
class Model:
    """The rules in words: see the docstrings of `item_index` and the page on the layout."""

    entries: dict[str, Entry] = field(default_factory=dict)

    def fold(self, run: Run) -> None:
        for item in run.gone & self.entries.keys():
            self.entries[item].status, self.entries[item].failed_runs = "tombstone", 0
        for outcome in run.outcomes:
            if outcome.status == "succeeded":
                self.entries[outcome.item] = Entry("succeeded", outcome.version, run.fingerprint)
            elif outcome.status == "failed" and not outcome.is_duplicate:
                self._fail(outcome, run.fingerprint)

    def _fail(self, outcome: Outcome, fingerprint: str) -> None:
        old = self.entries.get(outcome.item)
        is_same_work = old is not None and old.fingerprint == fingerprint
        if old is not None and is_same_work and old.status == "succeeded":
            differs = None not in (old.version, outcome.version) and old.version != outcome.version
            if not differs:
                return  # a success is hidden only by a failure at another version
        counts_on = old is not None and is_same_work and outcome.version is not None and old.version == outcome.version
        before = old.failed_runs if old is not None and counts_on else 0
        self.entries[outcome.item] = Entry("failed", outcome.version, fingerprint, before + 1)


def result_of(row: int, outcome: Outcome) -> ItemResult:
    item = PlannedItem(row=row, id=outcome.item, uri=f"x/{outcome.item}")
    failure = None
    if outcome.status == "failed":
        failure = ItemFailure("DuplicateId" if outcome.is_duplicate else "ImageMissing", "why")
    payload = {"v": 1} if outcome.status == "succeeded" else None
    return ItemResult(item, outcome.status, payload, failure, version_read=outcome.version)


def fold_of(writer: Writer, seq: int, run: Run) -> Fold:
    layout = RunLayout(run_id(seq, WORK_KEY))
    if run.gone:
        rows = [{"identity": identity_digest(item), "id": item} for item in sorted(run.gone)]
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, TOMBSTONE_SCHEMA), sink)
        writer.put(f"{layout.plan_attempt(ATTEMPT)}{TOMBSTONES}", sink.getvalue())
    pointer = PlanPointer(
        run=layout.run,
        attempt=ATTEMPT,
        kind="OcrJob",
        work_key=WORK_KEY,
        work={},
        fingerprint=run.fingerprint,
        fingerprint_fields={},
        items=len(run.outcomes),
        shards=1,
        tombstones=len(run.gone),
    )
    results = [result_of(row, outcome) for row, outcome in enumerate(run.outcomes)]
    return Fold(writer, layout, pointer, lambda: map(items.Outcome.of, results))


def rows_of(writer: Writer) -> dict[str, Entry]:
    """The index as it stands; checks that it is sorted and names nobody twice."""
    pointer = read_index(writer)
    assert pointer is not None
    tables = [pq.read_table(io.BytesIO(writer.store.get(part.key).data)) for part in pointer.parts]
    assert [table.num_rows for table in tables] == [part.rows for part in pointer.parts]
    rows = [row for table in tables for row in table.to_pylist()]
    identities = [row["identity"] for row in rows]
    assert identities == sorted(set(identities))
    return {row["id"]: Entry(row["status"], row["version"], row["fingerprint"], row["failed_runs"]) for row in rows}


@pytest.fixture
def writer() -> Writer:
    return Writer(MemoryStore(), FakeClock())


ids = st.sampled_from([f"item/{number}" for number in range(8)])
versions = st.sampled_from((None, "v1", "v2"))
outcomes = st.one_of(
    st.builds(Outcome, ids, st.sampled_from(("succeeded", "failed", "skipped")), versions),
    st.builds(Outcome, ids, st.just("failed"), versions, st.just(True)),
)
runs = st.builds(
    lambda fingerprint, found, gone: Run(fingerprint, tuple(found), frozenset(gone) - {one.item for one in found}),
    st.sampled_from(("f1", "f2")),
    st.lists(outcomes, max_size=6, unique_by=lambda outcome: (outcome.item, outcome.is_duplicate)),
    st.sets(ids, max_size=3),
)


@given(history=st.lists(runs, min_size=1, max_size=6), slice_rows=st.sampled_from((6, 1000)))
@settings(max_examples=80)
def test_index_after_any_runs_is_what_the_model_says(history: list[Run], slice_rows: int) -> None:
    writer, model = Writer(MemoryStore(), FakeClock()), Model()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(item_index, "SLICE_ROWS", slice_rows)
        for seq, run in enumerate(history, start=1):
            assert fold_index(fold_of(writer, seq, run), f"{seq:026d}")
            model.fold(run)
    assert rows_of(writer) == model.entries


def test_index_of_a_run_folded_twice_is_the_same(writer: Writer) -> None:
    fold = fold_of(writer, 1, Run("f1", (Outcome("a", "failed", "v1"),)))
    assert fold_index(fold, "1" * 26)
    shown = read_index(writer)
    assert fold_index(fold, "2" * 26)
    assert read_index(writer) == shown
    assert rows_of(writer)["a"].failed_runs == 1, "one run was counted as two failures"


def test_index_is_not_moved_back_by_a_late_finalizer(writer: Writer) -> None:
    late = fold_of(writer, 1, Run("f1", (Outcome("a", "failed", "v1"),)))
    assert fold_index(fold_of(writer, 2, Run("f1", (Outcome("a", "succeeded", "v1"),))), "2" * 26)
    assert not fold_index(late, "1" * 26)
    assert rows_of(writer)["a"].status == "succeeded"


def test_index_failed_again_and_again_counts_runs_until_the_item_changes(writer: Writer) -> None:
    def fail(seq: int, version: str) -> int:
        fold_index(fold_of(writer, seq, Run("f1", (Outcome("a", "failed", version),))), f"{seq:026d}")
        return rows_of(writer)["a"].failed_runs

    assert [fail(1, "v1"), fail(2, "v1"), fail(3, "v1"), fail(4, "v2")] == [1, 2, 3, 1]


def test_index_large_run_is_folded_in_slices_that_together_are_all(writer: Writer) -> None:
    def many() -> Iterator[Outcome]:
        for number in range(500):
            yield Outcome(f"book/{number:04d}", "succeeded", "v1")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(item_index, "SLICE_ROWS", 7)
        fold_index(fold_of(writer, 1, Run("f1", tuple(many()))), "1" * 26)
    pointer = read_index(writer)
    assert pointer is not None
    assert len(pointer.parts) > 10
    assert len(rows_of(writer)) == 500
