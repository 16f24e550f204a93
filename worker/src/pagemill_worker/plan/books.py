"""Books as items: the folders that a list of annotations names, or every folder that holds a page.

Layer: `worker.plan`, above `embed.books`, which says what a page is. Every listed book is planned: one without a folder
or without pages is a failed item with that reason.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

from pagemill_core.errors import BookEmpty, BookMissing, SourceError, UnsafeId
from pagemill_core.ids import check_item_id
from pagemill_worker.embed.books import BookPages, empty_book, is_page, list_book, missing_book
from pagemill_worker.items import ItemFailure
from pagemill_worker.plan.annotations import Annotated, read_annotations
from pagemill_worker.plan.book_sweep import place_of, sweep
from pagemill_worker.plan.request import BooksRequest
from pagemill_worker.plan.rows import Candidates, Row, batches_of, encode_columns
from pagemill_worker.plan.source_bytes import StoreOpener, local_path, split_object

FEW_BOOKS = 8  # arbitrary; so many lists cost nothing, whatever else lies below the prefix
LISTED_AT_ONCE = 1000  # objects that S3 gives in one answer


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a plan keeps of a book."""

    pages: int
    size_bytes: int
    digest: str

    @classmethod
    def of(cls, book: BookPages) -> _Facts:
        return cls(len(book.pages), book.size_bytes, book.digest)


_Found = _Facts | ItemFailure


@dataclass(slots=True)
class BookSource:
    """The books of one request, read once. `columns` fills while they are listed."""

    request: BooksRequest
    open_store: StoreOpener
    scratch: Path
    threads: Executor
    fetch_url: Callable[[str], bytes] | None = None
    columns: dict[str, str] = field(default_factory=dict)

    def batches(self) -> Iterator[Candidates]:
        """All books in the order of the annotations, else by name. "Lines" are entries of the annotations, from 1.

        Raises: SourceError for annotations that cannot be read, naming the place; the store's errors.
        """
        return batches_of(self._annotated() if self.request.annotations else self._all())

    def _annotated(self) -> Iterator[Row]:
        listed = read_annotations(self.request.annotations, self.open_store, self.fetch_url)
        self.columns.update(dict.fromkeys(listed.columns, "string"))
        unsafe = {entry.book: _unsafe(entry.book) for entry in listed.entries}
        known = self._look_at([name for name, problem in unsafe.items() if problem is None])
        for entry in listed.entries:
            yield self._row(entry, unsafe[entry.book] or known[entry.book])

    def _all(self) -> Iterator[Row]:
        for place, (name, found) in enumerate(self._folders(), 1):
            yield self._row(Annotated(place, name, None), found)

    def _row(self, entry: Annotated, found: _Found) -> Row:
        uri = self._uri(entry.book)
        pages = 0 if isinstance(found, ItemFailure) else found.pages
        given = encode_columns({"order": self.request.order, "ocr": self._text_uri(entry.book), "pages": pages})
        if isinstance(found, ItemFailure):
            # With what a retry needs, should the book be there by then.
            return Row(entry.place, entry.book, uri, columns=entry.columns, failure=found, input=given)
        return Row(
            entry.place,
            entry.book,
            uri,
            size_bytes=found.size_bytes,
            version=found.digest,
            columns=entry.columns,
            input=given,
        )

    def _look_at(self, names: Sequence[str]) -> Mapping[str, _Found]:
        """What is known of each book, by one listing of the whole prefix or by one a book, whichever needs less."""
        if split_object(self.request.uri) is None:
            self._check_folder()
            return {name: self._list_one(name) for name in names}
        # So many objects cost as many requests as one listing a book: giving up there at most doubles the price.
        limit = len(names) * LISTED_AT_ONCE
        same_store = not self.request.text_uri or split_object(self.request.text_uri) is not None
        swept = None
        if len(names) > FEW_BOOKS and same_store:
            swept = sweep(self.request, frozenset(names), limit, self.open_store, self.scratch)
        if swept is None:
            return dict(zip(names, self.threads.map(self._list_one, names), strict=True))
        found: dict[str, _Found] = {name: _Facts.of(book) for name, book in swept.books}
        for name in names:
            if name not in found:
                error = empty_book(self._uri(name)) if name in swept.present else missing_book(self._uri(name))
                found[name] = ItemFailure.of(error)
        return found

    def _folders(self) -> Iterator[tuple[str, _Found]]:
        folder = None if split_object(self.request.uri) else local_path(self.request.uri)
        if folder is None:
            swept = sweep(self.request, None, None, self.open_store, self.scratch)
            for name, book in swept.books if swept else ():
                yield name, _Facts.of(book)
            return
        self._check_folder()
        for name in sorted(_folders_with_pages(folder)):
            yield name, self._list_one(name)

    def _list_one(self, name: str) -> _Found:
        try:
            return _Facts.of(
                list_book(
                    self._uri(name),
                    text_uri=self._text_uri(name),
                    order=self.request.order,
                    open_store=self.open_store,
                )
            )
        except (BookMissing, BookEmpty) as error:
            return ItemFailure.of(error)

    def _check_folder(self) -> None:
        folder = local_path(self.request.uri)
        if folder is None or not folder.is_dir():
            raise SourceError(f"{self.request.uri} is not a folder", advice="set source.books.uri to the books' folder")

    def _uri(self, name: str) -> str:
        return f"{_root(self.request.uri)}{name}"

    def _text_uri(self, name: str) -> str:
        return f"{_root(self.request.text_uri)}{name}" if self.request.text_uri else ""


def _root(uri: str) -> str:
    """`uri` as later steps can read it whatever their working folder, ending in "/"."""
    folder = local_path(uri)
    return place_of(uri if folder is None else str(folder))


def _unsafe(book: str) -> ItemFailure | None:
    """Why a book's name must not be looked up below the source, or None."""
    try:
        check_item_id(book, prefix="visual", suffix=".pt")
    except UnsafeId as error:
        return ItemFailure.of(error)
    return None


def _folders_with_pages(root: Path) -> Iterator[str]:
    """Names of the folders below `root`, not hidden, that directly hold a page. Raises: SourceError."""

    def refuse(error: OSError) -> None:
        raise SourceError(f"{error.filename} cannot be listed: {error.strerror}") from error

    entered: set[tuple[int, int]] = set()  # links are followed, each real folder entered once
    for folder, below, names in os.walk(root, onerror=refuse, followlinks=True):
        seen = os.stat(folder)
        is_new = (seen.st_dev, seen.st_ino) not in entered
        entered.add((seen.st_dev, seen.st_ino))
        below[:] = [name for name in below if is_new and not name.startswith(".")]
        if is_new and folder != str(root) and any(map(is_page, names)):
            yield Path(folder).relative_to(root).as_posix()
