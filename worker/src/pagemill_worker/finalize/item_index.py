"""Folding a run into the item index, so that the next incremental planning need not read a year of runs.

Layer: `worker.finalize`. The index has one row an identity, sorted by its digest: the newest outcome. Skipped items
change nothing; a failure hides an older success only when the source's version differs; items gone from the source
become tombstones. Memory: a slice of identities at a time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pagemill_core.work import layout as keys
from pagemill_core.work.conditional import Writer
from pagemill_core.work.index import read_index, show_index
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.records import IndexPart, IndexPointer, PlanPointer
from pagemill_worker.items import Outcome
from pagemill_worker.plan.digests import identity_digest
from pagemill_worker.plan.known import ITEM_INDEX_SCHEMA
from pagemill_worker.plan.planner import TOMBSTONES

SLICE_ROWS = 1_000_000  # about 400 MB of Python objects at most while one slice is folded

BATCH_ROWS = 1 << 17


class Row(NamedTuple):
    """A row of the index, in the order of ITEM_INDEX_SCHEMA. A million are held at once, so a tuple."""

    identity: bytes
    id: str
    version: str | None
    fingerprint: str
    status: str
    failed_runs: int


@dataclass(frozen=True, slots=True)
class Fold:
    """One run to fold: `outcomes` says afresh at each call how its items ended, in row order."""

    writer: Writer
    layout: RunLayout
    pointer: PlanPointer
    outcomes: Callable[[], Iterable[Outcome]]


def fold_index(fold: Fold, attempt: str) -> bool:
    """Write the index that includes this run, and show it. Returns: whether it is the one shown.

    Runs fold in order: with the index of a newer run in place nothing is written.
    """
    current = read_index(fold.writer)
    if current is not None and current.seq >= fold.layout.seq:
        return current.run == fold.layout.run
    parts = []
    for number, rows in enumerate(_slices(fold, current)):
        if rows or not number:
            parts.append(_write(fold, attempt, number, rows))
    return show_index(fold.writer, IndexPointer(seq=fold.layout.seq, run=fold.layout.run, parts=parts))


def _slices(fold: Fold, current: IndexPointer | None) -> Iterator[list[Row]]:
    """The new index in slices of the identities' first byte, each sorted."""
    total = fold.pointer.items + sum(part.rows for part in current.parts) if current else fold.pointer.items
    count = min(256, -(-total // SLICE_ROWS) or 1)
    for number in range(count):
        low, high = number * 256 // count, (number + 1) * 256 // count
        rows: dict[bytes, Row] = {}
        for row in _current_rows(fold.writer, current):
            if low <= row.identity[0] < high:
                rows[row.identity] = row
        for identity in _tombstones(fold):
            if low <= identity[0] < high and identity in rows:
                rows[identity] = rows[identity]._replace(status="tombstone", failed_runs=0)
        for outcome in fold.outcomes():
            identity = identity_digest(outcome.id)
            if low <= identity[0] < high:
                _fold_outcome(rows, identity, outcome, fold.pointer.fingerprint)
        yield [rows[identity] for identity in sorted(rows)]


def _fold_outcome(rows: dict[bytes, Row], identity: bytes, outcome: Outcome, fingerprint: str) -> None:
    item_id, version, status, error_class = outcome
    if status == "skipped" or error_class == "DuplicateId":
        return
    old = rows.get(identity)
    if old is not None and old.fingerprint != fingerprint:
        old = None
    differs = old is not None and None not in (version, old.version) and version != old.version
    if status == "failed" and old is not None and old.status == "succeeded" and not differs:
        return
    failed_before = old.failed_runs if old is not None and version is not None and old.version == version else 0
    failed_runs = failed_before + 1 if status == "failed" else 0
    rows[identity] = Row(identity, item_id, version, fingerprint, status, failed_runs)


def _current_rows(writer: Writer, current: IndexPointer | None) -> Iterator[Row]:
    for part in current.parts if current else ():
        blob = writer.retrying(lambda key=part.key: writer.store.get(key))  # type: ignore[misc]
        table = pq.read_table(pa.BufferReader(blob.data), columns=list(Row._fields))
        for batch in table.to_batches(BATCH_ROWS):
            yield from map(Row._make, zip(*(column.to_pylist() for column in batch.columns), strict=True))


def _tombstones(fold: Fold) -> Iterator[bytes]:
    if not fold.pointer.tombstones:
        return
    key = f"{fold.layout.plan_attempt(fold.pointer.attempt)}{TOMBSTONES}"
    blob = fold.writer.retrying(lambda: fold.writer.store.get(key))
    yield from pq.read_table(pa.BufferReader(blob.data), columns=["identity"])["identity"].to_pylist()


def _write(fold: Fold, attempt: str, number: int, rows: list[Row]) -> IndexPart:
    key = keys.index_part(fold.layout.run, attempt, number)
    with tempfile.TemporaryDirectory(prefix="pagemill-index-") as folder:
        path = Path(folder) / "items.parquet"
        with pq.ParquetWriter(path, ITEM_INDEX_SCHEMA, compression="zstd", store_schema=False) as writer:
            for start in range(0, len(rows), BATCH_ROWS):
                columns = zip(*rows[start : start + BATCH_ROWS], strict=True)
                arrays = [
                    pa.array(column, field.type) for column, field in zip(columns, ITEM_INDEX_SCHEMA, strict=True)
                ]
                writer.write_table(pa.Table.from_arrays(arrays, schema=ITEM_INDEX_SCHEMA))
        fold.writer.store.put_file(key, path)
        return IndexPart(key=key, size=path.stat().st_size, rows=len(rows))
