"""Books as items: the folders that a list of annotations names, or every folder that holds a page.

Layer: `worker.plan`, above `embed.books`, which says what a page is. Every listed book is planned: one without a folder
or without pages is a failed item with that reason.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from pagemill_core.errors import BookEmpty, BookMissing, ItemError, SourceError, UnsafeId
from pagemill_core.ids import check_item_id
from pagemill_core.storage.store import ObjectStore
from pagemill_worker.embed import books
from pagemill_worker.embed.books import BookPages, Seen
from pagemill_worker.items import ItemFailure
from pagemill_worker.plan.request import BooksRequest
from pagemill_worker.plan.rows import Candidates, Row, batches_of, encode_columns
from pagemill_worker.plan.sorting import Entry, Sorter
from pagemill_worker.plan.source_bytes import StoreOpener, local_path, open_source, read_blocks, split_object

LISTING_THREADS = 16  # a store answers one LIST in some 30 ms; 16 at once list 500 books a second
FEW_BOOKS = 8  # arbitrary; so many lists cost nothing, whatever else lies below the prefix
PAGE_OF_LISTING = 1000  # objects that S3 gives in one answer
MAX_ANNOTATION_BYTES = 1 << 30  # arbitrary; the list is held in memory


@dataclass(frozen=True, slots=True)
class Annotated:
    """One entry of the annotations: its place from 1, its book, and the rest of it as JSON."""

    line: int
    book: str
    columns: str | None


@dataclass(slots=True)
class BookSource:
    """Books of one request. `columns` fills while they are listed."""

    request: BooksRequest
    open_store: StoreOpener
    scratch: Path
    fetch_url: Callable[[str], bytes] | None = None
    columns: dict[str, str] = field(default_factory=dict)

    def batches(self) -> Iterator[Candidates]:
        """All books, in the order of the annotations, else by name.

        Raises: SourceError for annotations that cannot be read, naming the place; the store's errors.
        """
        return batches_of(self._rows())

    def _rows(self) -> Iterator[Row]:
        request = self.request
        if not request.annotations:
            for line, (name, found) in enumerate(self._every_book(), 1):
                yield self._row(Annotated(line, name, None), found)
            return
        listed = read_annotations(request.annotations, self.open_store, self.fetch_url)
        self.columns.update({name: "string" for _, names in listed for name in names})
        entries = [entry for entry, _ in listed]
        safe = [entry.book for entry in entries if _unsafe(entry.book) is None]
        known = self._books(list(dict.fromkeys(safe)))
        for entry in entries:
            yield self._row(entry, known.get(entry.book) or _unsafe(entry.book))

    def _row(self, entry: Annotated, found: _Facts | ItemFailure | None) -> Row:
        uri = f"{_root(self.request.uri)}{entry.book}"
        if not isinstance(found, _Facts):
            return Row(entry.line, entry.book, uri, columns=entry.columns, failure=found)
        text_root = _root(self.request.text_uri) if self.request.text_uri else ""
        given = {"order": self.request.order, "ocr": f"{text_root}{entry.book}" if text_root else ""}
        return Row(
            entry.line,
            entry.book,
            uri,
            size_bytes=found.size_bytes,
            version=found.digest,
            columns=entry.columns,
            input=encode_columns({**given, "pages": found.pages}),
        )

    def _books(self, names: Sequence[str]) -> Mapping[str, _Facts | ItemFailure]:
        place = split_object(self.request.uri)
        if place is None:
            return {name: self._list_one(name) for name in names}
        if len(names) > FEW_BOOKS:
            swept = self._swept(frozenset(names), len(names) * PAGE_OF_LISTING)
            if swept is not None:
                nothing = ItemFailure.of(books.missing_book(f"{_root(self.request.uri)}…"))
                return {name: swept.get(name) or self._missing(name) for name in names} if nothing else {}
        with ThreadPoolExecutor(LISTING_THREADS, thread_name_prefix="books") as threads:
            return dict(zip(names, threads.map(self._list_one, names), strict=True))

    def _missing(self, name: str) -> ItemFailure:
        return ItemFailure.of(books.missing_book(f"{_root(self.request.uri)}{name}"))

    def _list_one(self, name: str) -> _Facts | ItemFailure:
        request = self.request
        text_uri = f"{_root(request.text_uri)}{name}" if request.text_uri else ""
        try:
            found = books.list_book(
                f"{_root(request.uri)}{name}", text_uri=text_uri, order=request.order, open_store=self.open_store
            )
        except (BookMissing, BookEmpty) as error:
            return ItemFailure.of(error)
        return _Facts.of(found)

    def _every_book(self) -> Iterator[tuple[str, _Facts | ItemFailure]]:
        folder = None if split_object(self.request.uri) else local_path(self.request.uri)
        if folder is not None:
            for name in sorted(_local_folders(folder)):
                yield name, self._list_one(name)
            return
        for name, found in (self._swept(None, None) or {}).items():
            yield name, found
