"""Single cells of Parquet files: pictures or texts that lie in a table, read in the order of its rows.

Layer: `worker.fetch`, above a `Fetcher`'s ranges. Rows of a shard follow one another, so a table is read on from where
the last cell stood, a few rows in memory.
"""

from __future__ import annotations

import io
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from pagemill_core.errors import RowUnusable
from pagemill_worker.fetch.fetched import Fetcher, Span, failed, shown_uri, too_large

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

TABLES_KEPT = 2  # a worker goes from one table to the next and does not come back
BATCH_ROWS = 8  # pictures of some megabytes; more would only hold memory
BUFFER_BYTES = 4 << 20  # one request; pictures of usual size come several at a time

_Key = tuple[str, str, str | None]


class CellReader:
    """Reads cells through a fetcher. Shared by threads, which take turns."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._lock = threading.Lock()
        self._tables: OrderedDict[_Key, _Table] = OrderedDict()

    def read(self, uri: str, column: str, row: int, *, version: str | None, max_bytes: int) -> bytes:
        """The cell's bytes, a text as UTF-8.

        Raises: RowUnusable when it is null, ImageTooLarge, FetchFailed for a damaged table; what the fetcher raises.
        """
        with self._lock:
            try:
                value = self._table((uri, column, version)).cell(row)
            except (pa.ArrowException, OSError, KeyError, IndexError) as error:
                self._tables.pop((uri, column, version), None)
                raise failed(uri, f"its row {row} cannot be read: {str(error)[:200]}") from error
            except BaseException:
                self._tables.pop((uri, column, version), None)  # its cursor stands nobody knows where
                raise
        if value is None:
            raise RowUnusable(f"{shown_uri(uri)}: the column {column!r} holds nothing in row {row}")
        data = value.encode("utf-8", "replace") if isinstance(value, str) else value
        if len(data) > max_bytes:
            raise too_large(uri, len(data), max_bytes)
        return data

    def _table(self, key: _Key) -> _Table:
        if key not in self._tables:
            uri, column, version = key
            self._tables[key] = _Table(_RangedFile(self._fetcher, uri, version), column)
            if len(self._tables) > TABLES_KEPT:
                self._tables.popitem(last=False)
        self._tables.move_to_end(key)
        return self._tables[key]


class _Table:
    """One column of a Parquet file with a cursor that goes forward."""

    def __init__(self, source: _RangedFile, column: str) -> None:
        self._file = pq.ParquetFile(source, buffer_size=BUFFER_BYTES, pre_buffer=False)
        self._column = column
        metadata = self._file.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._starts = [0, *accumulate(sizes)]
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._first = 0
        self._values: pa.Array | None = None
        self._group = -1

    def cell(self, row: int) -> bytes | str | None:
        if not 0 <= row < self._starts[-1]:
            raise IndexError(f"the table has {self._starts[-1]} rows")
        group = bisect_right(self._starts, row) - 1
        if group != self._group or row < self._first:
            self._group = group
            self._first = self._starts[group]
            self._values = None
            self._batches = self._file.iter_batches(
                batch_size=BATCH_ROWS, row_groups=[group], columns=[self._column], use_threads=False
            )
        while self._values is None or row >= self._first + len(self._values):
            self._first += len(self._values) if self._values is not None else 0
            self._values = _leaf(next(self._batches).column(0), self._column)
        value: bytes | str | None = self._values[row - self._first].as_py()
        return value


def _leaf(values: pa.Array, path: str) -> pa.Array:
    """The innermost values of a column that was asked for by its path."""
    for name in path.split(".")[1:]:
        if pa.types.is_struct(values.type):
            values = values.field(name)
    return values


class _RangedFile(io.RawIOBase):
    """A fetched item as a file that can be read from anywhere, every range of the same version."""

    def __init__(self, fetcher: Fetcher, uri: str, version: str | None) -> None:
        self._fetcher = fetcher
        self._uri = uri
        self._version = version
        self._size_bytes = fetcher.size_of(uri, expected_version=version)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size_bytes - self._position)
        length = left if size is None or size < 0 else min(size, left)
        if not length:
            return b""
        fetched = self._fetcher.fetch_range(self._uri, Span(self._position, length), expected_version=self._version)
        self._position += len(fetched.data)
        return fetched.data

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)
