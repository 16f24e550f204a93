"""The rows that count, as every destination takes them: one schema, batches in order.

Layer: the bottom of `worker.export`; reads only, one batch in memory at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pagemill_core.errors import InvalidSpecError
from pagemill_core.storage.store import ObjectStore
from pagemill_worker.embed.search.parts import Matrix
from pagemill_worker.embed.search.rows import VECTORS, LiveRows, RowBatch

_TOLD_ELSEWHERE = ("status", "error_class", "error_message")


@dataclass(frozen=True, slots=True)
class Exported:
    """How an export ended. `written` are rows that are new or changed there, `deleted` rows that left the output;
    None where the destination is written whole."""

    destination: str
    rows: int
    dim: int
    seconds: float
    written: int | None = None
    deleted: int | None = None


@dataclass(slots=True)
class ExportRows:
    """The rows of one output with all their columns; those of a failure are not among them."""

    live: LiveRows
    schema: pa.Schema
    dim: int

    @classmethod
    def open(cls, store: ObjectStore, scratch: Path, column: str = VECTORS) -> ExportRows:
        """Raises: ObjectNotFoundError without a dataset; InvalidSpecError without such a column, or for one whose
        length is not told by its type."""
        live = LiveRows.open(store, scratch, column)
        if not live.dim:
            raise InvalidSpecError(f"the column {column} holds lists of any length, which cannot be exported")
        fields = [field for field in live.schema if field.name not in _TOLD_ELSEWHERE]
        metadata = {b"pagemill.fingerprint": live.fingerprint.encode(), b"pagemill.output": store.uri.encode()}
        return cls(live, pa.schema(fields, metadata=metadata), live.dim)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Every row in the one schema; a column that an earlier run lacks is null there."""
        others = [name for name in self.schema.names if name != self.live.column]
        for batch in self.live.batches(others):
            yield pa.RecordBatch.from_arrays([self._column(field, batch) for field in self.schema], schema=self.schema)

    def pairs(self) -> Iterator[tuple[list[dict[str, Any]], Matrix]]:
        """(columns of each row but its vectors, vectors) by batch; values are as JSON has them."""
        vectors = [field.name for field in self.schema if pa.types.is_fixed_size_list(field.type)]
        others = [name for name in self.schema.names if name not in vectors]
        for batch in self.live.batches(others):
            yield [_plain(row) for row in batch.columns.to_pylist()], batch.vectors

    def _column(self, field: pa.Field, batch: RowBatch) -> pa.Array:
        if field.name == self.live.column:
            flat = pa.array(batch.vectors.reshape(-1).astype(field.type.value_type.to_pandas_dtype()))
            return pa.FixedSizeListArray.from_arrays(flat, type=field.type)
        if field.name not in batch.columns.schema.names:
            return pa.nulls(len(batch.vectors), field.type)
        column = batch.columns.column(field.name)
        return column if column.type == field.type else pc.cast(column, field.type)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """`row` without nulls, with values that JSON and databases hold: no NaN, no NUL character, dates as text."""
    found = {name: _value(value) for name, value in row.items()}
    return {name: value for name, value in found.items() if value is not None}


def _value(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, (list, tuple)):
        return [_value(each) for each in value]
    if isinstance(value, dict):
        return {str(_value(name)): _value(each) for name, each in value.items()}
    return value if value is None or isinstance(value, (bool, int)) else str(value)
