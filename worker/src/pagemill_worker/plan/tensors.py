"""Partitions of tensors as items: whole, or cut into row ranges where their row count can be told.

Layer: `worker.plan`, above `tensor_files`. Every partition belongs to one rank of the report; items of one rank follow
one another, as do its rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from pagemill_core.errors import SourceError
from pagemill_worker.embed.infer.ranks import RankMap
from pagemill_worker.items import Scalar
from pagemill_worker.plan.listing import Selection, sorted_files
from pagemill_worker.plan.request import TensorsRequest
from pagemill_worker.plan.rows import Candidates, Row, batches_of, encode_columns
from pagemill_worker.plan.sorting import Entry, Sorter
from pagemill_worker.plan.source_bytes import LocalBytes, StoreBytes, StoreOpener, split_object
from pagemill_worker.plan.tensor_files import partition_rows

LOOKED_AT_ONCE = 512  # arbitrary; so many wait for a thread, and few are looked at for nothing when a plan is cut


@dataclass(slots=True)
class TensorSource:
    """The partitions of one request, read once."""

    request: TensorsRequest
    open_store: StoreOpener
    scratch: Path
    threads: Executor
    columns: dict[str, str] = field(default_factory=dict)

    def batches(self) -> Iterator[Candidates]:
        """All partitions, or their row ranges, in order. "Lines" are partitions, from 1.

        Raises: SourceError when there is no such folder or nothing in it; the store's errors.
        """
        request = self.request
        selection = Selection.matching((request.pattern,))
        root, found = sorted_files(request.uri, selection, Sorter(request.order, self.scratch), self.open_store)
        entries = list(found)
        if not entries:
            raise SourceError(
                f"{request.uri} holds no file that matches {request.pattern!r}",
                advice="set source.tensors.uri and pattern to where the partitions are",
            )
        return batches_of(self._rows(root, entries, RankMap(len(entries), request.world_size or len(entries))))

    def _rows(self, root: str, entries: Sequence[Entry], ranks: RankMap) -> Iterator[Row]:
        for index, (entry, rows) in enumerate(zip(entries, self._row_counts(root, entries), strict=True)):
            given: dict[str, Scalar] = {
                "partition": index,
                "partitions": ranks.partitions,
                "rank": ranks.rank_of(index),
                "worldSize": ranks.world_size,
            }
            stem = entry.name.rpartition(".")[0] or entry.name
            uri = root + entry.name
            size = entry.size_bytes if entry.version else None
            if rows is None:
                yield Row(index + 1, stem, uri, None, size, entry.version or None, input=encode_columns(given))
                continue
            step = self.request.rows_per_item or max(1, rows)
            for start in range(0, max(1, rows), step):
                stop = min(start + step, rows)
                part = {**given, "start": start, "stop": stop, "rows": rows}
                share = None if size is None else size * (stop - start) // max(1, rows)
                item_id = f"{stem}#{start:09d}"
                yield Row(index + 1, item_id, uri, None, share, entry.version or None, input=encode_columns(part))

    def _row_counts(self, root: str, entries: Sequence[Entry]) -> Iterator[int | None]:
        """The rows of each partition, None where they cannot be told or are not asked for."""
        if self.request.rows_per_item is None:
            yield from (None for _ in entries)
            return
        for start in range(0, len(entries), LOOKED_AT_ONCE):
            some = entries[start : start + LOOKED_AT_ONCE]
            yield from self.threads.map(lambda entry: self._row_count(f"{root}{entry.name}"), some)

    def _row_count(self, uri: str) -> int | None:
        place = split_object(uri)
        try:
            if place is None:
                with closing(LocalBytes(Path(uri))) as local:
                    return partition_rows(local)
            with closing(StoreBytes(self.open_store(place[0]), place[1], uri)) as stored:
                return partition_rows(stored)
        except SourceError:
            return None  # gone or unreadable: the item fails by name when it is read
