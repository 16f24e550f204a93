"""Books in a child process: pages streamed in batches, both sides' rows of a book out together.

Layer: `worker.embed`, beside `runner`. Memory: one batch of pages ahead of the model, and the rows so far.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from pagemill_core.clock import SystemClock
from pagemill_core.errors import BookPagesFailed, ItemError, RetriableError, RowUnusable
from pagemill_core.storage.open import open_store
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.work.conditional import Backoff
from pagemill_worker.embed.books import BookPage, BookPages, PageText, planned_book, read_text
from pagemill_worker.embed.classify.classifier import BookRows, Classifier
from pagemill_worker.embed.classify.labels import SIDE
from pagemill_worker.embed.gpu_share import gpu_bytes
from pagemill_worker.embed.label_runner import labels_of
from pagemill_worker.embed.rows import pack
from pagemill_worker.embed.runner import EncodedRow, Encoders, RowInput
from pagemill_worker.embed.setup import EmbedSetup
from pagemill_worker.embed.staged import after_encoding, encode_pieces
from pagemill_worker.environment import source_fetcher
from pagemill_worker.fetch.fetched import shown_uri
from pagemill_worker.images.limits import ImageLimits
from pagemill_worker.images.load import load_page
from pagemill_worker.images.page import PageImage
from pagemill_worker.items import ItemFailure, PlannedItem
from pagemill_worker.stages.chain import Chains, Passed
from pagemill_worker.work.runner import Prepared, Processed

MAX_NAMED_PAGES = 20  # in one message; the book's record names all
PATIENCE_S = 600.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Page:
    """A page in memory, or why it is not."""

    page: BookPage
    text: PageText | None
    given: tuple[RowInput, ...] | ItemError
    passed: Passed


@dataclass(slots=True)
class _Book:
    """What is known of a book so far: rows of good pages by side, and a line a page."""

    rows: dict[str, list[Any]] = field(default_factory=dict)
    pages: list[dict[str, Any]] = field(default_factory=list)
    good: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, page: _Page, passed: Passed, found: EncodedRow | ItemError) -> None:
        line: dict[str, Any] = {"name": page.page.name}
        if passed.notes:
            line["notes"] = passed.notes
        for stage, seconds in passed.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        if page.text is not None:
            line["ocr"] = page.text.state
        if isinstance(found, ItemError):
            line |= {"row": None, "status": "failed"}
            line |= {"errorClass": type(found).__name__, "errorMessage": found.message}
        else:
            for side, row in found.sides.items():
                self.rows.setdefault(side, []).append(row)
            line |= {"row": self.good, "status": "succeeded", **found.facts}
            self.good += 1
        self.pages.append(line)

    @property
    def bad(self) -> list[dict[str, Any]]:
        return [line for line in self.pages if line["status"] == "failed"]


class BookRunner:
    """Encodes books, one at a time; both sides of a book come out together or not at all."""

    batch_size = 1
    threads = 1

    def __init__(
        self,
        setup: EmbedSetup,
        encoders: Encoders,
        classifier: Classifier | None = None,
        chains: Chains | None = None,
    ) -> None:
        self._chains = Chains() if chains is None else chains
        sides = {"visual": setup.encoders[0], "text": setup.encoders[1]}
        self._unit_sides = [side for side, settings in sides.items() if settings is not None and settings.normalize]
        self._setup = setup
        self._classifier = classifier
        self._encoders = encoders
        self._limits = ImageLimits(**setup.limits)
        self._s3 = S3Settings.model_validate(setup.s3)
        self._fetcher = source_fetcher(self._s3, setup.allowed_hosts)
        self._alive: Callable[[], None] = lambda: None

    def listen(self, alive: Callable[[], None]) -> None:
        self._alive = alive

    def prepare(self, item: PlannedItem) -> Prepared:
        started = time.perf_counter()
        book = planned_book(item, lambda uri: open_store(uri, self._s3))
        return Prepared(item, book, book.size_bytes, book.digest, {"list": time.perf_counter() - started})

    def process(self, batch: Sequence[Prepared]) -> Sequence[Processed]:
        return [self._encode(prepared) for prepared in batch]

    def gpu_bytes(self) -> int:
        return gpu_bytes() if self._encoders.on_gpu else 0

    def close(self) -> None:
        self._encoders.close()
        self._chains.shutdown()

    def _encode(self, prepared: Prepared) -> Processed:
        started = time.perf_counter()
        book = _Book()
        for pages in self._batches(prepared.value):
            good = [page for page in pages if not isinstance(page.given, ItemError)]
            inputs = [page.given for page in good if not isinstance(page.given, ItemError)]
            rows_of_pages = encode_pieces(self._encoders, inputs, self._unit_sides)
            encoded = iter(after_encoding(self._chains.behind, [page.passed for page in good], rows_of_pages))
            for page in pages:
                book.add(page, *((page.passed, page.given) if isinstance(page.given, ItemError) else next(encoded)))
            self._alive()
        seconds = {"encode": time.perf_counter() - started, **book.seconds}
        payload: dict[str, Any] = {"pages": book.pages}
        if book.bad and (self._setup.bad_pages == "Fail" or not book.good):
            return Processed("failed", payload, ItemFailure.of(_bad_pages(prepared.item, book)), seconds)
        sides = {side: np.stack(values) for side, values in book.rows.items()}
        if self._classifier is not None:
            between = time.perf_counter()
            try:
                found = labels_of(self._classifier, BookRows(prepared.item.id, sides["visual"], sides["text"]))
            except ItemError as error:
                return Processed("failed", payload, ItemFailure.of(error), seconds)
            sides[SIDE] = found
            payload["labels"] = list(self._classifier.labels)
            seconds["classify"] = time.perf_counter() - between
        rows, data = pack(sides)
        return Processed("succeeded", {"rows": rows, **payload}, seconds=seconds, data=data)

    def _batches(self, book: BookPages) -> Iterator[list[_Page]]:
        """The pages in batches as the encoders like them; the next batch is read while one is encoded."""
        size = self._encoders.batch_size
        chunks = [book.pages[start : start + size] for start in range(0, len(book.pages), size)]
        with ThreadPoolExecutor(1, thread_name_prefix="pages") as executor:
            ahead = [executor.submit(self._read_all, chunk) for chunk in chunks[:1]]
            for number in range(len(chunks)):
                pages = ahead.pop().result()
                ahead += [executor.submit(self._read_all, chunk) for chunk in chunks[number + 1 : number + 2]]
                yield pages

    def _read_all(self, pages: Sequence[BookPage]) -> list[_Page]:
        """Pages in memory, those that go on sent through the stages in front of the model."""
        read = [self._read(page) for page in pages]
        passed = self._chains.before.run(self._chains.ahead.run(one.passed for one in read))
        return [self._prepared(replace(page, passed=one)) for page, one in zip(read, passed, strict=True)]

    def _read(self, page: BookPage) -> _Page:
        text = _patiently(lambda: read_text(page, self._fetcher)) if self._encoders.text is not None else None
        passed = Passed.start(page.name, None)
        if page.failure is not None:
            failure = RowUnusable(f"{page.failure.error_class}: {page.failure.message}")
            return _Page(page, text, (), replace(passed, failure=failure))
        try:
            return _Page(page, text, (), Passed.start(page.name, self._value(page, text)))
        except ItemError as error:
            return _Page(page, text, (), replace(passed, failure=error))

    def _value(self, page: BookPage, text: PageText | None) -> PageImage | str | None:
        """What stages take: the picture, or in a job without an encoder of pictures the text."""
        if self._encoders.visual is None:
            return None if text is None else self._in_format(text)
        limit = self._limits.max_bytes
        fetched = _patiently(
            lambda: self._fetcher.fetch(page.uri, expected_version=page.version or None, max_bytes=limit)
        )
        return load_page(fetched.data, page=page.page, limits=self._limits, origin=shown_uri(page.uri))

    def _prepared(self, page: _Page) -> _Page:
        """The page as the encoders want it."""
        if page.passed.failure is not None:
            return replace(page, given=page.passed.failure)
        words = None if page.text is None else self._in_format(page.text)
        try:
            inputs = tuple(self._input(piece.value, words) for piece in page.passed.pieces)
            is_cut = len(inputs) > 1  # then no one size is the page's
            return replace(page, given=tuple(replace(one, facts={}) if is_cut else one for one in inputs))
        except ItemError as error:
            return replace(page, given=error)

    def _input(self, value: PageImage | str | None, words: str | None) -> RowInput:
        encoder = self._encoders.visual
        if encoder is None or not isinstance(value, PageImage):
            return RowInput(None, value if isinstance(value, str) else words, {})
        return RowInput(encoder.prepare(value), words, {"width": value.width_px, "height": value.height_px})

    def _in_format(self, text: PageText) -> str:
        return text.json_text if self._setup.text_format == "referenceJson" else text.plain


def _patiently(read: Callable[[], T]) -> T:
    """What `read` gives, tried again while a store is away. Raises: ItemError; RetriableError after ten minutes."""
    backoff = Backoff(SystemClock(), deadline_s=PATIENCE_S)
    while True:
        try:
            return read()
        except RetriableError as error:
            backoff.wait(error)


def _bad_pages(item: PlannedItem, book: _Book) -> BookPagesFailed:
    named = [f"{line['name']} ({line['errorClass']})" for line in book.bad]
    more = f" and {len(named) - MAX_NAMED_PAGES:,} more" if len(named) > MAX_NAMED_PAGES else ""
    pages = ", ".join(named[:MAX_NAMED_PAGES])
    return BookPagesFailed(f"{item.id}: {len(named):,} of {len(book.pages):,} pages cannot be encoded: {pages}{more}")
