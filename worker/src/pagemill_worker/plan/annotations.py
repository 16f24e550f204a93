"""The list of books: a JSON array of objects, each with the `hash_code` that names a book's folder.

Layer: `worker.plan`. Reads; decides nothing about ids. A list that cannot be read ends the planning with the place of
what is wrong in it, because half a list is nobody's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pagemill_core.errors import ItemError, SourceError
from pagemill_worker.fetch.fetched import shown_uri
from pagemill_worker.plan.json_rows import encode_further
from pagemill_worker.plan.source_bytes import StoreOpener, open_source, read_blocks

BOOK_FIELD = "hash_code"
MAX_BYTES = 1 << 30  # arbitrary; the list is held in memory whole
_ADVICE = f'write a JSON list of objects, each with "{BOOK_FIELD}"'


@dataclass(frozen=True, slots=True)
class Annotated:
    """One entry: its place from 1, its book, and the rest of it as JSON."""

    place: int
    book: str
    columns: str | None


@dataclass(frozen=True, slots=True)
class Annotations:
    """All entries in their order; `columns` are the names that any of them has beside the book's."""

    entries: tuple[Annotated, ...]
    columns: tuple[str, ...]
    version: str = ""


def read_annotations(uri: str, open_store: StoreOpener, fetch_url: Callable[[str], bytes] | None) -> Annotations:
    """The annotations at a local path, an s3:// or, given `fetch_url`, an http(s):// URI; gzip and Zstandard too.

    Raises: SourceError with the line or the entry that is wrong; the store's errors.
    """
    if uri.lower().startswith(("http://", "https://")) and fetch_url is not None:
        try:
            return parse_annotations(fetch_url(uri), shown_uri(uri))
        except ItemError as error:
            raise SourceError(error.message, advice="check source.books.annotations") from error
    with open_source(uri, open_store) as source:
        if source.size_bytes > MAX_BYTES:
            raise SourceError(f"{uri} has {source.size_bytes:,} bytes, more than a list of books", advice=_ADVICE)
        data = bytearray()
        for block in read_blocks(source):
            data += block
            if len(data) > MAX_BYTES:
                raise SourceError(f"{uri} unpacks to more than {MAX_BYTES:,} bytes", advice=_ADVICE)
        version = source.version
    found = parse_annotations(bytes(data), uri)
    return Annotations(found.entries, found.columns, version)


def parse_annotations(data: bytes, uri: str) -> Annotations:
    """The entries in `data`. Raises: SourceError with the line, the column or the entry that is wrong."""
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SourceError(f"{uri}: line {line} is not UTF-8", advice="save the annotations as UTF-8") from error
    except json.JSONDecodeError as error:
        raise SourceError(
            f"{uri}: line {error.lineno}, column {error.colno}: not JSON: {error.msg}", advice=_ADVICE
        ) from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{uri} is not JSON that can be read: {str(error)[:200]}", advice=_ADVICE) from error
    if not isinstance(value, list):
        raise SourceError(f"{uri} holds a JSON {_kind(value)}, not a list of objects", advice=_ADVICE)
    names: dict[str, None] = {}
    entries = tuple(_entry(place, entry, uri, names) for place, entry in enumerate(value, 1))
    return Annotations(entries, tuple(names))


def _entry(place: int, value: object, uri: str, names: dict[str, None]) -> Annotated:
    if not isinstance(value, dict):
        raise SourceError(f"{uri}: entry {place} is a {_kind(value)}, not an object", advice=_ADVICE)
    if BOOK_FIELD not in value:
        shown = ", ".join(repr(name) for name in list(value)[:20]) or "nothing"
        raise SourceError(f"{uri}: entry {place} has no {BOOK_FIELD}; it has {shown}", advice=_ADVICE)
    book = value.pop(BOOK_FIELD)
    if not isinstance(book, str):
        raise SourceError(f"{uri}: entry {place}: {BOOK_FIELD} is a {_kind(book)}, not text", advice=_ADVICE)
    names.update(dict.fromkeys(value))
    flat: dict[str, Any] = {name: one if isinstance(one, str) else json.dumps(one) for name, one in value.items()}
    return Annotated(place, book, encode_further(flat, place, uri))


def _kind(value: object) -> str:
    """What JSON calls `value`."""
    if value is None:
        return "null"
    for kind, name in ((bool, "truth value"), (int | float, "number"), (str, "text"), (list, "list")):
        if isinstance(value, kind):
            return name
    return "object"
