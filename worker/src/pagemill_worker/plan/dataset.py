"""Data sets of pictures as items: shards of img2dataset (Parquet) and WebDataset (tar), in the order of their names.

Layer: `worker.plan`, above `dataset_parquet` and `dataset_tar`. A shard that cannot be read becomes one failed item and
the others go on; each row of a shard that can be is an item, whatever it holds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from pagemill_core.errors import SourceError
from pagemill_worker.items import ItemFailure
from pagemill_worker.plan.column_types import widened
from pagemill_worker.plan.dataset_parquet import parquet_rows
from pagemill_worker.plan.dataset_tar import paired_rows, tar_rows
from pagemill_worker.plan.listing import Selection, own_places, sorted_files
from pagemill_worker.plan.request import DatasetRequest
from pagemill_worker.plan.rows import Candidates, Row, batches_of, decode_columns, encode_columns
from pagemill_worker.plan.sorting import Sorter
from pagemill_worker.plan.source_bytes import StoreOpener, open_source
from pagemill_worker.views.characters import valid_text

PARQUET, TAR = ".parquet", ".tar"
PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
# A tar is walked from header to header, each a wait for the store; eight at once hide most of it.
TARS_AT_ONCE = 8
ROWS_AHEAD = 20_000  # of a tar, held until its turn comes: some 20 MB; shards have 10,000 rows as a rule


@dataclass(slots=True)
class DatasetSource:
    """The rows of one data set, read once. `columns` and `warnings` fill while they are read."""

    request: DatasetRequest
    open_store: StoreOpener
    scratch: Path
    threads: Executor
    columns: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def batches(self) -> Iterator[Candidates]:
        """All rows, shard after shard. "Lines" are rows of the whole data set, from 1.

        Raises: SourceError when there is no such folder; the store's errors.
        """
        return batches_of(self._rows())

    def _rows(self) -> Iterator[Row]:
        line = 0
        for shard in _read_ahead(self._shards(), self.threads):
            for row in shard.rows:
                line += 1
                row.line = line
                yield _with_caption(row) if self.request.with_captions else row
            for name, kind in shard.columns.items():
                self.columns[name] = widened(self.columns.get(name), kind)

    def _shards(self) -> Iterator[_Shard]:
        """The shards in the order of their names; those of one name, table and tar, are one."""
        request = self.request
        patterns = [f"*{suffix}" for suffix in (PARQUET, TAR, *PACKED)]
        selection = Selection.matching(patterns, own_places(request))
        root, entries = sorted_files(request.uri, selection, Sorter("codePoint", self.scratch), self.open_store)
        shards: dict[str, _Shard] = {}
        packed: list[str] = []
        for entry in entries:
            stem, dot, suffix = entry.name.rpartition(".")
            if entry.name.lower().endswith(PACKED):
                packed.append(entry.name)
                continue
            shard = shards.setdefault(stem, _Shard(root, stem, self.open_store))
            shard.suffixes.append(dot + suffix)
        if packed:
            self.warnings.append(
                f"{len(packed):,} tars are compressed as a whole and were passed over; unpack them (first: {packed[0]})"
            )
        yield from shards.values()


@dataclass(slots=True)
class _Shard:
    """The files of one name, with their `suffixes`. `columns` fills while `rows` are read."""

    root: str
    stem: str
    open_store: StoreOpener
    suffixes: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    _begun: Iterator[Row] | None = None

    @property
    def is_worth_reading_ahead(self) -> bool:
        return any(suffix.lower() == TAR for suffix in self.suffixes)

    @property
    def rows(self) -> Iterator[Row]:
        """All rows; to be read once."""
        return self._all_rows() if self._begun is None else self._begun

    def read_ahead(self) -> None:
        """Read the first rows now; the rest is read when they are."""
        rest = self._all_rows()
        self._begun = chain(list(islice(rest, ROWS_AHEAD)), rest)

    def _all_rows(self) -> Iterator[Row]:
        """The rows of `stem.parquet`, `stem.tar`, or both together: then the tar holds what the table tells of."""
        tables = [suffix for suffix in self.suffixes if suffix.lower() == PARQUET]
        tars = [suffix for suffix in self.suffixes if suffix.lower() == TAR]
        if len(tables) == 1 and len(tars) == 1:
            return self._read(tars[0], f"{self.root}{self.stem}{tables[0]}")
        return chain.from_iterable(self._read(suffix, "") for suffix in self.suffixes)

    def _read(self, suffix: str, table_uri: str) -> Iterator[Row]:
        uri = f"{self.root}{self.stem}{suffix}"
        try:
            with open_source(uri, self.open_store) as source:
                if table_uri:
                    with open_source(table_uri, self.open_store) as table:
                        yield from paired_rows(source, table, self.stem, self._note)
                elif suffix.lower() == TAR:
                    yield from tar_rows(source, self.stem, self._note)
                else:
                    yield from parquet_rows(source, self.stem, self._note)
        except SourceError as error:
            name = f"{self.stem}{suffix}"
            message = f"{name} cannot be read, or not to its end: {error.message}"
            yield Row(0, name, uri, failure=ItemFailure("PartUnreadable", message))

    def _note(self, name: str, kind: str) -> None:
        self.columns[name] = widened(self.columns.get(name), kind)


def _with_caption(row: Row) -> Row:
    """The row with its caption as the text that its item reads."""
    if row.failure is not None:
        return row
    caption = decode_columns(row.columns).get("caption")
    if not isinstance(caption, str):
        row.failure = ItemFailure("RowUnusable", "the row has no caption, and the job encodes captions")
        return row
    row.input = encode_columns({**decode_columns(row.input), "text": valid_text(caption)})
    return row


def _read_ahead(shards: Iterator[_Shard], threads: Executor) -> Iterator[_Shard]:
    """The shards in their order, the next few tars read meanwhile."""
    waiting: deque[tuple[_Shard, Future[None] | None]] = deque()
    try:
        while True:
            for shard in islice(shards, TARS_AT_ONCE - len(waiting)):
                waiting.append((shard, threads.submit(shard.read_ahead) if shard.is_worth_reading_ahead else None))
            if not waiting:
                return
            shard, read = waiting.popleft()
            if read is not None:
                read.result()
            yield shard
    finally:
        for _, read in waiting:
            if read is not None:
                read.cancel()
