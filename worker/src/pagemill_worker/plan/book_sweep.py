"""All books below a prefix from one listing of it, when that is cheaper than one listing a book.

Layer: `worker.plan`, above `embed.books`. Constant memory but for a line a book: the listing is sorted by book on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from pagemill_core.errors import SourceError, UnsafeId
from pagemill_core.storage.store import ObjectInfo
from pagemill_worker.embed.books import BookPages, Seen, book_pages, is_page, is_text
from pagemill_worker.plan.request import BooksRequest
from pagemill_worker.plan.sorting import Entry, Sorter
from pagemill_worker.plan.source_bytes import StoreOpener, split_object

# Neither stands in a name, so the files of one folder follow one another, and its pages its texts.
_TEXT, _PAGE = "\0t\0", "\0p\0"
Wanted = frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Swept:
    """The books that have a page, in the order of their names, and the wanted ones below which anything lies."""

    books: Iterator[tuple[str, BookPages]]
    present: frozenset[str]


def sweep(
    request: BooksRequest, wanted: Wanted, max_objects: int | None, open_store: StoreOpener, scratch: Path
) -> Swept | None:
    """List everything below the books' and the texts' prefix. None when that is more than `max_objects`.

    `wanted` None: every folder that directly holds a page is a book. Raises: SourceError; the store's errors.
    """
    sorter = Sorter("codePoint", scratch)
    present: set[str] = set()
    left = max_objects

    def take(uri: str, keep: Callable[[str], str | None]) -> bool:
        nonlocal left
        for name, info in _listed(uri, open_store):
            left = None if left is None else left - 1
            if left is not None and left < 0:
                return False
            folder, _, base = name.rpartition("/")
            _note(folder, wanted, present)
            mark = keep(base)
            if mark and folder and (not _is_hidden(folder) if wanted is None else folder in wanted):
                sorter.add(Entry(f"{folder}{mark}{base}", info.size, info.token))
        return True

    own_texts = request.text_uri in ("", request.uri)
    if not take(request.uri, lambda base: _mark(base, texts=own_texts)):
        return None
    seen = frozenset(present)
    if not own_texts and not take(request.text_uri, lambda base: _TEXT if is_text(base) else None):
        return None
    return Swept(_books(sorter, request), seen)


def place_of(uri: str) -> str:
    """`uri` as what the names of folders are written behind, ending in "/"."""
    return f"{uri.rstrip('/')}/"


def _books(sorter: Sorter, request: BooksRequest) -> Iterator[tuple[str, BookPages]]:
    for folder, entries in groupby(sorter, key=lambda entry: entry.name.partition("\0")[0]):
        pages: list[Seen] = []
        texts: list[Seen] = []
        for entry in entries:
            _, mark, name = entry.name.split("\0")
            (pages if mark == "p" else texts).append(Seen(name, entry.size_bytes, entry.version))
        if pages:
            text_uri = place_of(request.text_uri) + folder if request.text_uri else ""
            yield folder, book_pages(place_of(request.uri) + folder, pages, texts, request.order, text_uri=text_uri)


def _mark(base: str, *, texts: bool) -> str | None:
    if is_page(base):
        return _PAGE
    return _TEXT if texts and is_text(base) else None


def _is_hidden(folder: str) -> bool:
    return folder.startswith(".") or "/." in folder


def _note(folder: str, wanted: Wanted, present: set[str]) -> None:
    """Remember that something lies below `folder` and the folders around it, where these are wanted."""
    while wanted and folder and folder not in present:
        if folder in wanted:
            present.add(folder)
        folder = folder.rpartition("/")[0]


def _listed(uri: str, open_store: StoreOpener) -> Iterator[tuple[str, ObjectInfo]]:
    place = split_object(uri)
    if place is None:
        raise SourceError(f"{uri} is not an s3:// prefix")
    prefix = place_of(place[1]) if place[1].rstrip("/") else ""
    try:
        for info in open_store(place[0]).list(prefix):
            yield info.key.removeprefix(prefix), info
    except UnsafeId as error:
        raise SourceError(f"the books' prefix cannot be listed: {error.message}") from error
