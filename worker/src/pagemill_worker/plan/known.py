"""What earlier runs on the same output have done already, so that an incremental run plans only what is new or changed.

Layer: `worker.plan`, above `digests`. Reads the item index that finalize folds: one row per identity with its newest
outcome, sorted by digest. An item is left out only when its version is known and the same; without one it is planned
again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pagemill_core.errors import IntegrityError
from pagemill_core.storage.store import ObjectStore
from pagemill_worker.plan.digests import IN_MEMORY_ROWS, DigestMap, Digests, digests_of, find_positions, short_digests
from pagemill_worker.plan.rows import Candidates
from pagemill_worker.plan.source_bytes import RangeFile

ITEM_INDEX_SCHEMA = pa.schema(
    [
        pa.field("identity", pa.binary(16), nullable=False),  # digests.identity_digest(id); rows are sorted by it
        pa.field("id", pa.string(), nullable=False),
        pa.field("version", pa.string()),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # succeeded, failed or tombstone
        pa.field("failed_runs", pa.int32(), nullable=False),  # runs in a row that failed at this version
    ]
)

_Row = np.dtype([("high", "<u8"), ("low", "<u8"), ("version", "<u8"), ("state", "u1")])
_NOTHING, _SUCCEEDED, _FAILED, _FAILED_FOR_GOOD = range(4)


@dataclass(frozen=True, slots=True)
class IndexObject:
    """One object of the item index."""

    key: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class KnownRules:
    """When an earlier outcome counts: under this fingerprint; a failure once it failed in more than `retries` runs."""

    fingerprint: str
    retries: int = 2


@dataclass(frozen=True, slots=True)
class Subtraction:
    """By row of a batch: done before, or failed so often at this version that it is not tried again."""

    done: NDArray[np.bool_]
    given_up: NDArray[np.bool_]


class Known(Protocol):
    """Earlier outcomes that a planner subtracts."""

    def subtract(self, batch: Candidates, digests: Digests) -> Subtraction:
        """Which rows of `batch`, whose ids have `digests`, need no work."""

    def earlier_versions(self, batch: Candidates, digests: Digests) -> dict[int, str]:
        """By index: what an earlier run read of rows whose version now is not known, and which need no work (done, or
        failed so often that they are not tried again) unless they changed."""

    def gone(self, present: DigestMap) -> Iterator[tuple[bytes, str]]:
        """(identity, id) of items that left the source."""


class KnownItems:
    """The outcomes of earlier runs: 25 bytes an item, on disk in `scratch` when there are more than two million, and
    some 40 bytes an item for its version."""

    def __init__(
        self, rows: NDArray[np.void], versions: pa.ChunkedArray, objects: Sequence[IndexObject], store: ObjectStore
    ) -> None:
        self._rows = rows
        self._versions = versions
        self._objects = objects
        self._store = store

    @classmethod
    def load(cls, store: ObjectStore, objects: Sequence[IndexObject], rules: KnownRules, scratch: Path) -> KnownItems:
        """Read the index, given in order. Raises: IntegrityError when it is damaged or not sorted."""
        tables = [_open(store, entry) for entry in objects]
        total = sum(table.metadata.num_rows for table in tables)
        rows = _room(total, scratch)
        at = 0
        versions = []
        for entry, table in zip(objects, tables, strict=True):
            for batch in table.iter_batches(columns=["identity", "version", "fingerprint", "status", "failed_runs"]):
                rows[at : at + batch.num_rows] = _rows(batch, rules)
                versions.append(batch.column("version"))
                highs = rows["high"][max(0, at - 1) : at + batch.num_rows]
                if (highs[1:] < highs[:-1]).any():
                    raise IntegrityError(f"{entry.key}: the item index is not sorted by identity")
                at += batch.num_rows
        return cls(rows, pa.chunked_array(versions, pa.string()), objects, store)

    def __len__(self) -> int:
        return len(self._rows)

    def subtract(self, batch: Candidates, digests: Digests) -> Subtraction:
        """Which rows of `batch`, whose ids have `digests`, need no work."""
        at = find_positions(self._rows, digests)
        versions = short_digests(version or "" for version in batch.versions)
        known = np.asarray([version is not None for version in batch.versions], np.bool_) & (at >= 0)
        found = self._rows[at[known]]
        same = np.zeros(len(batch), np.bool_)
        same[known] = found["version"] == versions[known]
        states = np.zeros(len(batch), np.uint8)
        states[known] = found["state"]
        return Subtraction(same & (states == _SUCCEEDED), same & (states == _FAILED_FOR_GOOD))

    def earlier_versions(self, batch: Candidates, digests: Digests) -> dict[int, str]:
        positions = find_positions(self._rows, digests)
        wanted = [at for at, version in enumerate(batch.versions) if version is None and positions[at] >= 0]
        wanted = [at for at in wanted if self._rows["state"][positions[at]] in (_SUCCEEDED, _FAILED_FOR_GOOD)]
        found = self._versions.take(pa.array(positions[wanted], pa.int64())).to_pylist() if wanted else []
        return {at: version for at, version in zip(wanted, found, strict=True) if version}

    def gone(self, present: DigestMap) -> Iterator[tuple[bytes, str]]:
        """(identity, id) of indexed items that left the source, in order; tombstones are not named again."""
        for entry in self._objects:
            for batch in _open(self._store, entry).iter_batches(columns=["identity", "id", "status"]):
                ids = batch.column("id").to_pylist()
                alive = np.asarray([status != "tombstone" for status in batch.column("status").to_pylist()], np.bool_)
                missing = alive & ~present.find(digests_of(ids)).present
                identities = batch.column("identity")
                for index in np.flatnonzero(missing):
                    yield identities[int(index)].as_py(), ids[index]


@dataclass(slots=True)
class _IndexBytes:
    store: ObjectStore
    key: str
    size_bytes: int

    def read(self, start: int, length: int) -> bytes:
        return self.store.get_range(self.key, start, length)


def _open(store: ObjectStore, entry: IndexObject) -> pq.ParquetFile:
    try:
        table = pq.ParquetFile(RangeFile(_IndexBytes(store, entry.key, entry.size_bytes)), buffer_size=1 << 20)
    except (pa.ArrowException, OSError) as error:
        raise IntegrityError(f"{entry.key} is not an item index: {str(error)[:200]}") from error
    if not table.schema_arrow.equals(ITEM_INDEX_SCHEMA):
        raise IntegrityError(f"{entry.key} is not an item index: it has other columns")
    return table


def _room(total: int, scratch: Path) -> NDArray[np.void]:
    if total <= IN_MEMORY_ROWS:
        return np.empty(total, _Row)
    return np.memmap(scratch / "known.rows", _Row, "w+", shape=(total,))


def _rows(batch: pa.RecordBatch, rules: KnownRules) -> NDArray[np.void]:
    rows = np.empty(batch.num_rows, _Row)
    identities = b"".join(batch.column("identity").to_pylist())
    halves = np.frombuffer(identities, ">u8").reshape(-1, 2)
    rows["high"], rows["low"] = halves[:, 0], halves[:, 1]
    rows["version"] = short_digests(version or "" for version in batch.column("version").to_pylist())
    told = zip(*(batch.column(name).to_pylist() for name in ("fingerprint", "status", "failed_runs")), strict=True)
    rows["state"] = [
        _state(status, failed_runs, rules) if fingerprint == rules.fingerprint else _NOTHING
        for fingerprint, status, failed_runs in told
    ]
    return rows


def _state(status: str, failed_runs: int, rules: KnownRules) -> int:
    if status == "succeeded":
        return _SUCCEEDED
    if status == "failed":
        return _FAILED_FOR_GOOD if failed_runs > rules.retries else _FAILED
    return _NOTHING
