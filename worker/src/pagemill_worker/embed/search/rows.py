"""Which rows of the dataset count: the newest success of each item, unless it has left the source.

Layer: `worker.embed.search`, above `parts`. The item index decides what was replaced, failed anew or left; rows of
runs that it does not include yet count as they are. Rows of another fingerprint never mix with these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pagemill_core.clock import SystemClock
from pagemill_core.errors import ObjectNotFoundError
from pagemill_core.storage.store import ObjectStore
from pagemill_core.work.conditional import Writer
from pagemill_core.work.index import read_index
from pagemill_worker.embed.search.parts import (
    Flags,
    Matrix,
    Part,
    existing,
    fingerprint_of,
    has_vector,
    iter_batches,
    list_parts,
    matrix_of,
    open_part,
    require_column,
    vector_columns,
)
from pagemill_worker.plan.digests import DigestMap, Digests, digests_of

VECTORS = "embedding"
_SUCCEEDED = np.uint64(1)


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Rows of one part: the columns asked for, and their vectors as they are stored, shape (rows, dim), float32."""

    part: Part
    columns: pa.RecordBatch
    vectors: Matrix


@dataclass(slots=True)
class _Verdict:
    """What the item index says: everything about runs up to `seq`, nothing about later ones."""

    seq: int
    states: DigestMap

    def allows(self, digests: Digests, seq: int) -> Flags:
        if seq > self.seq:
            return np.ones(len(digests), np.bool_)
        found = self.states.find(digests)
        return np.asarray(found.present & (found.payloads == _SUCCEEDED), np.bool_)


@dataclass(slots=True)
class LiveRows:
    """The rows of an output that count. `scratch` takes what does not fit in memory.

    `fingerprint` is that of the newest run; parts of earlier runs with another one are left out, and `left_out` says
    how many. Raises: ObjectNotFoundError without a dataset; InvalidSpecError when `column` holds no vectors.
    """

    store: ObjectStore
    scratch: Path
    column: str = VECTORS
    fingerprint: str = ""
    parts: list[Part] = field(default_factory=list)
    schema: pa.Schema = None
    left_out: int = 0
    _owners: DigestMap | None = None

    @classmethod
    def open(cls, store: ObjectStore, scratch: Path, column: str = VECTORS) -> LiveRows:
        """Look at the parts; no row is read yet."""
        rows = cls(store, scratch, column)
        parts = list_parts(store)
        newest = open_part(store, parts[0])
        rows.fingerprint = fingerprint_of(newest)
        for part in parts:
            file = open_part(store, part)
            if fingerprint_of(file) != rows.fingerprint:
                rows.left_out += 1
                continue
            rows.parts.append(part)
            # Of a run without a success no part has the column.
            if rows.schema is None and column in vector_columns(file.schema_arrow):
                rows.schema = file.schema_arrow
        if rows.schema is None:
            require_column(newest.schema_arrow, column, f"the dataset of {store.uri}")
        return rows

    @property
    def newest(self) -> int:
        """The newest run of the dataset."""
        return self.parts[0].seq

    @property
    def dim(self) -> int:
        """Numbers a row, 0 where the schema does not say."""
        kind = self.schema.field(self.column).type
        return int(kind.list_size) if pa.types.is_fixed_size_list(kind) else 0

    def batches(self, columns: Sequence[str], *, after: int = 0) -> Iterator[RowBatch]:
        """Every row that counts, newest run first, of runs after `after`, with those of `columns` that are there.

        Two passes over one state of the output give the same rows in the same order.
        """
        for part in self.parts:
            if part.seq <= after:
                continue
            file = open_part(self.store, part)
            if self.column not in file.schema_arrow.names:
                continue
            item = _item_column(file.schema_arrow)
            wanted = existing(file.schema_arrow, [*columns, "status", item, self.column])
            for batch in iter_batches(file, wanted, part.key):
                live = has_vector(batch, self.column)
                live[live] = self.is_live(batch.column(item).filter(pa.array(live)).to_pylist(), part.seq)
                if live.any():
                    yield self._batch(part, batch.filter(pa.array(live)), columns)

    def is_live(self, items: Sequence[str], seq: int) -> Flags:
        """By item, as run `seq` succeeded with it: whether that row counts."""
        if self._is_plain():
            return np.ones(len(items), np.bool_)
        if self._owners is None:
            self._owners = self._find_owners()
        found = self._owners.find(digests_of(items))
        return np.asarray(found.present & (found.payloads == np.uint64(seq)), np.bool_)

    def _is_plain(self) -> bool:
        """One run has nothing to hide: what left the source was never in it."""
        return self.parts[0].seq == self.parts[-1].seq

    def _batch(self, part: Part, batch: pa.RecordBatch, columns: Sequence[str]) -> RowBatch:
        vectors = matrix_of(batch.column(self.column), part.key)
        return RowBatch(part, batch.select(existing(batch.schema, columns)), vectors)

    def _find_owners(self) -> DigestMap:
        """By item: the newest run whose row counts."""
        verdict = _read_verdict(self.store, self.fingerprint, self.scratch)
        owners = DigestMap(self.scratch)
        for part in self.parts:
            file = open_part(self.store, part)
            item = _item_column(file.schema_arrow)
            for batch in iter_batches(file, ["status", item], part.key):
                succeeded = batch.column("status").to_numpy(zero_copy_only=False) == "succeeded"
                items = list(dict.fromkeys(batch.column(item).filter(pa.array(succeeded)).to_pylist()))
                digests = digests_of(items)
                new = ~owners.find(digests).present & verdict.allows(digests, part.seq)
                count = int(new.sum())
                owners.add(digests[new], np.full(count, part.seq, np.uint64), np.zeros(count, np.int64))
        return owners


def holds_vectors(store: ObjectStore, column: str = VECTORS) -> bool:
    """Whether any part of the output's dataset has such a column; false too where there is no dataset."""
    try:
        parts = list_parts(store)
    except ObjectNotFoundError:
        return False
    return any(column in vector_columns(open_part(store, part).schema_arrow) for part in parts)


def _item_column(schema: pa.Schema) -> str:
    """Whose state the item index keeps: a book's, where rows are its pages."""
    return "book" if "book" in schema.names else "id"


def _read_verdict(store: ObjectStore, fingerprint: str, scratch: Path) -> _Verdict:
    states = DigestMap(scratch)
    pointer = read_index(Writer(store, SystemClock(), deadline_s=60.0))
    if pointer is None:
        return _Verdict(0, states)
    for part in pointer.parts:
        table = pq.ParquetFile(pa.BufferReader(store.get(part.key).data))
        for batch in table.iter_batches(columns=["identity", "fingerprint", "status"]):
            halves = np.frombuffer(b"".join(batch.column("identity").to_pylist()), ">u8")
            digests: NDArray[np.uint64] = halves.astype(np.uint64).reshape(-1, 2)
            status = batch.column("status").to_numpy(zero_copy_only=False)
            same = batch.column("fingerprint").to_numpy(zero_copy_only=False) == fingerprint
            states.add(digests, ((status == "succeeded") & same).astype(np.uint64), np.zeros(len(digests), np.int64))
    return _Verdict(pointer.seq, states)
