"""What belongs to a whole run of an OcrJob: its summary, its report, its place in the item index.

Layer: `worker.finalize`. Written once every shard has a marker; a late finalizer writes the same again.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pagemill_core.clock import from_iso
from pagemill_core.errors import ItemError
from pagemill_core.work.publish import View, publish_view
from pagemill_core.work.records import PlanPointer, Totals
from pagemill_core.work.usage import UsageReader
from pagemill_worker.environment import JobEnvironment
from pagemill_worker.fetch.fetched import shown_uri
from pagemill_worker.finalize.ocr import OcrKind
from pagemill_worker.finalize.run_files import REPORT_KEY, cost_of_run, fold_runs, summary_key
from pagemill_worker.images.load import load_page
from pagemill_worker.images.thumbnail import thumbnail_jpeg
from pagemill_worker.items import ItemResult
from pagemill_worker.ocr.job import image_limits
from pagemill_worker.views.registry import view_key
from pagemill_worker.views.report import MAX_PAGES, write_report
from pagemill_worker.views.report_page import ReportPage
from pagemill_worker.views.row import OcrRow, from_payload
from pagemill_worker.views.run import Counts, Link, RunInfo
from pagemill_worker.views.summary import SummaryItem, write_summary

THUMBNAIL_SIDE_PX = 720


@dataclass(frozen=True)
class Extras:
    """Writes a run's own files. `kind` is the run's finalizing half, `workers` how many processes worked here."""

    environment: JobEnvironment
    kind: OcrKind
    workers: int
    engine_version: str = ""
    backend: str = "local"

    def write(self, pointer: PlanPointer, totals: Totals) -> None:
        """Write summary, report and index of a run whose shards all have markers."""
        info = self._info(pointer, totals)
        self._write_summary(info)
        self._write_report(info)
        fold_runs(self.kind)

    def _write_summary(self, info: RunInfo) -> None:
        with tempfile.TemporaryDirectory(prefix="pagemill-") as folder:
            path = Path(folder) / "summary.json"
            with path.open("wb") as out:
                write_summary(out, info, (SummaryItem.of(self._row(result)) for result in self.kind.all_results()))
            self.kind.store.put_file(summary_key(self.kind.layout.seq), path)

    def _write_report(self, info: RunInfo) -> None:
        out = io.BytesIO()
        write_report(out, info, self._pages())
        publish_view(self.kind.writer, View(REPORT_KEY, out.getvalue()), self.kind.layout.seq)

    def _pages(self) -> Iterator[ReportPage]:
        pictures = 0
        for result in self.kind.all_results():
            row = self._row(result)
            if row.status != "succeeded" or pictures >= MAX_PAGES:
                yield ReportPage(row)
                continue
            pictures += 1
            yield ReportPage(row, self._thumbnail(result), self._links(row))

    def _thumbnail(self, result: ItemResult) -> bytes | None:
        item = result.item
        try:
            page = load_page(
                self.kind.fetch(item), page=item.page, limits=image_limits(self.kind.job), origin=shown_uri(item.uri)
            )
        except ItemError:
            return None  # the source went away since; its text is still shown
        return thumbnail_jpeg(page, THUMBNAIL_SIDE_PX)

    def _links(self, row: OcrRow) -> tuple[Link, ...]:
        output = self.kind.job.spec.output
        return tuple(Link(name, view_key(row.id, name, output.effective_prefix)) for name in output.effective_formats)

    def _row(self, result: ItemResult) -> OcrRow:
        if result.payload is not None:
            return from_payload(result.payload)
        engine = self.kind.job.spec.effective_engine
        return OcrRow(
            id=result.item.id,
            source_uri=shown_uri(result.item.uri),
            status=result.status,
            failure=result.failure,
            engine_name=engine.effective_name,
            engine_version=self.engine_version,
            finished_at=from_iso(self.kind.pointer.planned_at),
            page=result.item.page,
        )

    def _info(self, pointer: PlanPointer, totals: Totals) -> RunInfo:
        job, engine = self.kind.job, self.kind.job.spec.effective_engine
        spent = UsageReader(self.kind.writer, self.kind.layout).spent()
        ended = self.kind.writer.clock.now()
        return RunInfo(
            name=job.metadata.name or "",
            run=pointer.run,
            source_uri=pointer.source_uri,
            output_uri=self.environment.absolute(job.spec.output.uri),
            prefix=job.spec.output.effective_prefix,
            formats=job.spec.output.effective_formats,
            engine_name=engine.effective_name,
            engine_version=self.engine_version,
            languages=engine.effective_languages,
            backend=self.backend,
            workers=self.workers,
            counts=Counts(
                total=totals.items.planned,
                succeeded=totals.items.succeeded,
                failed=totals.items.failed,
                skipped=totals.items.skipped,
                already_done=pointer.already_done,
            ),
            started_at=from_iso(pointer.planned_at),
            finished_at=ended,
            seconds=spent.seconds or totals.seconds,
            failures_by_class=totals.failure_classes,
            cost=cost_of_run(self.environment, spent, totals, self.workers),
        )
