"""From a position in the index to the row that stands there: `ids.parquet`, one row a position, in order.

Layer: `worker.embed.search`. Written in row groups small enough that a search reads only those of its answers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pagemill_core.errors import IntegrityError
from pagemill_core.storage.store import ObjectStore
from pagemill_worker.embed.search.manifest import IndexObject
from pagemill_worker.embed.search.parts import Flags, Part, iter_batches, open_parquet

GROUP_ROWS = 2048
KEPT_GROUPS = 512  # a million rows, some 150 MB: whoever searches often reads no row twice
SHOWN = ("id", "row", "source_uri", "page", "key", "caption", "width_px", "height_px", "book")
"""Columns of the dataset that go along, where it has them."""

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("source_uri", pa.string()),
        pa.field("page", pa.int32()),
        pa.field("key", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("width_px", pa.int32()),
        pa.field("height_px", pa.int32()),
        pa.field("book", pa.string()),
        pa.field("run", pa.int32(), nullable=False),
        pa.field("part", pa.int32(), nullable=False),
        pa.field("alive", pa.bool_(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFacts:
    """Where a row comes from; `key` and `caption` are the source's own, None where it has none."""

    id: str
    run: int
    part: int
    row: int
    source_uri: str = ""
    page: int | None = None
    key: str | None = None
    caption: str | None = None
    width_px: int | None = None
    height_px: int | None = None
    book: str | None = None

    @classmethod
    def of(cls, row: dict[str, Any]) -> RowFacts:
        """From one row of the table, or of the dataset with its part."""
        given: dict[str, Any] = {name: row.get(name) for name in (*SHOWN, "run", "part")}
        return cls(**{**given, "source_uri": row.get("source_uri") or ""})


def facts_table(columns: pa.RecordBatch, part: Part) -> pa.Table:
    """Rows of the dataset as rows of `ids.parquet`, all alive."""
    count = columns.num_rows
    arrays = []
    for wanted in SCHEMA:
        if wanted.name == "run":
            arrays.append(pa.repeat(pa.scalar(part.seq, pa.int32()), count))
        elif wanted.name == "part":
            arrays.append(pa.repeat(pa.scalar(part.number, pa.int32()), count))
        elif wanted.name == "alive":
            arrays.append(pa.repeat(pa.scalar(True), count))
        elif wanted.name in columns.schema.names:
            arrays.append(_as(columns.column(wanted.name), wanted.type))
        else:
            arrays.append(pa.nulls(count, wanted.type))
    return pa.table(arrays, schema=SCHEMA)


class IdsWriter:
    """Writes the table; use as a context."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = pq.ParquetWriter(path, SCHEMA, compression="zstd", store_schema=False)
        self._held: list[pa.Table] = []
        self._held_rows = 0
        self.rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def add(self, table: pa.Table) -> None:
        """Append positions. Groups do not depend on how the rows came."""
        while table.num_rows:
            piece = table.slice(0, GROUP_ROWS - self._held_rows)
            table = table.slice(piece.num_rows)
            self._held.append(piece)
            self._held_rows += piece.num_rows
            self.rows += piece.num_rows
            if self._held_rows == GROUP_ROWS:
                self._flush()

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(pa.concat_tables(self._held).combine_chunks())
        self._held, self._held_rows = [], 0


@dataclass(slots=True)
class Ids:
    """The table of an index, read by ranges; groups are kept for the next answers, the latest `KEPT_GROUPS`."""

    store: ObjectStore
    entry: IndexObject
    _file: pq.ParquetFile = None
    _groups: OrderedDict[int, pa.RecordBatch] = field(default_factory=OrderedDict)

    def take(self, positions: NDArray[np.int64]) -> list[RowFacts]:
        """The rows at `positions`, in that order."""
        found = []
        for position in positions.tolist():
            group, inside = divmod(position, GROUP_ROWS)
            (row,) = self._group(group).slice(inside, 1).to_pylist()
            found.append(RowFacts.of(row))
        return found

    def find(self, item_id: str) -> int | None:
        """The living position of an id, None where there is none."""
        first = 0
        for batch in self.batches(["id", "alive"]):
            hit = pc.and_(pc.equal(batch.column("id"), item_id), batch.column("alive"))
            at = pc.index(hit, True).as_py()
            if at >= 0:
                return int(first + at)
            first += batch.num_rows
        return None

    def alive(self) -> Flags:
        """By position: whether a search may answer with it."""
        found = [batch.column("alive").to_numpy(zero_copy_only=False) for batch in self.batches(["alive"])]
        return np.concatenate(found).astype(np.bool_) if found else np.zeros(0, np.bool_)

    def batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """The table in order. Raises: IntegrityError when it is damaged."""
        return iter_batches(self._opened(), columns, self.entry.key)

    def _opened(self) -> pq.ParquetFile:
        if self._file is None:
            self._file = open_parquet(self.store, self.entry.key, self.entry.size)
            if self._file.metadata.num_rows != self.entry.rows:
                raise IntegrityError(f"{self.entry.key} does not have {self.entry.rows} rows")
        return self._file

    def _group(self, group: int) -> pa.RecordBatch:
        if group in self._groups:
            self._groups.move_to_end(group)
            return self._groups[group]
        try:
            table = self._opened().read_row_group(group)
        except (pa.ArrowException, OSError) as error:
            raise IntegrityError(f"{self.entry.key} cannot be read: {str(error)[:200]}") from error
        self._groups[group] = table.combine_chunks().to_batches()[0]
        if len(self._groups) > KEPT_GROUPS:
            self._groups.popitem(last=False)
        return self._groups[group]


def _as(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """A column in the table's type; a key or caption that is no text as the text it prints."""
    return column if column.type == kind else pc.cast(column, kind, safe=False)
