"""Texts as items: a column of a Parquet, CSV or JSON Lines file, or of all such files below a folder.

Layer: `worker.plan`. A missing text (null) is a failed item; an empty one is a text like any other.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pagemill_core.errors import SourceError
from pagemill_worker.items import ItemFailure, Scalar
from pagemill_worker.plan.column_types import value_type_name, widened
from pagemill_worker.plan.csv_rows import CsvTable, find_column
from pagemill_worker.plan.json_rows import check_column, encode_further, parse_line
from pagemill_worker.plan.listing import Selection, own_places, sorted_files
from pagemill_worker.plan.manifest import manifest_format
from pagemill_worker.plan.parquet_scan import ParquetScan
from pagemill_worker.plan.request import ManifestFormat, ManifestRequest, TextsRequest
from pagemill_worker.plan.rows import Candidates, Row, batches_of, encode_columns
from pagemill_worker.plan.sorting import Sorter
from pagemill_worker.plan.source_bytes import (
    SourceBytes,
    StoreOpener,
    local_path,
    open_source,
    read_blocks,
    split_object,
)
from pagemill_worker.plan.text_lines import read_lines
from pagemill_worker.views.characters import valid_text

TABLES = ("*.parquet", "*.pq", "*.csv", "*.jsonl", "*.ndjson", "*.csv.gz", "*.csv.zst", "*.jsonl.gz", "*.jsonl.zst")
COLUMNS_FIELD = "spec.source.texts.column and idColumn"
MAX_INLINE_CHARS = 64 << 10  # longer texts of a Parquet file are read where they lie, so that a plan stays small


@dataclass(slots=True)
class TextSource:
    """The texts of one request, read once. `columns` fills while they are read."""

    request: TextsRequest
    open_store: StoreOpener
    scratch: Path
    columns: dict[str, str] = field(default_factory=dict)

    def batches(self) -> Iterator[Candidates]:
        """All rows, file after file in the order of their names. "Lines" are rows of all of them, from 1.

        Raises: SourceError for a folder that is not there, for a file named by itself that cannot be read, and for a
        missing column; the store's errors.
        """
        return batches_of(self._rows())

    def _rows(self) -> Iterator[Row]:
        line = 0
        for uri, name, is_one in self._files():
            for row in self._file_rows(uri, name, is_one):
                line += 1
                row.line = line
                yield row

    def _files(self) -> Iterator[tuple[str, str, bool]]:
        """Each file with the name that ids start with, and whether it is the only one."""
        uri = self.request.uri
        if self._is_file(uri):
            yield uri, posixpath.basename(uri), True
            return
        selection = Selection.matching(TABLES, own_places(self.request))
        root, entries = sorted_files(uri, selection, Sorter("codePoint", self.scratch), self.open_store)
        for entry in entries:
            yield f"{root}{entry.name}", entry.name, False

    def _is_file(self, uri: str) -> bool:
        place = split_object(uri)
        if place is None:
            folder = local_path(uri)
            return folder is None or not folder.is_dir()
        return not uri.endswith("/") and bool(place[1]) and self.open_store(place[0]).head(place[1]) is not None

    def _file_rows(self, uri: str, name: str, is_one: bool) -> Iterator[Row]:
        try:
            with open_source(uri, self.open_store) as source:
                yield from _Table(self, source, name).rows()
        except SourceError as error:
            if is_one or error.advice.startswith(f"set {COLUMNS_FIELD}"):
                raise
            message = f"{name} cannot be read, or not to its end: {error.message}"
            yield Row(0, name, uri, failure=ItemFailure("PartUnreadable", message))

    def note(self, name: str, kind: str) -> None:
        """Remember a further column's type."""
        self.columns[name] = widened(self.columns.get(name), kind)


@dataclass(slots=True)
class _Table:
    """One file of texts while it is read."""

    owner: TextSource
    source: SourceBytes
    name: str

    def rows(self) -> Iterator[Row]:
        request = self._as_manifest("auto")
        form = manifest_format(request, self.source)
        if form == "parquet":
            return self._parquet()
        return self._json() if form == "jsonLines" else self._csv()

    def _as_manifest(self, form: ManifestFormat) -> ManifestRequest:
        request = self.owner.request
        return ManifestRequest(
            uri=self.source.uri,
            id_column=request.id_column or request.column,
            path_column=request.column,
            format=form,
            columns_field=COLUMNS_FIELD,
        )

    def _parquet(self) -> Iterator[Row]:
        request = self.owner.request
        scan = ParquetScan(self.source, self.source.uri)
        names = list(scan.types)
        for wanted in (request.column, request.id_column):
            if wanted:
                find_column(names, wanted, self.source.uri, COLUMNS_FIELD)
        further = [name for name in names if name not in (request.column, request.id_column)]
        for name in further:
            self.owner.note(name, scan.types[name])
        for batch in scan.batches():
            texts = batch.columns[request.column]
            ids = batch.columns[request.id_column] if request.id_column else [None] * batch.rows
            rest = [batch.columns[name] for name in further]
            for at in range(batch.rows):
                columns = encode_columns({name: cells[at] for name, cells in zip(further, rest, strict=True)})
                yield self._row(batch.first_row + at, ids[at], texts[at], columns if further else None, in_place=True)

    def _json(self) -> Iterator[Row]:
        request, uri = self.owner.request, self.source.uri
        number = row_number = 0
        for lines in read_lines(read_blocks(self.source), uri):
            for line in lines:
                number += 1
                if line.isspace():
                    continue
                row = parse_line(line, number, uri)
                where = f"{uri}: line {number}"
                check_column(row, request.column, where, COLUMNS_FIELD)
                if request.id_column:
                    check_column(row, request.id_column, where, COLUMNS_FIELD)
                text = row.pop(request.column)
                item_id = row.pop(request.id_column, text) if request.id_column else None
                for name, value in row.items():
                    self.owner.note(name, value_type_name(value))
                yield self._row(row_number, item_id, text, encode_further(row, number, uri))
                row_number += 1

    def _csv(self) -> Iterator[Row]:
        table = CsvTable(read_lines(read_blocks(self.source), self.source.uri), self._as_manifest("csv"))
        for name in table.extra_names:
            self.owner.note(name, "string")
        has_ids = bool(self.owner.request.id_column)
        at = 0
        for batch in table.batches():
            for item_id, text, columns in zip(batch.ids, batch.paths, batch.columns, strict=True):
                yield self._row(at, item_id if has_ids else None, text, columns)
                at += 1

    def _row(self, at: int, item_id: Scalar, text: object, columns: str | None, *, in_place: bool = False) -> Row:
        request = self.owner.request
        own_id = f"{self.name}#{at:09d}"
        if request.id_column:
            own_id = "" if item_id is None else str(item_id)
        if not isinstance(text, str):
            said = "there is no text" if text is None else f"the text is a {type(text).__name__}"
            failure = ItemFailure("RowUnusable", f"{self.name}, row {at + 1}: {said} in column {request.column!r}")
            return Row(0, own_id, self.source.uri, columns=columns, failure=failure)
        if in_place and len(text) > MAX_INLINE_CHARS:
            given = encode_columns({"column": request.column, "row": at})
            return Row(0, own_id, self.source.uri, version=self.source.version, columns=columns, input=given)
        # The text itself is what an unchanged row is told by, not the file, which may have grown.
        text = valid_text(text)
        version = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        given = encode_columns({"text": text})
        return Row(0, own_id, self.source.uri, version=version, columns=columns, input=given)
