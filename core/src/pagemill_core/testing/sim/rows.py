"""What simulated jobs work on: a plan of a few rows, their results, and a job's kind made of JSON.

Layer: `core.testing.sim`. Everything a real kind does with Parquet happens here with small JSON lists, so that a
schedule costs milliseconds; the protocol's own objects are the real ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pagemill_core.clock import iso
from pagemill_core.errors import StoreUnavailableError
from pagemill_core.work import layout as keys
from pagemill_core.work.attempts import scan_segment
from pagemill_core.work.commit import crc32, put_output, read_output
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.publish import View, publish_view
from pagemill_core.work.records import Counts, FailureSample, Marker, OutputRef, PlanPointer, Totals

SUMMARY_KEY = "metadata.json"


class PlanRow(NamedTuple):
    """One item as planned."""

    row: int
    id: str
    version: int


class ResultRow(NamedTuple):
    """One item as it ended; `by` is the attempt that computed it, so that two attempts' results can be told apart."""

    row: int
    id: str
    version: int
    status: str
    error_class: str
    by: str


def encode(rows: object) -> bytes:
    return json.dumps(rows, separators=(",", ":")).encode()


def decode_plan(data: bytes) -> list[list[PlanRow]]:
    return [[PlanRow(*row) for row in shard] for shard in json.loads(data)]


def decode_results(data: bytes) -> list[ResultRow]:
    return [ResultRow(*row) for row in json.loads(data)]


def encode_partial(fingerprint: str, rows: Sequence[ResultRow]) -> bytes:
    return encode([fingerprint, rows])


def view_key(item: str) -> str:
    return f"ocr_results/{item}_ocr.json"


def view_of(row: ResultRow) -> View:
    return View(view_key(row.id), encode(row))


def count(rows: Sequence[ResultRow]) -> Counts:
    statuses = [row.status for row in rows]
    return Counts(
        planned=len(rows),
        succeeded=statuses.count("succeeded"),
        failed=statuses.count("failed"),
        skipped=statuses.count("skipped"),
    )


@dataclass(frozen=True)
class Commission:
    """Everything that an attempt at a shard needs besides the rows."""

    writer: Writer
    layout: RunLayout
    pointer: PlanPointer

    def write_marker(self, shard: int, attempt: str, rows: Sequence[ResultRow], *, is_sealed: bool = False) -> Marker:
        """Write an attempt's output and describe it; commits nothing."""
        now = iso(self.writer.clock.now())
        output = put_output(self.writer, self.layout, (shard, attempt, "rows.parquet"), encode(rows), len(rows))
        failed = [row for row in rows if row.status == "failed"]
        classes: dict[str, int] = {}
        for row in failed:
            classes[row.error_class] = classes.get(row.error_class, 0) + 1
        return Marker(
            shard=shard,
            attempt=attempt,
            plan=self.pointer.attempt,
            fingerprint=self.pointer.fingerprint,
            items=count(rows),
            failures=[FailureSample(item=row.id, error_class=row.error_class) for row in failed[:3]],
            failure_classes=classes,
            outputs=[output],
            started=now,
            finished=now,
            worker="sim",
            seconds=0.1 * (shard + 1),
            sealed=is_sealed,
        )

    def kept_rows(self, partial_keys: Iterable[str], planned: Sequence[PlanRow]) -> dict[int, ResultRow]:
        """Rows that earlier attempts saved, by row; those of another fingerprint or plan do not count."""
        kept: dict[int, ResultRow] = {}
        want = {row.row: row for row in planned}
        for key in partial_keys:
            blob = self.writer.get(key)
            if blob is None:
                continue
            fingerprint, rows = json.loads(blob.data)
            if fingerprint != self.pointer.fingerprint:
                continue
            for row in (ResultRow(*row) for row in rows):
                planned_row = want.get(row.row)
                if planned_row is not None and (row.id, row.version) == (planned_row.id, planned_row.version):
                    kept[row.row] = row
        return kept


@dataclass(frozen=True)
class SimKind:
    """The `Kind` of simulated jobs."""

    work: Commission
    table: Sequence[Sequence[PlanRow]]

    def views(self, marker: Marker) -> Iterator[View]:
        (output,) = marker.outputs
        rows = decode_results(read_output(self.work.writer, output))
        return (view_of(row) for row in rows if row.status == "succeeded")

    def seal(self, shard: int, attempt: str) -> Marker:
        scan = scan_segment(self.work.writer, self.work.layout, keys.segment_of(shard))
        planned = self.table[shard]
        kept = self.work.kept_rows(scan.partials.get(shard, ()), planned)
        rows = [kept.get(row.row) or ResultRow(*row, "failed", "ShardAbandoned", attempt) for row in planned]
        return self.work.write_marker(shard, attempt, rows, is_sealed=True)

    def write_dataset(self, segment: int, markers: Sequence[Marker]) -> OutputRef:
        writer = self.work.writer
        rows: list[ResultRow] = []
        for marker in markers:
            rows += decode_results(read_output(writer, marker.outputs[0]))
        key = keys.dataset_part(self.work.layout.seq, segment)
        data = encode(rows)
        writer.put(key, data)
        return OutputRef(key=key, size=len(data), crc32=crc32(data), rows=len(rows))

    def write_merged(self, pointer: PlanPointer, totals: Totals) -> None:
        summary = {"run": pointer.run, "totals": totals.model_dump(mode="json")}
        publish_view(self.work.writer, View(SUMMARY_KEY, encode(summary)), self.work.layout.seq)


def read_table(writer: Writer, pointer: PlanPointer) -> list[list[PlanRow]]:
    """The plan's rows by shard. Raises: StoreUnavailableError when a table that the pointer names is not there."""
    table: list[list[PlanRow]] = []
    for part in pointer.parts:
        blob = writer.get(part.key)
        if blob is None:
            raise StoreUnavailableError(f"{part.key} is named by the plan, but is gone")
        table += decode_plan(blob.data)
    return table
