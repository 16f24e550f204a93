"""Data sets of pictures as items: shards of img2dataset (Parquet) and WebDataset (tar), in the order of their names.

Layer: `worker.plan`, above `dataset_parquet` and `dataset_tar`. A shard that cannot be read becomes one failed item and
the others go on; each row of a shard that can be is an item, whatever it holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pagemill_core.errors import SourceError
from pagemill_worker.items import ItemFailure
from pagemill_worker.plan.column_types import widened
from pagemill_worker.plan.dataset_parquet import parquet_rows
from pagemill_worker.plan.dataset_tar import paired_rows, tar_rows
from pagemill_worker.plan.listing import Selection, own_places, sorted_files
from pagemill_worker.plan.request import DatasetRequest
from pagemill_worker.plan.rows import Candidates, Row, batches_of
from pagemill_worker.plan.sorting import Sorter
from pagemill_worker.plan.source_bytes import StoreOpener, open_source

PARQUET, TAR = ".parquet", ".tar"


@dataclass(slots=True)
class DatasetSource:
    """The rows of one data set, read once. `columns` fills while they are read."""

    request: DatasetRequest
    open_store: StoreOpener
    scratch: Path
    columns: dict[str, str] = field(default_factory=dict)

    def batches(self) -> Iterator[Candidates]:
        """All rows, shard after shard. "Lines" are rows of the whole data set, from 1.

        Raises: SourceError when there is no such folder; the store's errors.
        """
        return batches_of(self._rows())

    def _rows(self) -> Iterator[Row]:
        request = self.request
        selection = Selection.matching((f"*{PARQUET}", f"*{TAR}"), own_places(request))
        root, entries = sorted_files(request.uri, selection, Sorter("codePoint", self.scratch), self.open_store)
        suffixes: dict[str, list[str]] = {}
        for entry in entries:
            stem, dot, suffix = entry.name.rpartition(".")
            suffixes.setdefault(stem, []).append(dot + suffix)
        line = 0
        for stem, found in suffixes.items():
            for row in self._shard(root, stem, found):
                line += 1
                row.line = line
                yield row

    def _shard(self, root: str, stem: str, suffixes: list[str]) -> Iterator[Row]:
        """The rows of `stem.parquet`, `stem.tar`, or both together: then the tar holds what the table tells of."""
        tables = [suffix for suffix in suffixes if suffix.lower() == PARQUET]
        tars = [suffix for suffix in suffixes if suffix.lower() == TAR]
        if len(tables) == 1 and len(tars) == 1:
            yield from self._read(root, stem, tars[0], f"{root}{stem}{tables[0]}")
            return
        for suffix in suffixes:
            yield from self._read(root, stem, suffix, "")

    def _read(self, root: str, stem: str, suffix: str, table_uri: str) -> Iterator[Row]:
        uri = f"{root}{stem}{suffix}"
        try:
            with open_source(uri, self.open_store) as source:
                if table_uri:
                    with open_source(table_uri, self.open_store) as table:
                        yield from paired_rows(source, table, stem, self._note)
                elif suffix.lower() == TAR:
                    yield from tar_rows(source, stem, self._note)
                else:
                    yield from parquet_rows(source, stem, self._note)
        except SourceError as error:
            name = f"{stem}{suffix}"
            message = f"{name} cannot be read, or not to its end: {error.message}"
            yield Row(0, name, uri, failure=ItemFailure("PartUnreadable", message))

    def _note(self, name: str, kind: str) -> None:
        self.columns[name] = widened(self.columns.get(name), kind)
