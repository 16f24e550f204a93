"""An OcrJob's pages as items, or its folders as books.

Layer: `worker.plan`, above `ocr_output`. A book's pages go into a table of their own beside the plan, since their files
may lie anywhere and their texts are in no file.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path

from pagemill_core.errors import SourceError, UnsafeId
from pagemill_core.ids import check_item_id
from pagemill_worker.embed.book_table import BookTableWriter, TablePage, table_digest
from pagemill_worker.items import ItemFailure
from pagemill_worker.plan.ocr_output import OcrOutput, OcrPage
from pagemill_worker.plan.rows import Candidates, Row, batches_of, encode_columns
from pagemill_worker.plan.sorting import Entry, Sorter

Publish = Callable[[str, Path], str]
"""Puts a local file beside the plan under a name, and gives its URI."""

TABLE = "books.parquet"
PAGES_IN_MEMORY = 20_000  # with their texts some 100 MB
_PAGE_OF_FILE = re.compile(r"#p\d{4,}\Z")


@dataclass(slots=True)
class OcrPageSource:
    """The items of one OcrJob's output, read once. `columns` fills while they are read."""

    output: OcrOutput
    scratch: Path
    publish: Publish | None = None
    columns: dict[str, str] = field(default_factory=dict)

    def batches(self) -> Iterator[Candidates]:
        """All items. Raises: SourceError when there is no finished OcrJob's output; the store's errors."""
        yield from batches_of(self._books() if self.output.request.by_folder else self._pages())

    def _pages(self) -> Iterator[Row]:
        for line, page in enumerate(self.output.pages(), 1):
            self.columns.update(self.output.columns)
            yield Row(
                line,
                page.id,
                page.uri,
                page=page.page,
                version=page.version,
                columns=encode_columns(page.columns) if page.columns else None,
                failure=page.failure,
                input=encode_columns({"text": page.text}) if page.failure is None else None,
            )

    def _books(self) -> Iterator[Row]:
        """Books in the order of their names; pages that belong to none are failed items of their own."""
        if self.publish is None:
            raise SourceError("books of an OcrJob need a place beside the plan")
        sorter = Sorter("codePoint", self.scratch, in_memory=PAGES_IN_MEMORY)
        stray: list[OcrPage] = []
        for page in self.output.pages():
            book, name = split_page(page)
            if book:
                sorter.add(Entry(f"{book}\0{name}", 0, json.dumps(asdict(_table_page(page, name)))))
            else:
                stray.append(page)
        path = self.scratch / TABLE
        books = list(_written(sorter, path))
        table_uri = self.publish(TABLE, path)
        path.unlink()
        for line, written in enumerate(books, 1):
            yield _book_row(line, written, table_uri)
        for line, page in enumerate(stray, len(books) + 1):
            failure = ItemFailure("RowUnusable", "the page's id has no folder, so the page belongs to no book")
            yield Row(line, page.id, page.uri, failure=failure)


@dataclass(frozen=True, slots=True)
class _Book:
    id: str
    uri: str
    first: int
    pages: int
    digest: str


def split_page(page: OcrPage) -> tuple[str, str]:
    """The book that a page belongs to, "" for none, and its name in it: the folder and the rest of its id.

    A PDF that lies in no folder is itself the book of its pages.
    """
    book, _, name = page.id.rpartition("/")
    found = _PAGE_OF_FILE.search(name) if not book and page.page is not None else None
    return (name[: found.start()], name[found.start() + 1 :]) if found else (book, name)


def _written(sorter: Sorter, path: Path) -> Iterator[_Book]:
    """Write all pages; give what is to be planned of each book."""
    writer = BookTableWriter(path)
    try:
        for name, entries in groupby(sorter, key=lambda entry: entry.name.partition("\0")[0]):
            first = writer.rows
            pages = [_read_page(entry.version) for entry in entries]
            for page in pages:
                writer.add(page)
            yield _Book(name, posixpath.dirname(pages[0].uri), first, len(pages), table_digest(pages))
    finally:
        writer.close()


def _book_row(line: int, book: _Book, table_uri: str) -> Row:
    try:
        check_item_id(book.id, prefix="visual", suffix=".pt")
    except UnsafeId as error:
        return Row(line, book.id, book.uri, failure=ItemFailure.of(error))
    given = encode_columns({"table": table_uri, "first": book.first, "pages": book.pages})
    return Row(line, book.id, book.uri, version=book.digest, input=given)


def _table_page(page: OcrPage, name: str) -> TablePage:
    return TablePage(name, page.uri, page.page, page.version, page.text, page.failure)


def _read_page(text: str) -> TablePage:
    given = json.loads(text)
    failure = given.pop("failure")
    return TablePage(**given, failure=ItemFailure(**failure) if failure else None)
