"""The bytes of a planned item, wherever they lie: a file, a member of a tar, a cell of a table, or the plan itself.

Layer: `worker.fetch`, above the fetchers and below the runners. What of these it is stands in the item's `input`.
"""

from __future__ import annotations

from dataclasses import replace

from pagemill_core.errors import IntegrityError
from pagemill_worker.fetch.cells import CellReader
from pagemill_worker.fetch.fetched import Fetched, Fetcher, Span, changed, shown_uri, too_large
from pagemill_worker.fetch.recent import RecentFetcher
from pagemill_worker.items import PlannedItem, Scalar


def fetch_input(fetcher: Fetcher, item: PlannedItem, *, max_bytes: int) -> Fetched | None:
    """What the item reads, an inline text as UTF-8. None when it still is what an earlier run read.

    Raises: as `Fetcher.fetch`; SourceChanged when the item is not the planned version; RowUnusable for an empty cell;
    IntegrityError for a plan that names neither a place nor a text.
    """
    given = item.input
    if "text" in given:
        return Fetched(str(given["text"] or "").encode("utf-8", "replace"), item.version, item.uri)
    if "offset" in given:
        return _member(fetcher, item, max_bytes)
    if "column" in given:
        row = _number(given.get("row"), item)
        data = _cells_of(fetcher).read(item.uri, str(given["column"]), row, version=item.version, max_bytes=max_bytes)
        return Fetched(data, item.version, item.uri)
    if item.version is None and item.earlier_version is not None:
        return fetcher.fetch_if_changed(item.uri, earlier_version=item.earlier_version, max_bytes=max_bytes)
    return fetcher.fetch(item.uri, expected_version=item.version, max_bytes=max_bytes)


def fetch_picture(fetcher: Fetcher, item: PlannedItem, *, max_bytes: int) -> Fetched | None:
    """As `fetch_input`, for an item that has a text beside its picture, or none: always the picture."""
    given = {name: value for name, value in item.input.items() if name != "text"}
    return fetch_input(fetcher, replace(item, input=given), max_bytes=max_bytes)


def _member(fetcher: Fetcher, item: PlannedItem, max_bytes: int) -> Fetched:
    span = Span(_number(item.input["offset"], item), _number(item.input.get("size"), item))
    if span.length > max_bytes:
        raise too_large(f"{shown_uri(item.uri)}: {item.input.get('name')}", span.length, max_bytes)
    if not span.length:
        return Fetched(b"", item.version, item.uri)
    fetched = fetcher.fetch_range(item.uri, span, expected_version=item.version)
    if len(fetched.data) != span.length:
        raise changed(item.uri)
    return fetched


def _cells_of(fetcher: Fetcher) -> CellReader:
    """The tables that a keeping fetcher has open; of any other each cell opens its table anew."""
    return fetcher.cells if isinstance(fetcher, RecentFetcher) else CellReader(fetcher)


def _number(value: Scalar, item: PlannedItem) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise IntegrityError(f"the plan's row {item.row} does not say where its bytes lie")
    return value
