"""Books whose pages are rows of a table: written once by the planner, read by the row range of one book.

Layer: `worker.embed`, beside `books`; no machine-learning package. For books that are no folder of pictures, such as
the pages of an OcrJob, whose files and texts may lie anywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pagemill_core.errors import SourceChanged, SourceError
from pagemill_worker.embed.books import BookPage, BookPages
from pagemill_worker.embed.page_text import PageText
from pagemill_worker.items import ItemFailure, PlannedItem
from pagemill_worker.plan.source_bytes import RangeFile, StoreOpener, open_source

GROUP_ROWS = 512  # a book of a few hundred pages is one or two requests
SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("page", pa.int32()),
        pa.field("version", pa.string()),
        pa.field("text", pa.string(), nullable=False),
        pa.field("error_class", pa.string()),
        pa.field("error_message", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class TablePage:
    """One row: a page whose `text` is already in the form that the encoder is given."""

    name: str
    uri: str
    page: int | None
    version: str | None
    text: str
    failure: ItemFailure | None = None


class BookTableWriter:
    """Writes pages, book after book, into a local file; constant memory."""

    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, SCHEMA, compression="zstd", store_schema=False)
        self._held: list[TablePage] = []
        self.rows = 0

    def add(self, page: TablePage) -> None:
        self._held.append(page)
        self.rows += 1
        if len(self._held) >= GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        rows = [
            {
                "name": page.name,
                "uri": page.uri,
                "page": page.page,
                "version": page.version,
                "text": page.text,
                "error_class": page.failure.error_class if page.failure else None,
                "error_message": page.failure.message if page.failure else None,
            }
            for page in self._held
        ]
        if rows:
            self._writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
        self._held = []


def table_digest(pages: Iterable[TablePage]) -> str:
    """A digest that changes with every page's name, place, version and text, and with their order."""
    seen = hashlib.sha256()
    for page in pages:
        failure = page.failure.error_class if page.failure else None
        seen.update(json.dumps([page.name, page.uri, page.page, page.version, page.text, failure]).encode() + b"\n")
    return seen.hexdigest()


def table_book(item: PlannedItem, open_store: StoreOpener) -> BookPages:
    """The pages of a planned book. Raises: SourceChanged when its table is not what was planned; the store's errors."""
    first, count = item.input.get("first"), item.input.get("pages")
    if not isinstance(first, int) or not isinstance(count, int):
        raise SourceChanged(f"the plan does not say which rows are the pages of {item.id}", advice="plan again")
    try:
        with open_source(str(item.input["table"]), open_store) as source:
            rows = _read(pq.ParquetFile(RangeFile(source), pre_buffer=True), first, count)
    except (SourceError, pa.ArrowException, OSError) as error:
        raise SourceChanged(f"the planned pages of {item.id} cannot be read: {error}", advice="plan again") from error
    found = table_digest(rows)
    if len(rows) != count or (item.version is not None and found != item.version):
        raise SourceChanged(f"the planned pages of {item.id} are not there any more", advice="plan again")
    return BookPages(tuple(map(_page, rows)), found)


def _read(file: pq.ParquetFile, first: int, count: int) -> list[TablePage]:
    groups: list[int] = []
    start = skipped = 0
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if start + rows <= first:
            skipped = start + rows
        elif start < first + count:
            groups.append(group)
        start += rows
    table = file.read_row_groups(groups, columns=SCHEMA.names) if groups else SCHEMA.empty_table()
    return [
        TablePage(
            row["name"],
            row["uri"],
            row["page"],
            row["version"],
            row["text"],
            None if row["error_class"] is None else ItemFailure(row["error_class"], row["error_message"] or ""),
        )
        for row in table.slice(first - skipped, count).to_pylist()
    ]


def _page(row: TablePage) -> BookPage:
    # The text stands for both readings: the planner wrote the one that the job asks for.
    text = PageText(row.text, row.text, "text")
    return BookPage(row.name, row.uri, version=row.version, page=row.page, text=text, failure=row.failure)
