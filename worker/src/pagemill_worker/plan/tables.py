"""The plan's tables: Parquet parts that a worker reads a few row groups of, by ranges.

Layer: `worker.plan`; the only module that knows the tables' form. Part n holds the shards of segment n (1000 each), row
groups end where a shard ends, and their statistics say which shards they hold: so the plan's pointer needs one line a
part, and a worker reads a footer and the one or two row groups of its own shard, however large the plan is. Every page
has a checksum, which reading checks.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pagemill_core.storage.store import ObjectStore
from pagemill_core.work.layout import SEGMENT_SHARDS
from pagemill_core.work.records import PlanPart
from pagemill_worker.plan.rows import Candidates

GROUP_ROWS = 4_096  # about 100 KB packed: one request, and little waste for a worker that needs a tenth of it
MAX_GROUP_ROWS = 65_536  # a larger shard becomes several row groups

PLAN_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("page", pa.int32()),
        pa.field("size_bytes", pa.int64()),
        pa.field("version", pa.string()),
        pa.field("earlier_version", pa.string()),  # read by an earlier run, where the version now is not known
        pa.field("failure_class", pa.string()),
        pa.field("failure_message", pa.string()),
        pa.field("columns", pa.string()),  # a JSON object of the source's own further columns
        pa.field("input", pa.string()),  # a JSON object of what a runner needs besides the URI
    ]
)


class TableWriter:
    """Writes items in plan order into parts below `prefix` of a store, through files in `scratch`.

    Constant memory: a row group at most. Nothing counts until a pointer names the parts.
    """

    def __init__(self, store: ObjectStore, prefix: str, scratch: Path) -> None:
        self._store = store
        self._prefix = prefix
        self._scratch = scratch
        self._pending: list[pa.Table] = []
        self._part: _Part | None = None
        self.parts: list[PlanPart] = []
        self.rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._part:
            self._part.abandon()

    def add(self, batch: Candidates, shards: NDArray[np.int64]) -> None:
        """Write the next rows; `shards` holds each row's shard and never falls."""
        table = _table(batch, shards, self.rows)
        self.rows += len(batch)
        segments = shards // SEGMENT_SHARDS
        cuts = [0, *(np.flatnonzero(np.diff(segments)) + 1).tolist(), len(shards)]
        for start, end in zip(cuts, cuts[1:], strict=False):
            if start == end:
                continue
            if self._part and self._part.segment != int(segments[start]):
                self._finish_part()
            if self._part is None:
                self._part = _Part(int(segments[start]), self._scratch, self.rows - len(batch) + start)
            self._pending.append(table.slice(start, end - start))
            self._flush_whole_shards(self._part)

    def finish(self) -> list[PlanPart]:
        """Write what is left. Returns: all parts, in order."""
        self._finish_part()
        return self.parts

    def _flush_whole_shards(self, part: _Part) -> None:
        waiting = sum(piece.num_rows for piece in self._pending)
        if waiting < GROUP_ROWS:
            return
        table = pa.concat_tables(self._pending)
        shards = table["shard"].to_numpy()
        ends = np.flatnonzero(np.diff(shards)) + 1
        start = 0
        for end in ends.tolist():
            if end - start >= GROUP_ROWS:
                part.write(table.slice(start, end - start))
                start = end
        while table.num_rows - start >= MAX_GROUP_ROWS:
            part.write(table.slice(start, MAX_GROUP_ROWS))
            start += MAX_GROUP_ROWS
        self._pending = [table.slice(start)] if start < table.num_rows else []

    def _finish_part(self) -> None:
        if self._part is None:
            return
        if self._pending:
            self._part.write(pa.concat_tables(self._pending))
            self._pending = []
        part, self._part = self._part, None
        self.parts.append(part.upload(self._store, self._prefix))


class _Part:
    """One part while it is written to a local file."""

    def __init__(self, segment: int, scratch: Path, first_row: int) -> None:
        self.segment = segment
        self._first_row = first_row
        self._rows = 0
        self._last_shard = 0
        self._path = scratch / f"shards-{segment:05d}.parquet"
        self._writer = pq.ParquetWriter(
            self._path,
            PLAN_SCHEMA,
            compression="zstd",
            use_dictionary=["failure_class"],
            write_statistics=["shard", "row"],
            write_page_checksum=True,
            store_schema=False,
        )

    def write(self, table: pa.Table) -> None:
        """Write a row group."""
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self._rows += table.num_rows
        self._last_shard = table["shard"][-1].as_py()

    def upload(self, store: ObjectStore, prefix: str) -> PlanPart:
        self._writer.close()
        with self._path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        key = f"{prefix}{self._path.name}"
        size = self._path.stat().st_size
        store.put_file(key, self._path)
        self._path.unlink()
        first_shard = self.segment * SEGMENT_SHARDS
        return PlanPart(
            key=key,
            size=size,
            sha256=sha256,
            first_shard=first_shard,
            shards=self._last_shard - first_shard + 1,
            first_row=self._first_row,
            rows=self._rows,
        )

    def abandon(self) -> None:
        self._writer.close()
        self._path.unlink(missing_ok=True)


def storable(texts: list[str]) -> list[str]:
    """Texts with halves of surrogate pairs, which no UTF-8 table can hold, as `\\udc80`; such items have failed."""
    return [text.encode("utf-8", "backslashreplace").decode() for text in texts]


def _table(batch: Candidates, shards: NDArray[np.int64], first_row: int) -> pa.Table:
    count = len(batch)
    classes: list[str | None] = [None] * count
    messages: list[str | None] = [None] * count
    for at, failure in batch.failures.items():
        classes[at] = failure.error_class
        messages[at] = storable([failure.message])[0]
    columns = [
        pa.array(shards.astype(np.int32)),
        pa.array(np.arange(first_row, first_row + count, dtype=np.int64)),
        _texts(batch.ids),
        _texts(batch.uris),
        pa.array(batch.pages, pa.int32()),
        pa.array(batch.sizes, pa.int64()),
        pa.array(batch.versions, pa.string()),
        pa.array([batch.earlier.get(at) for at in range(count)], pa.string()),
        pa.array(classes, pa.string()),
        pa.array(messages, pa.string()),
        pa.array(batch.columns, pa.string()),
        pa.array([batch.inputs.get(at) for at in range(count)], pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=PLAN_SCHEMA)


def _texts(texts: list[str]) -> pa.Array:
    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:
        return pa.array(storable(texts), pa.string())
