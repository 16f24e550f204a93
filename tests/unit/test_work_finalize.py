"""Ending a run: each step may be repeated by anyone, and nothing is said before it is true."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator, Sequence

import pytest

from pagemill_core.errors import IntegrityError
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.testing.scripted_store import Answer, ScriptedStore
from pagemill_core.work import layout as keys
from pagemill_core.work.commit import commit, crc32, put_output, read_marker, read_output
from pagemill_core.work.conditional import Writer
from pagemill_core.work.finalize import (
    publish_missing,
    publish_subtracted,
    read_success,
    seal_missing,
    succeed,
    unpublished,
    write_dataset,
    write_report,
)
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.ledger import Held, Ledger, Owner, WorkRequest
from pagemill_core.work.plan import create_plan, read_plan
from pagemill_core.work.publish import META_SEQ, View, publish_view, read_published
from pagemill_core.work.records import Counts, Marker, OutputRef, PlanPointer, RunReport, Totals
from pagemill_core.work.tracker import Tracker

SHARDS = 7


class KilledError(BaseException):
    """The process is gone."""


class LinesKind:
    """A job's kind whose shards hold one line each."""

    def __init__(self, writer: Writer, layout: RunLayout) -> None:
        self.writer = writer
        self.layout = layout

    def write(self, shard: int, attempt: str, line: bytes) -> Marker:
        failed = int(line.startswith(b"failed"))
        return Marker(
            shard=shard,
            attempt=attempt,
            plan="p",
            fingerprint="f",
            items=Counts(planned=1, succeeded=1 - failed, failed=failed),
            outputs=[put_output(self.writer, self.layout, (shard, attempt, "line"), line, 1)],
            started="s",
            finished="f",
            sealed=bool(failed),
        )

    def views(self, marker: Marker) -> Iterator[View]:
        line = read_output(self.writer, marker.outputs[0])
        if not line.startswith(b"failed"):
            yield View(f"lines/{marker.shard}.txt", line)

    def seal(self, shard: int, attempt: str) -> Marker:
        return self.write(shard, attempt, b"failed: ShardAbandoned")

    def write_dataset(self, segment: int, markers: Sequence[Marker]) -> OutputRef:
        data = b"\n".join(read_output(self.writer, marker.outputs[0]) for marker in markers)
        key = keys.dataset_part(self.layout.seq, segment)
        self.writer.put(key, data)
        return OutputRef(key=key, size=len(data), crc32=crc32(data), rows=len(markers))

    def write_merged(self, pointer: PlanPointer, totals: Totals) -> None:
        publish_view(self.writer, View("summary.json", totals.model_dump_json().encode()), self.layout.seq)


class Run:
    """A run with a plan of seven shards in segments of three, and a finalizer's tools for it."""

    def __init__(self) -> None:
        self.store = ScriptedStore(MemoryStore("out"))
        self.clock = FakeClock()
        self.writer = Writer(self.store, self.clock, random.Random(1))
        self.ledger = Ledger(self.writer, Owner("u1"))
        self.open("a" * 64)

    def open(self, work_key: str, subtracted: Sequence[str] = ()) -> None:
        self.held: Held = self.ledger.adopt(WorkRequest(work_key, "OcrJob")).held
        self.layout = RunLayout(self.held.run)
        self.kind = LinesKind(self.writer, self.layout)
        self.pointer = create_plan(
            self.writer,
            self.layout,
            PlanPointer(
                run=self.layout.run,
                attempt="p",
                kind="OcrJob",
                work_key=work_key,
                work={},
                fingerprint="f",
                fingerprint_fields={},
                items=SHARDS,
                shards=SHARDS,
                subtracted=list(subtracted),
            ),
        )

    def commit(self, shards: Iterable[int]) -> None:
        for shard in shards:
            commit(self.writer, self.layout, self.kind.write(shard, "w", f"line {shard}".encode()))

    def tracker(self) -> Tracker:
        tracker = Tracker(self.writer, self.layout, SHARDS)
        tracker.poll()
        return tracker

    def succeed(self) -> None:
        succeed(self.writer, self.layout, self.pointer, self.tracker().totals, self.kind)

    def content(self) -> dict[str, bytes]:
        return {info.key: self.store.inner.get(info.key).data for info in self.store.inner.list("")}


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "SEGMENT_SHARDS", 3)


@pytest.fixture
def run() -> Run:
    return Run()


def test_publish_missing_writes_views_of_commits_minus_published(run: Run) -> None:
    run.commit([0, 1, 5])
    assert publish_missing(run.writer, run.layout, SHARDS, run.kind) == 3
    run.commit([2])

    assert [marker.shard for marker in unpublished(run.writer, run.layout, SHARDS)] == [2]
    assert publish_missing(run.writer, run.layout, SHARDS, run.kind) == 1
    assert publish_missing(run.writer, run.layout, SHARDS, run.kind) == 0
    assert run.content()["lines/2.txt"] == b"line 2"
    assert read_published(run.writer, run.layout, 2) is not None


def test_succeed_writes_views_dataset_merged_and_then_success(run: Run) -> None:
    run.commit(range(SHARDS))
    run.succeed()

    content = run.content()
    assert [content[f"lines/{shard}.txt"] for shard in range(SHARDS)] == [
        f"line {shard}".encode() for shard in range(SHARDS)
    ]
    assert content[keys.dataset_part(1, 0)] == b"line 0\nline 1\nline 2"
    assert content[keys.dataset_part(1, 2)] == b"line 6"
    success = read_success(run.writer, run.layout)
    assert success is not None
    assert success.totals.items == Counts(planned=SHARDS, succeeded=SHARDS)
    assert [part.rows for part in success.dataset] == [3, 3, 1]
    puts = [key for operation, key in run.store.calls if operation.startswith("put")]
    assert puts[-2:] == ["summary.json", run.layout.success]


def test_succeed_again_later_writes_the_same_bytes(run: Run) -> None:
    run.commit(range(SHARDS))
    run.succeed()
    before = run.content()
    run.clock.advance(86_400)
    run.succeed()

    assert run.content() == before


@pytest.mark.parametrize("operation", ["put", "put_if_absent", "get", "list"])
def test_succeed_interrupted_anywhere_and_repeated_ends_alike(run: Run, operation: str) -> None:
    run.commit(range(SHARDS))
    calm = Run()
    calm.commit(range(SHARDS))
    calm.succeed()
    want = calm.content()

    for point in range(30):
        left = point

        def kill(called: str, _key: str) -> None:
            nonlocal left
            left -= called == operation
            if left < 0:
                raise KilledError

        run.store.before = kill
        with contextlib.suppress(KilledError):
            run.succeed()
        run.store.before = None
    run.succeed()

    entry = keys.run_entry(1)
    assert {key: data for key, data in run.content().items() if key != entry} == {
        key: data for key, data in want.items() if key != entry
    }


def test_succeed_before_every_shard_is_done_is_refused(run: Run) -> None:
    run.commit(range(SHARDS - 1))
    before = run.content()

    with pytest.raises(IntegrityError, match="6 of 7 shards"):
        run.succeed()
    assert run.content().keys() - before.keys() <= {run.layout.rollup(0), run.layout.rollup(1)}


def test_write_dataset_with_a_marker_missing_is_refused(run: Run) -> None:
    run.commit([0, 1, 2, 4])

    with pytest.raises(IntegrityError, match="segment 1 has 1 of 3 markers"):
        write_dataset(run.writer, run.layout, SHARDS, run.kind)


def test_succeed_of_an_empty_plan_says_so(run: Run) -> None:
    empty = run.pointer.model_copy(update={"items": 0, "shards": 0})

    success = succeed(run.writer, run.layout, empty, Totals(), run.kind)

    assert success.dataset == []
    assert read_success(run.writer, run.layout) == success


def test_succeed_completes_views_that_a_subtracted_run_never_wrote(run: Run) -> None:
    """Its worker committed and died; the run was given up; nobody else would ever write them."""
    run.commit([0, 1])
    given_up = run.layout.run
    run.open("b" * 64, subtracted=[given_up, "00000009-deadbeef"])

    assert publish_subtracted(run.writer, run.pointer, run.kind) == 2
    assert run.store.inner.get("lines/1.txt").meta[META_SEQ] == "1"
    assert publish_subtracted(run.writer, run.pointer, run.kind) == 0

    run.commit(range(SHARDS))
    run.succeed()
    assert run.store.inner.get("lines/1.txt").meta[META_SEQ] == "2"


# -- sealing ----------------------------------------------------------------------------------------------------------


def test_seal_missing_commits_what_is_missing_as_failed(run: Run) -> None:
    run.commit([0, 2, 3])
    run.ledger.update(run.held, state="Sealing")

    assert seal_missing(run.writer, run.layout, run.tracker(), run.kind, "s") == 4

    totals = run.tracker().totals
    assert (totals.shards_done, totals.items) == (SHARDS, Counts(planned=SHARDS, succeeded=3, failed=4))


def test_seal_missing_twice_changes_nothing(run: Run) -> None:
    run.ledger.update(run.held, state="Sealing")
    stale = run.tracker()
    seal_missing(run.writer, run.layout, stale, run.kind, "s1")
    markers = [read_marker(run.writer, run.layout, shard) for shard in range(SHARDS)]

    assert seal_missing(run.writer, run.layout, stale, run.kind, "s2") == 0
    assert [read_marker(run.writer, run.layout, shard) for shard in range(SHARDS)] == markers


def test_seal_missing_zombie_commits_first_and_its_result_stays(run: Run) -> None:
    run.commit(range(SHARDS - 1))
    run.ledger.update(run.held, state="Sealing")
    tracker = run.tracker()
    run.commit([SHARDS - 1])

    assert seal_missing(run.writer, run.layout, tracker, run.kind, "s") == 0
    assert run.tracker().totals.items.failed == 0


def test_seal_missing_zombie_wakes_afterwards_and_loses(run: Run) -> None:
    zombie = run.kind.write(0, "zombie", b"line 0")
    run.ledger.update(run.held, state="Sealing")
    seal_missing(run.writer, run.layout, run.tracker(), run.kind, "s")

    committed = commit(run.writer, run.layout, zombie)

    assert not committed.won
    assert committed.marker.sealed


@pytest.mark.parametrize("state", ["Open", "Finished", "GivenUp"])
def test_seal_missing_unless_sealing_is_refused_before_anything(run: Run, state: str) -> None:
    run.ledger.update(run.held, state=state)

    with pytest.raises(IntegrityError, match=state):
        seal_missing(run.writer, run.layout, run.tracker(), run.kind, "s")
    assert run.tracker().totals.shards_done == 0


# -- plan and report --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [Answer.OK, Answer.LOST, Answer.TOLD_EXISTS])
def test_create_plan_second_planner_gets_the_first_ones_plan(run: Run, answer: Answer) -> None:
    run.store.script("put_if_absent", answer)
    late = run.pointer.model_copy(update={"attempt": "late", "items": 99})

    assert create_plan(run.writer, run.layout, late) == run.pointer
    assert read_plan(run.writer, run.layout) == run.pointer


def test_read_plan_and_success_before_they_exist_are_none(run: Run) -> None:
    assert read_plan(run.writer, RunLayout("00000005-aaaaaaaa")) is None
    assert read_success(run.writer, run.layout) is None


def test_report_is_one_per_epoch(run: Run) -> None:
    for epoch in (1, 2, 2):
        report = RunReport(run=run.layout.run, kind="OcrJob", outcome="Cancelled", totals=Totals())
        write_report(run.writer, run.layout, epoch, report)

    reports = [key for key in run.content() if "/reports/" in key]
    assert reports == [run.layout.report(1), run.layout.report(2)]
