"""Rows of numbers in files and objects: spooled while an index is built, read back by position when it is searched.

Layer: `worker.embed.search`; numpy only. float16 or float32, row major, little endian, nothing else in the file.
"""

from __future__ import annotations

import bisect
import mmap
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from pagemill_core.errors import IntegrityError
from pagemill_core.storage.folder import FolderStore
from pagemill_core.storage.store import ObjectStore
from pagemill_worker.embed.search.manifest import IndexObject
from pagemill_worker.embed.search.parts import Matrix

Positions = NDArray[np.int64]
HALF = np.dtype("<f2")
SINGLE = np.dtype("<f4")
BLOCK_ROWS = 8192
_MAPPED_BYTES = 256 << 20  # of pages touched before they are given back
_FAULT_BYTES = 64 << 10  # what Linux maps around one touched page
_PARALLEL_READS = 16  # of single rows of an object: a search waits for a few dozen


class Spool:
    """A file that rows are appended to; use as a context, then read it with `FileRows`."""

    def __init__(self, path: Path, dtype: np.dtype[np.float16] | np.dtype[np.float32]) -> None:
        self.path = path
        self.rows = 0
        self._dtype = dtype
        self._file = path.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, rows: Matrix) -> None:
        """Append rows."""
        self._file.write(np.ascontiguousarray(rows, self._dtype).tobytes())
        self.rows += len(rows)


class Rows(Protocol):
    """Rows by position from 0."""

    @property
    def count(self) -> int:
        """How many there are."""

    def take(self, positions: Positions) -> Matrix:
        """The rows at `positions`, in that order, float32."""

    def block(self, first: int, count: int) -> Matrix:
        """Neighbouring rows, float32."""


class FileRows:
    """Rows of a local file. Blocks are read; single rows come from a mapping whose pages are given back in time, so
    that the process keeps its size however large the file is."""

    def __init__(self, path: Path, dtype: np.dtype[np.float16] | np.dtype[np.float32], dim: int) -> None:
        """Raises: IntegrityError when the file holds no whole rows."""
        self.path = path
        self.dim = dim
        self._dtype = dtype
        self._width = dtype.itemsize * dim
        size = path.stat().st_size
        if size and (not dim or size % self._width):
            raise IntegrityError(f"{path.name} does not hold rows of {dim} numbers", advice="build the index again")
        self._count = size // self._width if dim else 0
        self._map: mmap.mmap | None = None
        self._touched_bytes = 0

    @property
    def count(self) -> int:
        return self._count

    def take(self, positions: Positions) -> Matrix:
        if len(positions) > BLOCK_ROWS:
            return self._read_each(positions)
        if not len(positions):
            return np.empty((0, self.dim), np.float32)
        if self._map is None:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        rows = np.frombuffer(self._map, self._dtype).reshape(-1, self.dim)[positions].astype(np.float32)
        self._touched_bytes += len(positions) * (self._width + _FAULT_BYTES)
        if self._touched_bytes > _MAPPED_BYTES:
            self._map.madvise(mmap.MADV_DONTNEED)
            self._touched_bytes = 0
        return rows

    def _read_each(self, positions: Positions) -> Matrix:
        rows = np.empty((len(positions), self.dim), np.float32)
        with self.path.open("rb") as file:
            for number, position in enumerate(positions.tolist()):
                rows[number] = np.frombuffer(os.pread(file.fileno(), self._width, position * self._width), self._dtype)
        return rows

    def block(self, first: int, count: int) -> Matrix:
        wanted = max(0, min(count, self._count - first))
        with self.path.open("rb") as file:
            rows = np.fromfile(file, self._dtype, wanted * self.dim, offset=first * self._width)
        return np.asarray(rows.reshape(wanted, self.dim), np.float32)


@dataclass(frozen=True, slots=True)
class ObjectRows:
    """Rows of an object in a store, float16; single rows are asked for at once, and not one after the other."""

    store: ObjectStore
    key: str
    count: int
    dim: int

    def take(self, positions: Positions) -> Matrix:
        order = np.argsort(positions, kind="stable")
        if not len(order):
            return np.empty((0, self.dim), np.float32)
        with ThreadPoolExecutor(min(_PARALLEL_READS, len(order)), thread_name_prefix="rows") as pool:
            found = list(pool.map(lambda at: self.block(int(positions[at]), 1), order))
        rows = np.empty((len(positions), self.dim), np.float32)
        rows[order] = np.concatenate(found)
        return rows

    def block(self, first: int, count: int) -> Matrix:
        width = HALF.itemsize * self.dim
        wanted = max(0, min(count, self.count - first))
        data = self.store.get_range(self.key, first * width, wanted * width)
        if len(data) != wanted * width:
            raise IntegrityError(f"{self.key} is shorter than its {self.count} rows", advice="build the index again")
        return np.asarray(np.frombuffer(data, HALF).reshape(wanted, self.dim), np.float32)


class ChainedRows:
    """Several files of rows as one, in order."""

    def __init__(self, pieces: Sequence[Rows], dim: int) -> None:
        self._pieces = [piece for piece in pieces if piece.count]
        self._starts = [0]
        for piece in self._pieces:
            self._starts.append(self._starts[-1] + piece.count)
        self._dim = dim
        self.count = self._starts[-1]

    def take(self, positions: Positions) -> Matrix:
        if len(self._pieces) == 1:
            return self._pieces[0].take(positions)
        rows = np.empty((len(positions), self._dim), np.float32)
        owners = np.searchsorted(self._starts, positions, side="right") - 1
        for number in np.unique(owners):
            here = owners == number
            rows[here] = self._pieces[number].take(positions[here] - self._starts[number])
        return rows

    def block(self, first: int, count: int) -> Matrix:
        found = []
        while count > 0 and first < self.count:
            number = bisect.bisect_right(self._starts, first) - 1
            inside = first - self._starts[number]
            rows = self._pieces[number].block(inside, min(count, self._pieces[number].count - inside))
            found.append(rows)
            first, count = first + len(rows), count - len(rows)
        return np.concatenate(found) if found else np.empty((0, self._dim), np.float32)


def blocks(rows: Rows, size: int = BLOCK_ROWS) -> Iterator[tuple[int, Matrix]]:
    """(first position, rows) over all rows, in order."""
    for first in range(0, rows.count, size):
        yield first, rows.block(first, size)


def stored_rows(store: ObjectStore, objects: Sequence[IndexObject], dim: int) -> ChainedRows:
    """The rows of an index's objects: mapped into memory from a folder, by ranges from elsewhere."""
    pieces: list[Rows] = []
    for each in objects:
        if isinstance(store, FolderStore):
            pieces.append(FileRows(store.root / each.key, HALF, dim))
        else:
            pieces.append(ObjectRows(store, each.key, each.rows, dim))
    return ChainedRows(pieces, dim)
