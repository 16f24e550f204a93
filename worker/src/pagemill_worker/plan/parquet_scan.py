"""A Parquet file read once from end to end, a batch of rows in memory, columns of large bytes left alone.

Layer: `worker.plan`; for sources whose rows become items with all their columns (`parquet_rows` reads manifests).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pagemill_core.errors import SourceError
from pagemill_worker.items import Scalar
from pagemill_worker.plan.column_types import arrow_type_name
from pagemill_worker.plan.parquet_rows import as_scalar, castable, damaged
from pagemill_worker.plan.source_bytes import Ranged, RangeFile

BATCH_ROWS = 8_192  # arbitrary; with captions of a kilobyte a batch is 8 MB


@dataclass(frozen=True, slots=True)
class ScanBatch:
    """Rows from `first_row` on, from 0, by column."""

    first_row: int
    rows: int
    columns: Mapping[str, list[Scalar]]


class ParquetScan:
    """A Parquet file whose footer has been read. `types` are its columns' by name, `rows` how many it has.

    `picture` is the column that holds pictures as bytes, None where there is none; neither it nor any other column of
    bytes that is named like a picture is among `types`.
    """

    def __init__(self, source: Ranged, uri: str) -> None:
        """Raises: SourceError when the file is no Parquet."""
        self._uri = uri
        try:
            self._file = pq.ParquetFile(RangeFile(source), buffer_size=1 << 20, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            raise damaged(uri, error) from error
        schema = self._file.schema_arrow
        if len(set(schema.names)) != len(schema.names):
            raise SourceError(f"{uri}: a column's name stands more than once")
        pictures = [path for name in schema.names if (path := _picture_path(schema.field(name)))]
        self.picture = pictures[0] if pictures else None
        hidden = {path.partition(".")[0] for path in pictures}
        self.types = {name: arrow_type_name(schema.field(name).type) for name in schema.names if name not in hidden}
        self.rows = self._file.metadata.num_rows

    def batches(self, only: Sequence[str] | None = None) -> Iterator[ScanBatch]:
        """All rows, of all columns or those named `only`.

        Raises: SourceError where the file is damaged; rows before that place were delivered.
        """
        first = 0
        names = list(self.types) if only is None else list(only)
        if not names:
            for start in range(0, self.rows, BATCH_ROWS):
                yield ScanBatch(start, min(BATCH_ROWS, self.rows - start), {})
            return
        found = self._file.iter_batches(batch_size=BATCH_ROWS, columns=names)
        while True:
            try:
                batch = next(found, None)
                if batch is None:
                    return
                columns = {name: _scalars(batch.column(name)) for name in names}
            except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
                raise damaged(self._uri, error) from error
            if batch.num_rows:
                yield ScanBatch(first, batch.num_rows, columns)
            first += batch.num_rows


_PICTURE_NAMES = frozenset(
    {"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "image", "image_bytes", "picture", "bytes"}
)


def _picture_path(column: pa.Field) -> str | None:
    """The path of `column` when it holds pictures: bytes, or a struct with `bytes` as libraries of data sets write."""
    if column.name.lower() not in _PICTURE_NAMES:
        return None
    kind = column.type
    if pa.types.is_struct(kind):
        inner = [kind.field(at) for at in range(kind.num_fields)]
        return next((f"{column.name}.bytes" for one in inner if one.name == "bytes" and _is_bytes(one.type)), None)
    return column.name if _is_bytes(kind) else None


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _scalars(column: pa.Array) -> list[Scalar]:
    kind = column.type
    values = castable(column).to_pylist()
    simple = pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return values if simple else [as_scalar(value) for value in values]
