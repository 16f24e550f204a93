"""What belongs to a whole run of an EmbeddingJob: index, merged table, search index, summary, report.

Layer: `worker.finalize`. Written once every shard has a marker; a late finalizer writes the same again, and one of an
older run writes nothing that a newer one replaced. The order is the one in which each rests on what stands before it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pagemill_core.clock import from_iso
from pagemill_core.errors import ItemError
from pagemill_core.work.publish import View, publish_view
from pagemill_core.work.records import PlanPointer, Totals
from pagemill_core.work.usage import UsageReader
from pagemill_worker.environment import JobEnvironment
from pagemill_worker.finalize.embedding import EmbeddingKind
from pagemill_worker.finalize.embedding_metadata import metadata_of, model_facts
from pagemill_worker.finalize.embedding_table import METADATA_KEY, SINGLE_BYTES, EmbeddingTable
from pagemill_worker.finalize.embedding_union import counted_parts
from pagemill_worker.finalize.run_files import REPORT_KEY, cost_of_run, fold_runs, summary_head, summary_key
from pagemill_worker.images.limits import ImageLimits
from pagemill_worker.images.load import load_page
from pagemill_worker.images.thumbnail import thumbnail_jpeg
from pagemill_worker.items import ItemResult, PlannedItem
from pagemill_worker.views.book_record import book_status
from pagemill_worker.views.embedding_report import MAX_PICTURES, EmbeddingReport, Picture, write_embedding_report
from pagemill_worker.views.json_text import encode

MAX_FAILURES = 500  # in the summary and in the report; the dataset and failures.parquet have all
THUMBNAIL_SIDE_PX = 240


@dataclass(frozen=True)
class EmbeddingExtras:
    """Writes a run's own files. `kind` is the run's finalizing half, `workers` how many processes worked here.

    `build_index` is called once the dataset and the item index stand, where the job's formats hold faiss.
    """

    environment: JobEnvironment
    kind: EmbeddingKind
    workers: int
    fetch: Callable[[PlannedItem], bytes]
    build_index: Callable[[], None] = lambda: None
    single_bytes: int = SINGLE_BYTES

    def write(self, pointer: PlanPointer, totals: Totals) -> None:
        """Write everything of a run whose shards all have markers and whose dataset is written."""
        is_newest = fold_runs(self.kind)
        formats = self.kind.job.spec.effective_formats
        facts: dict[str, Any] = {}
        if is_newest and "parquet" in formats:
            facts = self.write_table(pointer, totals)
        if is_newest and "faiss" in formats:
            self.build_index()
        self._write_summary(pointer, totals, facts)
        self._write_report(pointer, totals)

    def write_table(self, pointer: PlanPointer, totals: Totals) -> dict[str, Any]:
        """Write the merged table and what is said of it. Returns: the content of metadata.json."""
        kind = self.kind
        table = EmbeddingTable(
            writer=kind.writer,
            seq=kind.layout.seq,
            parts=counted_parts(
                kind.writer, fingerprint=pointer.fingerprint, up_to=kind.layout.seq, has_books=kind.has_books
            ),
            fingerprint=pointer.fingerprint,
            is_partitioned=kind.job.spec.effective_files == "Partitioned",
            has_captions="caption" in pointer.columns,
            single_bytes=self.single_bytes,
        )
        facts = metadata_of(kind, pointer, totals, table.write())
        publish_view(kind.writer, View(METADATA_KEY, encode(facts)), kind.layout.seq)
        return facts

    # -- the summary --------------------------------------------------------------------------------------------------

    def _write_summary(self, pointer: PlanPointer, totals: Totals, facts: dict[str, Any]) -> None:
        spent = UsageReader(self.kind.writer, self.kind.layout).spent()
        summary = {
            **summary_head(self.environment, pointer, totals, spent, self.workers),
            "models": model_facts(self.kind.job),
            "table": {name: facts[name] for name in ("num_samples", "failed", "files")} if facts else None,
            "results": [self._result(result) for result in self._listed()],
        }
        self.kind.writer.put(summary_key(self.kind.layout.seq), encode(summary))

    def _listed(self) -> Iterator[ItemResult]:
        """Every book; of rows the first that failed, since all stand in the dataset."""
        if self.kind.has_books:
            return (result for marker in self.kind.markers() for result in self.kind.results(marker, with_data=False))
        return islice(self._failed(), MAX_FAILURES)

    def _failed(self) -> Iterator[ItemResult]:
        for marker in self.kind.markers():
            if marker.items.failed:
                yield from (
                    result for result in self.kind.results(marker, with_data=False) if result.status == "failed"
                )

    def _result(self, result: ItemResult) -> dict[str, Any]:
        failure = result.failure
        told: dict[str, Any] = {"id": result.item.id, "status": result.status}
        if self.kind.has_books:
            pages = (result.payload or {}).get("pages") or []
            told = {"book_id": result.item.id, "status": book_status(result), "pages": len(pages)}
        if failure is not None:
            told |= {"error_class": failure.error_class, "error_message": failure.message}
        return told

    # -- the report ---------------------------------------------------------------------------------------------------

    def _write_report(self, pointer: PlanPointer, totals: Totals) -> None:
        job = self.kind.job
        spent = UsageReader(self.kind.writer, self.kind.layout).spent()
        cost = cost_of_run(self.environment, spent, totals, self.workers)
        report = EmbeddingReport(
            name=job.metadata.name or "",
            run=pointer.run,
            source_uri=pointer.source_uri,
            output_uri=self.environment.absolute(job.spec.output.uri),
            formats=job.spec.effective_formats,
            models=model_facts(job),
            sides=self.kind.shape.sides,
            items=totals.items,
            already_done=pointer.already_done,
            failure_classes=totals.failure_classes,
            seconds=spent.seconds or totals.seconds,
            workers=self.workers,
            cost=cost,
            planned_at=from_iso(pointer.planned_at),
            is_books=self.kind.has_books,
        )
        out = io.BytesIO()
        write_embedding_report(out, report, self._pictures(), islice(self._failed(), MAX_FAILURES))
        publish_view(self.kind.writer, View(REPORT_KEY, out.getvalue()), self.kind.layout.seq)

    def _pictures(self) -> Iterator[Picture]:
        """The first pictures that succeeded, small; none where items are texts or books."""
        if self.kind.has_books or self.kind.job.spec.visual is None:
            return
        for item in islice(self._seen(), MAX_PICTURES):
            picture = self._picture(item)
            if picture is not None:
                yield Picture(item.id, str(item.columns.get("caption") or ""), picture)

    def _seen(self) -> Iterator[PlannedItem]:
        """The items that succeeded, as they were planned: what is committed does not say where in an archive."""
        for marker in self.kind.markers():
            if marker.items.succeeded:
                planned = {item.row: item for item in self.kind.items(marker.shard)}
                results = self.kind.results(marker, with_data=False)
                yield from (planned[result.item.row] for result in results if result.status == "succeeded")

    def _picture(self, item: PlannedItem) -> bytes | None:
        try:
            page = load_page(self.fetch(item), page=item.page, limits=ImageLimits(), origin=item.id)
        except ItemError:
            return None  # the source went away since
        return thumbnail_jpeg(page, THUMBNAIL_SIDE_PX)
