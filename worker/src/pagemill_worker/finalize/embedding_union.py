"""Which rows of the runs on an output count now: of each item the newest success, unless it is gone or failed since.

Layer: `worker.finalize`. The item index says what became of an item; the dataset's parts hold its rows. Memory: some
200 MB for identities, a bit a row for the answer.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pagemill_core.storage.store import ObjectStore
from pagemill_core.work.conditional import Writer
from pagemill_core.work.index import read_index
from pagemill_worker.finalize.dataset_parts import DatasetPart, column_tables, dataset_parts, fingerprint_of, open_part
from pagemill_worker.plan.digests import DigestMap, Digests, digests_of

Bits = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class CountedPart:
    """A part with the rows of it that count, as packed bits: successes and, apart, failures."""

    part: DatasetPart
    rows: int
    kept: Bits
    failed: Bits

    def kept_mask(self) -> NDArray[np.bool_]:
        return np.unpackbits(self.kept, count=self.rows).astype(np.bool_)

    def failed_mask(self) -> NDArray[np.bool_]:
        return np.unpackbits(self.failed, count=self.rows).astype(np.bool_)

    @property
    def kept_count(self) -> int:
        return int(self.kept_mask().sum())

    @property
    def failed_count(self) -> int:
        return int(self.failed_mask().sum())


def counted_parts(writer: Writer, *, fingerprint: str, up_to: int, has_books: bool) -> list[CountedPart]:
    """What counts of all runs up to `up_to` that were made with `fingerprint`, oldest first. The item index must
    include run `up_to`."""
    parts = [part for part in dataset_parts(writer, up_to=up_to) if _fingerprint(writer.store, part) == fingerprint]
    identity = "book" if has_books else "id"
    if len({part.seq for part in parts}) <= 1:
        return [_of_one_run(writer.store, part) for part in parts]
    with tempfile.TemporaryDirectory(prefix="pagemill-union-") as scratch:
        return _Union(writer, Path(scratch), identity).count(parts)


def _fingerprint(store: ObjectStore, part: DatasetPart) -> str:
    with open_part(store, part) as file:
        return fingerprint_of(file)


def _of_one_run(store: ObjectStore, part: DatasetPart) -> CountedPart:
    """With one run alone nothing is older or newer than anything."""
    kept, failed = [np.empty(0, np.bool_)], [np.empty(0, np.bool_)]
    for table in column_tables(store, part, ["status"]):
        kept.append(_is(table, "succeeded"))
        failed.append(_is(table, "failed"))
    return _counted(part, np.concatenate(kept), np.concatenate(failed))


class _Union:
    """Walks the runs from the newest to the oldest and remembers what newer ones hold."""

    def __init__(self, writer: Writer, scratch: Path, identity: str) -> None:
        self._store = writer.store
        self._identity = identity
        self._live = _indexed(writer, scratch, "succeeded")
        self._failing = _indexed(writer, scratch, "failed")
        self._succeeded = DigestMap(scratch)
        self._failed = DigestMap(scratch)

    def count(self, parts: Sequence[DatasetPart]) -> list[CountedPart]:
        found: list[CountedPart] = []
        for seq in sorted({part.seq for part in parts}, reverse=True):
            of_run = [part for part in parts if part.seq == seq]
            new: list[Digests] = []
            lost: list[Digests] = []
            counted = [self._count(part, new, lost) for part in of_run]
            found = counted + found
            _remember(self._succeeded, new)  # only now: the pages of one book stand in several rows
            _remember(self._failed, lost)
        return found

    def _count(self, part: DatasetPart, new: list[Digests], lost: list[Digests]) -> CountedPart:
        kept, failed = [np.empty(0, np.bool_)], [np.empty(0, np.bool_)]
        for table in column_tables(self._store, part, [self._identity, "source_uri", "status", "error_class"]):
            digests = digests_of(table.column(self._identity).to_pylist())
            keep = _is(table, "succeeded")
            keep[keep] = self._live.find(digests[keep]).present & ~self._succeeded.find(digests[keep]).present
            kept.append(keep)
            new.append(digests[keep])
            fail, places = self._failures(table, digests)
            failed.append(fail)
            lost.append(places[fail])
        return _counted(part, np.concatenate(kept), np.concatenate(failed))

    def _failures(self, table: pa.Table, digests: Digests) -> tuple[NDArray[np.bool_], Digests]:
        """Which rows are the newest word on an item that fails; a row that repeats an id is judged by its place."""
        repeats = pc.fill_null(pc.equal(table.column("error_class"), "DuplicateId"), False).to_numpy()
        places = digests.copy()
        if repeats.any():
            rows = table.filter(pa.array(repeats))
            names = zip(rows.column(self._identity).to_pylist(), rows.column("source_uri").to_pylist(), strict=True)
            places[repeats] = digests_of(f"{name}\0{uri}" for name, uri in names)
        fail = _is(table, "failed")
        known = repeats | self._failing.find(digests).present
        return fail & known & ~self._failed.find(places).present, places


def _remember(known: DigestMap, batches: list[Digests]) -> None:
    for batch in batches:
        if len(batch):
            unique = np.unique(batch, axis=0)
            fresh = unique[~known.find(unique).present]
            known.add(fresh, np.zeros(len(fresh), np.uint64), np.zeros(len(fresh), np.int64))


def _indexed(writer: Writer, scratch: Path, status: str) -> DigestMap:
    """The identities whose newest outcome is `status`."""
    known = DigestMap(scratch)
    for digests in _index_batches(writer, status):
        known.add(digests, np.zeros(len(digests), np.uint64), np.zeros(len(digests), np.int64))
    return known


def _index_batches(writer: Writer, status: str) -> Iterator[Digests]:
    pointer = read_index(writer)
    for part in pointer.parts if pointer else ():
        blob = writer.retrying(lambda key=part.key: writer.store.get(key))  # type: ignore[misc]
        file = pq.ParquetFile(pa.BufferReader(blob.data))
        for batch in file.iter_batches(columns=["identity", "status"], batch_size=1 << 17):
            wanted = batch.filter(pc.equal(batch.column("status"), status)).column("identity")
            joined = b"".join(wanted.to_pylist())
            yield np.frombuffer(joined, dtype=">u8").astype(np.uint64).reshape(-1, 2)


def _is(table: pa.Table, status: str) -> NDArray[np.bool_]:
    return np.array(pc.equal(table.column("status"), status).to_numpy(), np.bool_)


def _counted(part: DatasetPart, kept: NDArray[np.bool_], failed: NDArray[np.bool_]) -> CountedPart:
    return CountedPart(part, len(kept), np.packbits(kept), np.packbits(failed))
