"""Checking what an output holds against what was planned and committed, without an engine.

Layer: `cli.output`. Reads everything of a run once and writes nothing; mending views is `repair`'s.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import zstandard

from pagemill_cli.output.standing import ledger_of
from pagemill_cli.output.target import Target, no_run
from pagemill_core.errors import IntegrityError, ObjectNotFoundError
from pagemill_core.work import layout as keys
from pagemill_core.work.commit import crc32
from pagemill_core.work.conditional import Writer
from pagemill_core.work.finalize import read_success
from pagemill_core.work.index import read_index
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.ledger import COLLECTED, Held
from pagemill_core.work.plan import read_plan
from pagemill_core.work.publish import META_CRC32, META_SEQ, read_published
from pagemill_core.work.records import Counts, Marker, OutputRef, PlanPart, PlanPointer
from pagemill_core.work.rollup import folded_segments, read_rollup
from pagemill_worker.finalize.committed import CommittedRun
from pagemill_worker.finalize.embedding_table import METADATA_KEY
from pagemill_worker.items import ItemResult
from pagemill_worker.work import shard_data

CHUNK_BYTES = 8 << 20
Fault = Literal[
    "PlanMissing", "PlanDamaged", "MarkerMissing", "MarkerWrong", "DataWrong", "RowsWrong", "RollupWrong",
    "ViewMissing", "ViewDamaged", "ViewsUnpublished", "DatasetWrong", "TableWrong", "SuccessWrong", "IndexWrong",
]  # fmt: skip
REPAIRABLE: frozenset[Fault] = frozenset(
    {"ViewMissing", "ViewDamaged", "ViewsUnpublished", "DatasetWrong", "TableWrong"}
)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was recorded. `shard` is None for what belongs to the whole run."""

    fault: Fault
    key: str
    message: str
    shard: int | None = None

    @property
    def is_repairable(self) -> bool:
        """Whether it can be made again from committed data."""
        return self.fault in REPAIRABLE

    def as_json(self) -> dict[str, Any]:
        """What `-o json` prints."""
        return {
            "fault": self.fault,
            "key": self.key,
            "message": self.message,
            "shard": self.shard,
            "repairable": self.is_repairable,
        }


@dataclass(slots=True)
class RunCheck:
    """What checking one run found. `note` says why there was nothing to check."""

    held: Held
    shards: int = 0
    markers: int = 0
    items: Counts = field(default_factory=Counts)
    views: int = 0
    size_bytes: int = 0
    problems: list[Problem] = field(default_factory=list)
    note: str = ""

    @property
    def run(self) -> str:
        return self.held.run

    def as_json(self) -> dict[str, Any]:
        """What `-o json` prints."""
        return {
            "run": self.run,
            "state": self.held.entry.state,
            "shards": self.shards,
            "markers": self.markers,
            "items": self.items.model_dump(by_alias=True),
            "views": self.views,
            "sizeBytes": self.size_bytes,
            "note": self.note,
            "problems": [problem.as_json() for problem in self.problems],
        }


def verify_output(target: Target, runs: Sequence[Held] = ()) -> Iterator[RunCheck]:
    """Check `runs` alone, or every run of the output, newest first, and the item index as part of the newest.

    Raises: ObjectNotFoundError without any run.
    """
    chosen = list(runs) or list(ledger_of(target).history())
    if not chosen:
        raise no_run(target)
    for number, held in enumerate(chosen):
        check = RunCheck(held)
        _Verifier(target, check).run()
        if number == 0 and not runs:
            check.problems += _index_problems(target.writer)
        yield check


class _Verifier:
    """One run's check."""

    def __init__(self, target: Target, check: RunCheck) -> None:
        self._target = target
        self._writer = target.writer
        self._check = check
        self._layout = RunLayout(check.held.run)
        self._is_finished = check.held.entry.state == "Finished"

    def run(self) -> None:
        if self._check.held.entry.reason == COLLECTED:
            self._check.note = "collected: newer runs hold all of it"
            return
        try:
            pointer = read_plan(self._writer, self._layout)
        except IntegrityError as error:
            self._fault("PlanDamaged", self._layout.plan_pointer, error.message)
            return
        if pointer is None:
            if self._is_finished:
                self._fault("PlanMissing", self._layout.plan_pointer, "the run is Finished, and its plan is gone")
            self._check.note = "no plan, so nothing was done"
            return
        self._check.shards = pointer.shards
        if self._plan_is_whole(pointer):
            self._check_shards(pointer)
        if self._is_finished:
            self._check_success(pointer)

    def _fault(self, fault: Fault, key: str, message: str, shard: int | None = None) -> None:
        self._check.problems.append(Problem(fault, key, message, shard))

    # -- the plan ---------------------------------------------------------------------------------------------------

    def _plan_is_whole(self, pointer: PlanPointer) -> bool:
        faults = [(part, message) for part in pointer.parts if (message := self._part_fault(part))]
        for part, message in faults:
            self._fault("PlanDamaged", part.key, message)
        rows = sum(part.rows for part in pointer.parts)
        shards = sum(part.shards for part in pointer.parts)
        if (rows, shards) != (pointer.items, pointer.shards):
            sums = f"its tables have {rows} rows in {shards} shards, it says {pointer.items} in {pointer.shards}"
            self._fault("PlanDamaged", self._layout.plan_pointer, sums)
        return not faults

    def _part_fault(self, part: PlanPart) -> str:
        digest = hashlib.sha256()
        store = self._writer.store
        try:
            for start in range(0, part.size, CHUNK_BYTES):
                # Stores retry plain reads by themselves.
                digest.update(store.get_range(part.key, start, min(CHUNK_BYTES, part.size - start)))
        except ObjectNotFoundError:
            return "it is named by the plan, but is gone"
        self._check.size_bytes += part.size
        return "" if digest.hexdigest() == part.sha256 else "its SHA-256 is not the one that the plan records"

    # -- shards -----------------------------------------------------------------------------------------------------

    def _check_shards(self, pointer: PlanPointer) -> None:
        kind = self._target.kind(pointer)
        folded = folded_segments(self._writer, self._layout)
        for segment in range(-(-pointer.shards // keys.SEGMENT_SHARDS)):
            markers = self._markers(segment)
            first = segment * keys.SEGMENT_SHARDS
            size = min(keys.SEGMENT_SHARDS, pointer.shards - first)
            if self._is_finished:
                for shard in sorted(set(range(first, first + size)) - markers.keys()):
                    self._fault("MarkerMissing", self._layout.marker(shard), "the run is Finished without it", shard)
            if segment in folded:
                self._check_rollup(segment, markers)
            for shard in sorted(markers):
                self._check_shard(kind, markers[shard])

    def _markers(self, segment: int) -> dict[int, Marker]:
        found: dict[int, Marker] = {}
        for info in self._writer.listing(self._layout.markers_of_segment(segment)):
            blob = self._writer.get(info.key)
            shard = keys.shard_of(info.key)
            try:
                if blob is not None:
                    found[shard] = Marker.from_bytes(blob.data, info.key)
            except IntegrityError as error:
                self._fault("MarkerWrong", info.key, error.message, shard)
        return found

    def _check_rollup(self, segment: int, markers: dict[int, Marker]) -> None:
        key = self._layout.rollup(segment)
        try:
            folded = read_rollup(self._writer, self._layout, segment) or []
        except (IntegrityError, zstandard.ZstdError) as error:
            self._fault("RollupWrong", key, str(error))
            return
        if {marker.shard: marker for marker in folded} != markers or len(folded) != len(markers):
            self._fault("RollupWrong", key, f"its {len(folded)} markers are not the segment's {len(markers)}")

    def _check_shard(self, kind: CommittedRun, marker: Marker) -> None:
        shard, key = marker.shard, self._layout.marker(marker.shard)
        self._check.markers += 1
        self._check.items += marker.items
        pointer = kind.pointer
        if marker.plan != pointer.attempt or marker.fingerprint != pointer.fingerprint:
            self._fault("MarkerWrong", key, "it was made for another plan or fingerprint", shard)
        if not marker.items.add_up():
            self._fault("MarkerWrong", key, "its counts do not add up", shard)
        if len(marker.outputs) != 1:
            self._fault("MarkerWrong", key, f"it names {len(marker.outputs)} outputs, not one", shard)
            return
        output = marker.outputs[0]
        try:
            for message in _row_faults(kind, marker, kind.results(marker, with_data=False)):
                self._fault("RowsWrong", output.key, message, shard)
        except IntegrityError as error:
            self._fault("DataWrong", output.key, error.message, shard)
            return
        self._check.size_bytes += output.size
        self._check_views(shard)

    # -- what users see ---------------------------------------------------------------------------------------------

    def _check_views(self, shard: int) -> None:
        key = self._layout.published(shard)
        try:
            record = read_published(self._writer, self._layout, shard)
        except IntegrityError as error:
            self._fault("ViewsUnpublished", key, error.message, shard)
            return
        if record is None:
            if self._is_finished:
                self._fault("ViewsUnpublished", key, "the run is Finished, and these views are not recorded", shard)
            return
        for view in record.views:
            self._check.views += 1
            blob = self._writer.get(view.key)
            if blob is None:
                self._fault("ViewMissing", view.key, "it was published, and is gone", shard)
            elif _seq(blob.meta.get(META_SEQ)) <= self._layout.seq:
                self._check.size_bytes += len(blob.data)
                if len(blob.data) != view.size or crc32(blob.data) != view.crc32:
                    self._fault("ViewDamaged", view.key, f"{len(blob.data)} bytes, {view.size} were published", shard)

    def _check_success(self, pointer: PlanPointer) -> None:
        try:
            success = read_success(self._writer, self._layout)
        except IntegrityError as error:
            self._fault("SuccessWrong", self._layout.success, error.message)
            return
        if success is None:
            self._fault("SuccessWrong", self._layout.success, "the run is Finished, and it is gone")
            return
        if success.totals.items != self._check.items:
            self._fault("SuccessWrong", self._layout.success, f"it counts {_said(success.totals.items)}, "
                        f"the markers {_said(self._check.items)}")  # fmt: skip
        if success.fingerprint != pointer.fingerprint:
            self._fault("SuccessWrong", self._layout.success, "its fingerprint is not the plan's")
        for part in success.dataset:
            if message := self._object_fault(part):
                self._fault("DatasetWrong", part.key, message)
        self._check_merged(pointer)

    def _check_merged(self, pointer: PlanPointer) -> None:
        """The whole-run files of results, by the checksum that each carries."""
        try:
            merged = self._target.kind(pointer).merged_keys()
        except IntegrityError as error:
            self._fault("TableWrong", METADATA_KEY, error.message)
            return
        for key in merged:
            info = self._writer.retrying(lambda key=key: self._writer.store.head(key))  # type: ignore[misc]
            if info is None:
                self._fault("TableWrong", key, "it was written, and is gone")
                continue
            self._check.size_bytes += info.size
            if self._crc_of(key, info.size) != info.meta.get(META_CRC32):
                self._fault("TableWrong", key, "its content is not what was written")

    def _object_fault(self, ref: OutputRef) -> str:
        info = self._writer.retrying(lambda: self._writer.store.head(ref.key))
        if info is None:
            return "it is recorded, and gone"
        self._check.size_bytes += info.size
        is_same = info.size == ref.size and self._crc_of(ref.key, info.size) == ref.crc32
        return "" if is_same else f"{info.size} bytes that are not the {ref.size} recorded"

    def _crc_of(self, key: str, size: int) -> str:
        """The checksum of an object that need not fit into memory."""
        checksum = 0
        for start in range(0, size, CHUNK_BYTES):
            checksum = zlib.crc32(self._writer.store.get_range(key, start, CHUNK_BYTES), checksum)
        return f"{checksum:08x}"


def _row_faults(kind: CommittedRun, marker: Marker, results: list[ItemResult]) -> Iterator[str]:
    """Each planned row exactly once, and the counts that the marker states."""
    planned = [(item.row, item.id) for item in kind.items(marker.shard)]
    found = [(result.item.row, result.item.id) for result in results]
    if found != planned:
        missing = len(set(planned) - set(found))
        yield f"{len(found)} rows for {len(planned)} planned ones, {missing} of those are missing"
    if shard_data.count(results) != marker.items:
        yield f"its rows count {_said(shard_data.count(results))}, its marker {_said(marker.items)}"
    if shard_data.failure_classes(results) != marker.failure_classes:
        yield "its failures are not of the classes that its marker counts"


def _index_problems(writer: Writer) -> Iterator[Problem]:
    try:
        pointer = read_index(writer)
    except IntegrityError as error:
        yield Problem("IndexWrong", keys.INDEX_POINTER, error.message)
        return
    for part in pointer.parts if pointer else ():
        info = writer.retrying(lambda key=part.key: writer.store.head(key))  # type: ignore[misc]
        if info is None or info.size != part.size:
            found = "gone" if info is None else f"of {info.size} bytes"
            yield Problem("IndexWrong", part.key, f"a part of {part.size} bytes is {found}")


def _seq(text: str | None) -> int:
    """The run whose view this is, 0 for a file that Pagemill did not write or that somebody replaced."""
    return int(text) if text and text.isdecimal() and text.isascii() else 0


def _said(counts: Counts) -> str:
    return f"{counts.succeeded} succeeded, {counts.failed} failed, {counts.skipped} skipped"
