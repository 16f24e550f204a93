"""Every kind of source as one stream of rows.

Layer: `worker.plan`, above the modules of the single kinds. Opens what a request names and gives batches of candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

from pagemill_worker.items import ItemFailure, PlannedItem
from pagemill_worker.plan.books import BookSource
from pagemill_worker.plan.dataset import DatasetSource
from pagemill_worker.plan.finished_books import FinishedBookSource
from pagemill_worker.plan.listing import list_images
from pagemill_worker.plan.manifest import Manifest
from pagemill_worker.plan.ocr_output import OcrOutput
from pagemill_worker.plan.ocr_pages import OcrPageSource, Publish
from pagemill_worker.plan.paths import SETTLED, PathRules, check_uri
from pagemill_worker.plan.request import (
    BooksRequest,
    DatasetRequest,
    FinishedBooksRequest,
    ImagesRequest,
    ItemsRequest,
    ManifestRequest,
    OcrOutputRequest,
    SourceRequest,
    TensorsRequest,
    TextsRequest,
)
from pagemill_worker.plan.rows import BATCH_ROWS, Candidates, ManifestBatch, encode_columns
from pagemill_worker.plan.source_bytes import StoreOpener, open_source
from pagemill_worker.plan.tensors import TensorSource
from pagemill_worker.plan.texts import TextSource


@dataclass(slots=True)
class OpenedSource:
    """A source being read once. `noun` is what its rows are called in messages; `columns` and `warnings` fill while
    reading.

    `is_paged`: a PDF or a TIFF of several pages stands for its pages, each an item.
    """

    uri: str
    noun: str
    version: str
    batches: Callable[[], Iterator[Candidates]]
    columns: dict[str, str] = field(default_factory=dict)
    is_paged: bool = False
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTools:
    """What sources are read with. `scratch` is an empty local folder; `fetch_url` gives the bytes behind a URL;
    `publish` puts a file beside the plan, for what of a source does not fit into its rows. `threads` wait for stores.
    """

    open_store: StoreOpener
    scratch: Path
    threads: Executor
    fetch_url: Callable[[str], bytes] | None = None
    publish: Publish | None = None


@contextmanager
def open_items(request: SourceRequest, tools: SourceTools) -> Iterator[OpenedSource]:
    """The rows of the source. Raises: SourceError, also at the end, when the source changed meanwhile."""
    if isinstance(request, ManifestRequest):
        with open_source(request.uri, tools.open_store) as source:
            manifest = Manifest(request, source)
            rows = _manifest_rows
            yield OpenedSource(
                request.uri, "line", source.version, lambda: rows(manifest), manifest.columns, is_paged=True
            )
    elif isinstance(request, ItemsRequest):
        yield OpenedSource(
            request.uri, "item", "", lambda: _known_items(request.items), dict(request.columns), request.is_paged
        )
    else:
        yield _opened(request, tools)


def _opened(request: _ReadRequest, tools: SourceTools) -> OpenedSource:
    """A source that is opened while it is read."""
    if isinstance(request, ImagesRequest):
        images = request
        return OpenedSource(
            request.uri, "file", "", lambda: list_images(images, tools.open_store, tools.scratch), is_paged=True
        )
    noun, source = _source(request, tools)
    warnings = source.warnings if isinstance(source, DatasetSource) else []
    return OpenedSource(request.uri, noun, "", source.batches, source.columns, warnings=warnings)


def _source(request: _RowsRequest, tools: SourceTools) -> tuple[str, _Source]:
    """What reads the rows of `request`, with what its rows are called."""
    if isinstance(request, BooksRequest):
        noun = "entry" if request.annotations else "folder"
        return noun, BookSource(request, tools.open_store, tools.scratch, tools.threads, tools.fetch_url)
    if isinstance(request, DatasetRequest):
        return "row", DatasetSource(request, tools.open_store, tools.scratch, tools.threads)
    if isinstance(request, TextsRequest):
        return "row", TextSource(request, tools.open_store, tools.scratch)
    if isinstance(request, TensorsRequest):
        return "partition", TensorSource(request, tools.open_store, tools.scratch, tools.threads)
    if isinstance(request, FinishedBooksRequest):
        return "book", FinishedBookSource(request, tools.open_store)
    output = OcrOutput(request, tools.open_store, tools.scratch)
    return "book" if request.by_folder else "page", OcrPageSource(output, tools.scratch, tools.publish)


class _Source(Protocol):
    """Rows of one source. `columns` fills while they are read."""

    columns: dict[str, str]

    def batches(self) -> Iterator[Candidates]: ...


_RowsRequest = BooksRequest | DatasetRequest | TextsRequest | TensorsRequest | OcrOutputRequest | FinishedBooksRequest
_ReadRequest = ImagesRequest | _RowsRequest


def _manifest_rows(manifest: Manifest) -> Iterator[Candidates]:
    rules = PathRules.of(manifest.request)
    for batch in manifest.batches():
        yield _candidates(batch, rules)


def _candidates(batch: ManifestBatch, rules: PathRules) -> Candidates:
    count = len(batch.ids)
    uris: list[str] = []
    failures: dict[int, ItemFailure] = {}
    for at, path in enumerate(batch.paths):
        if path.startswith(SETTLED) and "\0" not in path:  # the common case
            uris.append(path)
            continue
        uris.append(rules.resolve(path))
        failure = check_uri(uris[-1])
        if failure:
            failures[at] = failure
    nothing = [None] * count
    return Candidates(
        list(batch.lines), list(batch.ids), uris, [*nothing], [*nothing], [*nothing], list(batch.columns), failures
    )


def _known_items(items: Iterable[PlannedItem]) -> Iterator[Candidates]:
    """Items as they were planned before; their pages are not counted again."""
    source = iter(enumerate(items, 1))
    while some := list(islice(source, BATCH_ROWS)):
        rows = [item for _, item in some]
        yield Candidates(
            [line for line, _ in some],
            [item.id for item in rows],
            [item.uri for item in rows],
            [item.page for item in rows],
            [item.size_bytes for item in rows],
            [item.version for item in rows],
            [encode_columns(dict(item.columns)) if item.columns else None for item in rows],
            inputs={at: encode_columns(dict(item.input)) for at, item in enumerate(rows) if item.input},
        )
