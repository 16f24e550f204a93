"""PDF files and multi-page TIFFs as one item per page: `id#p0002` is the second page.

Layer: `worker.plan`, above `images.count`. A file whose pages cannot be counted stays one item, already failed with the
class that counting gave; nothing ever becomes its first page alone.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from pagemill_core.errors import (
    FetchFailed,
    ImageMissing,
    ImageTooLarge,
    ItemError,
    NotAnImage,
    PreconditionFailedError,
    SourceChanged,
)
from pagemill_core.storage.store import ObjectStore
from pagemill_worker.fetch.fetched import local_version
from pagemill_worker.images.count import BlockReader, is_multipage, page_count
from pagemill_worker.items import ItemFailure
from pagemill_worker.plan.rows import BATCH_ROWS, Candidates
from pagemill_worker.plan.source_bytes import StoreOpener, split_object

COUNTING_THREADS = 8  # counting waits for a store's answers; 8 hides a 20 ms round trip behind 2.5 ms
MAX_PAGES = 100_000  # arbitrary; the longest books have a few thousand, a forged page tree claims billions
_COUNTED_AT_ONCE = 256

# Cheaper by far than taking each of a million names apart; `is_multipage` then decides.
_MAYBE_PAGED = re.compile(r"\.(?:pdf|tiff?)", re.IGNORECASE).search


@dataclass(frozen=True, slots=True)
class Pages:
    """What counting a file's pages found, with what it saw of the file's size and version."""

    count: int
    size_bytes: int | None = None
    version: str | None = None


PageCounter = Callable[[str], Pages]
"""Counts the pages of the file at a URI. Raises: ItemError when that cannot be done; RetriableError of a store."""


class FilePageCounter:
    """Counts pages of local files and of objects, by ranges; `fetch_url` gives the bytes behind http(s) URIs.

    Shared by threads. Opens each bucket's store once.
    """

    def __init__(self, open_store: StoreOpener, fetch_url: Callable[[str], bytes] | None = None) -> None:
        self._open_store = open_store
        self._fetch_url = fetch_url
        self._stores: dict[str, ObjectStore] = {}
        self._lock = threading.Lock()

    def __call__(self, uri: str) -> Pages:
        place = split_object(uri)
        if place:
            return _count_object(self._store(place[0]), place[1], uri)
        if "://" not in uri:
            return _count_local(Path(uri))
        if self._fetch_url is None:
            raise FetchFailed(f"the pages of {uri} cannot be counted: this planner reads no URLs")
        data = self._fetch_url(uri)
        return Pages(page_count(data, origin=uri), len(data))

    def _store(self, root: str) -> ObjectStore:
        with self._lock:
            if root not in self._stores:
                self._stores[root] = self._open_store(root)
            return self._stores[root]


def expand_pages(batches: Iterator[Candidates], counter: PageCounter, threads: Executor) -> Iterator[Candidates]:
    """The batches with every file of several pages replaced by its pages, in order, at most a batch's rows at once."""
    for batch in batches:
        paged = [at for at, uri in enumerate(batch.uris) if _MAYBE_PAGED(uri) and is_multipage(uri)]
        paged = [at for at in paged if at not in batch.failures and batch.pages[at] is None]
        if not paged:
            yield batch
            continue
        start = 0
        for first in range(0, len(paged), _COUNTED_AT_ONCE):
            some = paged[first : first + _COUNTED_AT_ONCE]
            counts = dict(zip(some, threads.map(_Counting(counter, batch.uris), some), strict=True))
            end = len(batch) if first + _COUNTED_AT_ONCE >= len(paged) else some[-1] + 1
            yield from _expand(batch, range(start, end), counts)
            start = end


@dataclass(frozen=True, slots=True)
class _Counting:
    counter: PageCounter
    uris: list[str]

    def __call__(self, at: int) -> Pages | ItemFailure:
        try:
            pages = self.counter(self.uris[at])
            if pages.count > MAX_PAGES:
                raise ImageTooLarge(f"{pages.count:,} pages are more than the {MAX_PAGES:,} allowed")
            if pages.count < 1:
                raise NotAnImage("the file has no page")
        except ItemError as error:
            return ItemFailure.of(error)
        return pages


def _expand(batch: Candidates, rows: range, counts: dict[int, Pages | ItemFailure]) -> Iterator[Candidates]:
    out = Candidates([], [], [], [], [], [], [])
    for at in rows:
        found = counts.get(at)
        if isinstance(found, Pages):
            for page in _pages(batch, at, found):
                _append(out, batch, at, page)
                out.sizes[-1] = batch.sizes[at] if batch.sizes[at] is not None else found.size_bytes
                out.versions[-1] = batch.versions[at] or found.version
                if len(out) >= BATCH_ROWS:
                    yield out
                    out = Candidates([], [], [], [], [], [], [])
            continue
        _append(out, batch, at, batch.pages[at])
        failure = found or batch.failures.get(at)
        if failure:
            out.failures[len(out) - 1] = failure
    if len(out):
        yield out


def _pages(batch: Candidates, at: int, found: Pages) -> range | tuple[None]:
    """The pages to make items of; a TIFF with a single picture is a picture like any other."""
    is_pdf = ".pdf" in batch.uris[at].lower()
    return range(found.count) if found.count > 1 or is_pdf else (None,)


def _append(out: Candidates, batch: Candidates, at: int, page: int | None) -> None:
    split = page is not None and batch.pages[at] is None
    out.lines.append(batch.lines[at])
    out.ids.append(page_id(batch.ids[at], page) if split and page is not None else batch.ids[at])
    out.uris.append(batch.uris[at])
    out.pages.append(page)
    out.sizes.append(batch.sizes[at])
    out.versions.append(batch.versions[at])
    out.columns.append(batch.columns[at])
    if at in batch.inputs:
        out.inputs[len(out) - 1] = batch.inputs[at]


def page_id(item_id: str, page: int) -> str:
    """The id of page `page`, from 0, of the file `item_id`; in ids pages count from 1, with 4 digits or more."""
    return f"{item_id}#p{page + 1:04d}"


def _count_object(store: ObjectStore, key: str, uri: str) -> Pages:
    info = store.head(key)
    if info is None:
        raise ImageMissing(f"{uri} does not exist")

    def read(start: int, length: int) -> bytes:
        try:
            return store.get_range(key, start, length, if_match=info.token)
        except PreconditionFailedError as error:
            raise SourceChanged(f"{uri} changed while its pages were counted") from error

    return Pages(page_count(io.BufferedReader(BlockReader(read, info.size)), origin=uri), info.size, info.token)


def _count_local(path: Path) -> Pages:
    try:
        with path.open("rb") as file:
            seen = path.stat()
            return Pages(page_count(file, origin=str(path)), seen.st_size, local_version(seen))
    except FileNotFoundError as error:
        raise ImageMissing("Image file not found") from error
    except (OSError, ValueError) as error:
        raise ImageMissing(f"the file cannot be read: {error}") from error
