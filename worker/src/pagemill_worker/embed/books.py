"""The pages of a book and where their text lies, seen the same way when the book is planned and when it is read.

Layer: `worker.embed`, above the store; no machine-learning package, so that the planner may use it too. Lists and
compares; decodes nothing. A book whose pages, sizes or versions differ from what was planned is another book.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pagemill_core.errors import BookEmpty, BookMissing, FetchFailed, ImageMissing, SourceChanged
from pagemill_core.ids import digest
from pagemill_worker.embed.page_text import OcrState, PageText, own_page_text, page_text
from pagemill_worker.fetch.fetched import Fetcher, local_version
from pagemill_worker.items import ItemFailure, PlannedItem
from pagemill_worker.plan.request import ListingOrder
from pagemill_worker.plan.sorting import sort_key
from pagemill_worker.plan.source_bytes import StoreOpener, local_path, split_object

__all__ = ["BookPage", "BookPages", "OcrState", "PageText", "Seen", "book_pages", "list_book", "page_text", "read_text"]

MAX_TEXT_BYTES = (
    16 << 20
)  # arbitrary; the OCR JSON of a page is some kilobytes, and parsed it takes twenty times as much
_PAGE = re.compile(r"\.(?:png|jpe?g)\Z", re.IGNORECASE).search
_OWN_SUFFIX = "_ocr.json"


@dataclass(frozen=True, slots=True)
class Seen:
    """A file directly in a book's folder, as a listing gives it; `version` is "" where it is not known."""

    name: str
    size_bytes: int
    version: str


@dataclass(frozen=True, slots=True)
class BookPage:
    """One page: `uri` is its picture, `page` the page of a PDF or TIFF there (None: the whole file).

    Its text is `text` when that is set, else what the JSON at `ocr_uri` says, if there is one; `ocr_version` is that
    file's. `failure` is set when the page is known to have failed before.
    """

    name: str
    uri: str
    size_bytes: int | None = None
    version: str | None = None
    ocr_uri: str | None = None
    ocr_version: str | None = None
    page: int | None = None
    text: PageText | None = None
    failure: ItemFailure | None = None


@dataclass(frozen=True, slots=True)
class BookPages:
    """A book's pages in its order. `digest` changes with every page's and every text's name, size or version."""

    pages: tuple[BookPage, ...]
    digest: str

    @property
    def size_bytes(self) -> int:
        return sum(page.size_bytes or 0 for page in self.pages)


def is_page(name: str) -> bool:
    """Whether a file of this name in a book's folder is a page."""
    return _PAGE(name) is not None and not name.startswith("._")


def is_text(name: str) -> bool:
    """Whether a file of this name may be a page's text."""
    return name.endswith(".json") and not name.startswith("._")


def book_pages(
    folder_uri: str, files: Iterable[Seen], texts: Iterable[Seen], order: ListingOrder, *, text_uri: str = ""
) -> BookPages:
    """The book whose folder holds `files`; `texts` are the files of `text_uri`, or again of the folder.

    A page's text is `<stem>.json`, else `<stem>_ocr.json`. Two pages of one stem share it.
    """
    known = {found.name: found for found in texts if is_text(found.name)}
    root, text_root = folder_uri.rstrip("/"), (text_uri or folder_uri).rstrip("/")
    pages = []
    rows: list[list[str | int]] = []
    for found in sorted((found for found in files if is_page(found.name)), key=lambda one: sort_key(one.name, order)):
        stem = found.name.rpartition(".")[0]
        text = known.get(f"{stem}.json") or known.get(stem + _OWN_SUFFIX)
        pages.append(
            BookPage(
                found.name,
                f"{root}/{found.name}",
                found.size_bytes if found.version else None,
                found.version or None,
                f"{text_root}/{text.name}" if text else None,
                text.version if text else None,
            )
        )
        rows.append([found.name, found.size_bytes, found.version])
        if text:
            rows[-1] += [text.name, text.size_bytes, text.version]
    return BookPages(tuple(pages), digest([order, rows]))


def list_book(uri: str, *, text_uri: str = "", order: ListingOrder, open_store: StoreOpener) -> BookPages:
    """List the book at `uri`, a local folder or an s3:// prefix.

    Raises: BookMissing when nothing is there, BookEmpty when it holds no page; the store's errors.
    """
    files = _folder_files(uri, open_store)
    if files is None:
        raise missing_book(uri)
    texts = files if text_uri in ("", uri) else _folder_files(text_uri, open_store) or []
    found = book_pages(uri, files, texts, order, text_uri=text_uri)
    if not found.pages:
        raise empty_book(uri)
    return found


def planned_book(item: PlannedItem, open_store: StoreOpener) -> BookPages:
    """The pages of a planned book, listed again.

    Raises: SourceChanged when they are not those that were planned; BookMissing, BookEmpty; the store's errors.
    """
    if "table" in item.input:
        from pagemill_worker.embed.book_table import table_book  # it builds on this module

        return table_book(item, open_store)
    order: ListingOrder = "natural" if item.input.get("order") == "natural" else "codePoint"
    found = list_book(item.uri, text_uri=str(item.input.get("ocr") or ""), order=order, open_store=open_store)
    if item.version is not None and found.digest != item.version:
        raise SourceChanged(f"the pages of {item.uri} changed after they were planned", advice="plan again")
    return found


def read_text(page: BookPage, fetcher: Fetcher) -> PageText:
    """The text of a page; a JSON that is gone or cannot be read is no text, as one that was never there.

    Raises: SourceChanged, ImageTooLarge; the store's RetriableError and AccessDeniedError.
    """
    if page.text is not None:
        return page.text
    if page.ocr_uri is None:
        return page_text(None)
    try:
        data = fetcher.fetch(page.ocr_uri, expected_version=page.ocr_version or None, max_bytes=MAX_TEXT_BYTES).data
    except (ImageMissing, FetchFailed):
        return page_text(None)
    own = page.ocr_uri.endswith(_OWN_SUFFIX) and not page.ocr_uri.endswith(f"/{_stem(page.name)}.json")
    return own_page_text(data) if own else page_text(data)


def missing_book(uri: str) -> BookMissing:
    return BookMissing(f"the book has no folder: there is no {uri}; check source.books.uri and the entry's hash_code")


def empty_book(uri: str) -> BookEmpty:
    return BookEmpty(f"{uri} holds no page: no .png, .jpg or .jpeg lies directly in it")


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _folder_files(uri: str, open_store: StoreOpener) -> list[Seen] | None:
    """The files directly in a folder; None when there is no such folder."""
    place = split_object(uri)
    if place is None:
        return _local_files(local_path(uri) or Path(uri))
    prefix = f"{place[1].rstrip('/')}/"
    found: list[Seen] | None = None
    for info in open_store(place[0]).list(prefix):
        found = [] if found is None else found
        name = info.key.removeprefix(prefix)
        if name and "/" not in name:
            found.append(Seen(name, info.size, info.token))
    return found


def _local_files(folder: Path) -> list[Seen] | None:
    try:
        with os.scandir(folder) as entries:
            return [_seen(entry) for entry in entries if not entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BookMissing(f"{folder} cannot be listed: {error.strerror}") from error


def _seen(entry: os.DirEntry[str]) -> Seen:
    try:
        found = entry.stat()
    except OSError:
        return Seen(entry.name, 0, "")  # a dangling link: the page fails by name when it is read
    return Seen(entry.name, found.st_size, local_version(found))
