"""Books that an EmbeddingJob has finished, as items: both tensors of a book.

Layer: `worker.plan`. A book with one side alone is a failed item that names the other, never left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pagemill_core.errors import RowUnusable, SourceError
from pagemill_core.ids import digest
from pagemill_worker.items import ItemFailure
from pagemill_worker.plan.request import FinishedBooksRequest
from pagemill_worker.plan.rows import Candidates, Row, batches_of, encode_columns
from pagemill_worker.plan.source_bytes import StoreOpener, split_object

SIDES = ("visual", "text")
_SUFFIX = ".pt"


@dataclass(frozen=True, slots=True)
class _Tensor:
    size_bytes: int
    token: str


@dataclass(slots=True)
class FinishedBookSource:
    """The books of one output, read once."""

    request: FinishedBooksRequest
    open_store: StoreOpener
    columns: dict[str, str] = field(default_factory=dict)

    def batches(self) -> Iterator[Candidates]:
        """All books in the order of their ids. Raises: SourceError when there is not one tensor; the store's errors."""
        return batches_of(self._rows())

    def _rows(self) -> Iterator[Row]:
        found = {side: self._tensors(side) for side in SIDES}
        books = sorted(set().union(*found.values()))
        if not books:
            raise SourceError(
                f"{self.request.uri} holds no visual/ and no text/ tensors of books",
                advice="name the output of a finished EmbeddingJob that has bookTensors among its formats",
            )
        for number, book in enumerate(books, 1):
            yield self._row(number, book, {side: found[side].get(book) for side in SIDES})

    def _tensors(self, side: str) -> dict[str, _Tensor]:
        """The tensors of one side by book."""
        prefix = f"{side}/"
        store = self.open_store(self.request.uri)
        return {
            info.key.removeprefix(prefix).removesuffix(_SUFFIX): _Tensor(info.size, info.token)
            for info in store.list(prefix)
            if info.key.endswith(_SUFFIX)
        }

    def _row(self, number: int, book: str, tensors: dict[str, _Tensor | None]) -> Row:
        uri = self.request.uri.rstrip("/")
        missing = [side for side, tensor in tensors.items() if tensor is None]
        if missing:
            failure = ItemFailure.of(RowUnusable(f"{missing[0]}/{book}{_SUFFIX} is not there; the other side is"))
            return Row(number, book, uri, failure=failure)
        is_object = split_object(uri) is not None
        given = {side: f"{uri}/{side}/{book}{_SUFFIX}" for side in SIDES}
        # A folder's own tokens are not what a file is fetched by; there the whole item's version must do.
        tokens = {f"{side}Version": tensor.token for side, tensor in tensors.items() if tensor and is_object}
        return Row(
            number,
            book,
            uri,
            size_bytes=sum(tensor.size_bytes for tensor in tensors.values() if tensor),
            version=digest([[tensor.size_bytes, tensor.token] for tensor in tensors.values() if tensor]),
            input=encode_columns({**given, **tokens}),
        )
