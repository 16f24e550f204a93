"""Rows of a Parquet manifest, read by ranges; the types of its further columns are kept.

Layer: `worker.plan`; the only reader here that needs pyarrow.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pagemill_core.errors import SourceError
from pagemill_worker.plan.column_types import arrow_type_name
from pagemill_worker.plan.csv_rows import find_column
from pagemill_worker.plan.json_rows import as_text
from pagemill_worker.plan.request import ManifestRequest
from pagemill_worker.plan.rows import BATCH_ROWS, ManifestBatch, encode_columns
from pagemill_worker.plan.source_bytes import RangeFile


class ParquetTable:
    """A Parquet file whose footer has been read. `columns` maps its further columns to their types."""

    def __init__(self, file: RangeFile, request: ManifestRequest) -> None:
        self._request = request
        try:
            self._file = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            raise damaged(request.uri, error) from error
        schema = self._file.schema_arrow
        names = list(schema.names)
        if len(set(names)) != len(names):
            raise SourceError(f"{request.uri}: a column's name stands more than once")
        find_column(names, request.id_column, request.uri, request.columns_field)
        find_column(names, request.path_column, request.uri, request.columns_field)
        own = (request.id_column, request.path_column)
        self.columns = {name: arrow_type_name(schema.field(name).type) for name in names if name not in own}

    def batches(self) -> Iterator[ManifestBatch]:
        """All rows; "lines" are rows from 1. Raises: SourceError when the file is damaged or an id is no text."""
        first = 1
        batches = self._file.iter_batches(batch_size=BATCH_ROWS)
        while True:
            try:
                batch = next(batches, None)
                if batch is None:
                    return
                values = _values(batch)
            except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
                raise damaged(self._request.uri, error) from error
            if batch.num_rows:
                yield self._batch(values, range(first, first + batch.num_rows))
            first += batch.num_rows

    def _batch(self, values: dict[str, list[Any]], rows: range) -> ManifestBatch:
        request = self._request
        ids = self._texts(values[request.id_column], request.id_column, rows)
        paths = self._texts(values[request.path_column], request.path_column, rows)
        columns: list[str | None] = [None] * len(rows)
        if self.columns:
            names = list(self.columns)
            by_row = zip(*(map(as_scalar, values[name]) for name in names), strict=True)
            columns = [encode_columns(dict(zip(names, cells, strict=True))) for cells in by_row]
        return ManifestBatch(rows, ids, paths, columns)

    def _texts(self, values: list[Any], name: str, rows: range) -> list[str]:
        return [as_text(value, name, row, self._request.uri) for row, value in zip(rows, values, strict=True)]


def _values(batch: pa.RecordBatch) -> dict[str, list[Any]]:
    return {name: castable(column).to_pylist() for name, column in zip(batch.schema.names, batch.columns, strict=True)}


def castable(column: pa.Array) -> pa.Array:
    """`column` with instants as text: Python's own cannot hold nanoseconds. Aware instants are given in UTC."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        text = column.cast(pa.timestamp(kind.unit)).cast(pa.string())
        return pc.binary_join_element_wise(text, pa.scalar("Z"), "") if kind.tz else text
    if pa.types.is_duration(kind):
        return column.cast(pa.int64())
    return column.cast(pa.string()) if pa.types.is_temporal(kind) else column


def as_scalar(value: object) -> str | int | float | bool | None:
    """`value` as JSON can say it: decimals by their digits, bytes in base 64, lists and structs as JSON text."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list | dict):
        return json.dumps(value, separators=(",", ":"), default=_plain)
    return _plain(value)


def _plain(value: object) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def damaged(uri: str, error: Exception) -> SourceError:
    """What to raise for a file that Arrow cannot read."""
    return SourceError(f"{uri} is not a readable Parquet file: {str(error)[:200]}", advice="write the file again")
