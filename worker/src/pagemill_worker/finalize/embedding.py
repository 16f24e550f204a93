"""What finalizing an EmbeddingJob means: files of books, the dataset with its vectors, the merged table.

Layer: `worker.finalize`. What every kind shares stands in `committed`; what is written once a run in
`embedding_extras`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from pagemill_core.api.v1alpha1 import EmbeddingJob
from pagemill_core.errors import IntegrityError
from pagemill_core.storage.store import ObjectStore
from pagemill_core.work import layout as keys
from pagemill_core.work.commit import read_output
from pagemill_core.work.publish import View
from pagemill_core.work.records import Marker, OutputRef, PlanPointer, Totals
from pagemill_worker.finalize.committed import CommittedRun
from pagemill_worker.finalize.dataset_parts import DatasetPart, column_tables, dataset_parts
from pagemill_worker.finalize.embedding_dataset import NEEDED, DatasetShape, dataset_tables, side_facts
from pagemill_worker.finalize.embedding_table import FAILURES_KEY, METADATA_KEY, TABLE_KEY, parse_metadata
from pagemill_worker.finalize.embedding_vectors import SideFacts
from pagemill_worker.finalize.part_file import write_parquet
from pagemill_worker.items import ItemResult, Outcome
from pagemill_worker.views.book_labels import label_views
from pagemill_worker.views.book_record import book_views
from pagemill_worker.work import shard_data


@dataclass(frozen=True, kw_only=True)
class EmbeddingKind(CommittedRun):
    """The finalizing half of an EmbeddingJob's run."""

    job: EmbeddingJob
    write_table: Callable[[PlanPointer, Totals], object] = lambda *_: None

    @property
    def has_books(self) -> bool:
        """Whether an item is a book."""
        return self.job.spec.items_are_books

    @property
    def page_order(self) -> str:
        """The order of a book's pages."""
        books = self.job.spec.source.books
        return "codePoint" if books is None else books.effective_order

    @property
    def unit_sides(self) -> frozenset[str]:
        """The sides whose rows have length 1, as the job asks."""
        spec = self.job.spec
        asked = {"visual": spec.effective_visual_normalize, "text": spec.effective_text_normalize}
        return frozenset(side for side, normalize in asked.items() if normalize == "l2")

    @cached_property
    def shape(self) -> DatasetShape:
        """The dataset's columns: those of the plan, and vectors as the run's first success has them."""
        types = self.pointer.column_types
        return DatasetShape(
            sides=next((sides for marker in self.markers() if (sides := self._sides(marker))), ()),
            columns={name: types.get(name, "string") for name in self.pointer.columns},
            fingerprint=self.pointer.fingerprint,
            has_books=self.has_books,
            labels=next((labels for marker in self.markers() if (labels := self._labels(marker))), ()),
            has_urls=self.job.spec.source.dataset is not None,
            has_notes="stages" in self.pointer.fingerprint_fields,
        )

    def views_of(self, results: Iterable[ItemResult]) -> Iterator[View]:
        """The tensors and the record of each book, also of one that failed; other items have no files."""
        formats = self.job.spec.effective_formats
        for result in results if self.has_books else ():
            if "bookTensors" in formats:
                yield from book_views(result, self.page_order, self.unit_sides)
            if "labels" in formats:
                yield from label_views(result)

    def write_dataset(self, segment: int, markers: Sequence[Marker]) -> OutputRef:
        key = keys.dataset_part(self.layout.seq, segment)
        shape = self.shape
        shards = (self.table(marker) for marker in markers)
        return write_parquet(self.store, key, dataset_tables(shards, shape), shape.schema)

    def table(self, marker: Marker, columns: Sequence[str] = NEEDED) -> pa.Table:
        """Columns of a shard's committed rows. Raises: IntegrityError when they do not match the marker."""
        (output,) = marker.outputs
        table = shard_data.read_table(read_output(self.writer, output), self.pointer.fingerprint, output.key, columns)
        if len(table) != marker.items.planned or len(table) != output.rows:
            raise IntegrityError(f"{output.key} has {len(table)} rows, its marker says {marker.items.planned}")
        return table

    def outcomes(self) -> Iterator[Outcome]:
        """From the dataset, which says the same without a look at the vectors."""
        parts = [part for part in dataset_parts(self.writer, up_to=self.layout.seq) if part.seq == self.layout.seq]
        name = "book" if self.has_books else "id"
        outcomes = (outcome for part in parts for outcome in _outcomes(self.store, part, name))
        return _of_books(outcomes) if self.has_books else outcomes

    def views(self, marker: Marker) -> Iterator[View]:
        return self.views_of(self.results(marker)) if self.has_books else iter(())

    def merged_keys(self) -> list[str]:
        if "parquet" not in self.job.spec.effective_formats:
            return []
        blob = self.writer.get(METADATA_KEY)
        if blob is None:
            return [METADATA_KEY, FAILURES_KEY, TABLE_KEY]
        facts = parse_metadata(blob.data)
        return [METADATA_KEY, FAILURES_KEY, *facts.files] if facts.run == self.pointer.run else []

    def mend_merged(self, pointer: PlanPointer, totals: Totals) -> bool:
        if "parquet" not in self.job.spec.effective_formats:
            return False
        self.write_table(pointer, totals)
        return True

    def _labels(self, marker: Marker) -> tuple[str, ...]:
        """The kinds of pages as a book of the shard names them; none where the job classifies nothing."""
        if self.job.spec.classify is None or not marker.items.succeeded:
            return ()
        payloads = (json.loads(text) for text in self.table(marker, ["payload"]).column("payload").to_pylist() if text)
        return next((tuple(payload["labels"]) for payload in payloads if "labels" in payload), ())

    def _sides(self, marker: Marker) -> tuple[SideFacts, ...]:
        if not marker.items.succeeded:
            return ()
        return side_facts(self.table(marker, ["payload"]).column("payload").to_pylist(), self.unit_sides)


def _outcomes(store: ObjectStore, part: DatasetPart, name: str) -> Iterator[Outcome]:
    columns = (name, "version", "status", "error_class")
    for table in column_tables(store, part, columns):
        yield from map(Outcome._make, zip(*(table.column(one).to_pylist() for one in columns), strict=True))


def _of_books(pages: Iterator[Outcome]) -> Iterator[Outcome]:
    """One outcome a book, from those of its pages, which follow one another; one success makes the book a success."""
    for _, of_book in itertools.groupby(pages, key=lambda page: page.id):
        found = list(of_book)
        yield next((page for page in found if page.status == "succeeded"), found[0])
