"""What belongs to a whole run of a tensor job: predictions in one table, reports of ranks, metrics, plot, summary.

Layer: `worker.finalize`. Written once every shard has a marker; a late finalizer writes the same again. Parts are read
one after the other, so that memory does not grow with the run.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from pagemill_core.api.v1alpha1 import Inference
from pagemill_core.clock import from_iso
from pagemill_core.errors import IntegrityError, TooManyFailuresError
from pagemill_core.work.publish import View, publish_view
from pagemill_core.work.records import PlanPointer, Totals
from pagemill_core.work.usage import UsageReader
from pagemill_worker.embed.infer.metrics import Metrics
from pagemill_worker.embed.infer.plot import scatter
from pagemill_worker.embed.infer.rank_files import (
    COMBINED,
    PLOT,
    RESULTS,
    PartFacts,
    Report,
    as_json,
    combined,
    rank_report,
    results,
)
from pagemill_worker.environment import JobEnvironment
from pagemill_worker.finalize.inference import InferenceKind, Part
from pagemill_worker.finalize.inference_union import InferenceUnion
from pagemill_worker.finalize.part_file import write_tables
from pagemill_worker.finalize.publish_file import publish_file
from pagemill_worker.finalize.run_files import REPORT_KEY, cost_of_run, fold_runs, summary_head, summary_key
from pagemill_worker.items import ItemResult
from pagemill_worker.views.book_tensors import render_tensor
from pagemill_worker.views.embedding_report import EmbeddingReport, write_embedding_report
from pagemill_worker.views.json_text import encode

TABLE_KEY = "predictions.parquet"
PLAN_ROW = "row"
TENSORS_PREFIX = "predictions/"
MAX_FAILURES = 500  # in the summary and in the report; the dataset has all


@dataclass(frozen=True)
class InferenceExtras:
    """Writes a run's own files. `kind` is the run's finalizing half, `workers` how many processes worked here."""

    environment: JobEnvironment
    kind: InferenceKind
    workers: int

    def write(self, pointer: PlanPointer, totals: Totals) -> None:
        """Write everything of a run whose shards all have markers and whose dataset is written.

        Raises: TooManyFailuresError when a rank that has data gave no report; IntegrityError.
        """
        found: dict[str, Any] = {}
        if fold_runs(self.kind):
            found = self.write_results()
        self._write_summary(pointer, totals, found)
        self._write_report(pointer, totals)

    def keys(self) -> list[str]:
        """The whole-run files that the job's formats ask for, those of ranks and partitions left out."""
        formats, folder = self.kind.job.spec.effective_formats, self._folder
        ranked = [f"{folder}{name}" for name in (COMBINED, RESULTS)] if "rankFiles" in formats else []
        return [*([TABLE_KEY] if "parquet" in formats else []), *ranked]

    def write_results(self) -> dict[str, Any]:
        """Write predictions, reports and plot. Returns: the content of Results.json, also where it is not written."""
        formats = self.kind.job.spec.effective_formats
        if "parquet" in formats:
            self._write_table()
        if "pt" in formats:
            self._write_tensors()
        owed, reports, parts, metrics = self._gathered()
        failed = [rank for rank in owed if rank not in reports]
        if failed:
            raise TooManyFailuresError(
                f"{len(failed)} of {len(owed)} ranks have no result, rank {failed[0]} first",
                advice="`pagemill status` names what failed; mend it and run the job again",
            )
        figures = metrics.as_json() if metrics is not None else None
        world_size = next((report["world_size"] for report in reports.values()), 0)
        whole = results(parts, world_size, metrics=figures, wall_s=_wall_s(parts)) if parts else {}
        if "rankFiles" in formats:
            for rank, report in reports.items():
                self._publish(f"{self._folder}{rank}.json", as_json(report))
            self._publish(f"{self._folder}{COMBINED}", combined(owed, reports))
            self._publish(f"{self._folder}{RESULTS}", as_json(whole))
            if metrics is not None and figures is not None:
                name = self.kind.job.metadata.name or "predictions"
                self._put(View(f"{self._folder}{PLOT}", scatter(metrics.sample(), figures, name)))
        return whole

    @property
    def _inference(self) -> Inference:
        inference = self.kind.job.spec.inference
        if inference is None:
            raise IntegrityError("the run is of a job without a tensor model")
        return inference

    @property
    def _folder(self) -> str:
        path = self._inference.effective_result_path
        return f"{path}/" if path else ""

    def _parts(self) -> Iterator[Part]:
        """The parts of all runs that count, in order."""
        return InferenceUnion(self.kind).parts()

    def _publish(self, key: str, text: str) -> None:
        self._put(View(key, text.encode()))

    def _put(self, view: View) -> None:
        publish_view(self.kind.writer, view, self.kind.layout.seq)

    def _write_table(self) -> None:
        with tempfile.TemporaryDirectory(prefix="pagemill-") as folder:
            path = Path(folder) / "predictions.parquet"
            held = (part.predictions for part in self._parts() if part.predictions is not None)
            values = next((found.values.shape[1] for found in held if len(found.values)), 1)
            # Without the plan's row, which counts anew in each run.
            tables = (table.drop_columns([PLAN_ROW]) for table in self.kind.tables(self._parts(), values))
            schema = self.kind.schema_of(values)
            write_tables(path, tables, schema.remove(schema.get_field_index(PLAN_ROW)))
            publish_file(self.kind.writer, TABLE_KEY, path, self.kind.layout.seq)

    def _write_tensors(self) -> None:
        """A tensor for each partition whose parts all succeeded, its rows in order."""
        for _, some in groupby(self._parts(), key=lambda part: part.partition):
            parts = list(some)
            rows = [part.predictions.values for part in parts if part.predictions is not None]
            if len(rows) == len(parts):
                name = parts[0].item.id.partition("#")[0]
                self._put(View(f"{TENSORS_PREFIX}{name}.pt", render_tensor(np.concatenate(rows))))

    def _gathered(self) -> tuple[list[int], dict[int, Report], list[PartFacts], Metrics | None]:
        """The ranks that have parts, the reports of those with a result, the facts of all parts that succeeded, and
        the metrics where there are labels."""
        metrics = Metrics() if self._inference.labels is not None else None
        reports: dict[int, Report] = {}
        facts: list[PartFacts] = []
        owed: list[int] = []
        for rank, some in groupby(self._parts(), key=lambda part: part.rank):
            owed.append(rank)
            count, world_size, done = 0, 1, list[PartFacts]()
            for part in some:
                count, world_size = count + 1, _world_size(part)
                _measure(metrics, part)
                done += [part.facts] if part.facts is not None else []
            if done:
                report = rank_report(rank, world_size, done, self._inference.effective_result_path)
                reports[rank] = {**report, "failed_items": count - len(done)}
            facts += done
        return owed, reports, facts, metrics

    # -- for people ---------------------------------------------------------------------------------------------------

    def _write_summary(self, pointer: PlanPointer, totals: Totals, found: dict[str, Any]) -> None:
        spent = UsageReader(self.kind.writer, self.kind.layout).spent()
        summary = {
            **summary_head(self.environment, pointer, totals, spent, self.workers),
            "models": self._models(),
            "inference": {name: value for name, value in found.items() if name not in ("avg_profile", "cpu_info")},
            "results": [_told(result) for result in islice(self._failed(), MAX_FAILURES)],
        }
        self.kind.writer.put(summary_key(self.kind.layout.seq), encode(summary))

    def _write_report(self, pointer: PlanPointer, totals: Totals) -> None:
        job = self.kind.job
        spent = UsageReader(self.kind.writer, self.kind.layout).spent()
        report = EmbeddingReport(
            name=job.metadata.name or "",
            run=pointer.run,
            source_uri=pointer.source_uri,
            output_uri=self.environment.absolute(job.spec.output.uri),
            formats=job.spec.effective_formats,
            models=self._models(),
            sides=(),
            items=totals.items,
            already_done=pointer.already_done,
            failure_classes=totals.failure_classes,
            seconds=spent.seconds or totals.seconds,
            workers=self.workers,
            cost=cost_of_run(self.environment, spent, totals, self.workers),
            planned_at=from_iso(pointer.planned_at),
        )
        out = io.BytesIO()
        write_embedding_report(out, report, (), islice(self._failed(), MAX_FAILURES))
        self._put(View(REPORT_KEY, out.getvalue()))

    def _models(self) -> dict[str, dict[str, Any]]:
        inference = self._inference
        return {
            "inference": {
                "model": inference.weights,
                "revision": None,
                "digest": inference.digest,
                "pooling": None,
                "precision": inference.adapter,
            }
        }

    def _failed(self) -> Iterator[ItemResult]:
        for marker in self.kind.markers():
            if marker.items.failed:
                yield from (result for result in self.kind.results(marker) if result.status == "failed")


def _world_size(part: Part) -> int:
    world_size = part.item.input.get("worldSize")
    if not isinstance(world_size, int):
        raise IntegrityError(f"the plan's row {part.item.row} does not say how many ranks there are")
    return world_size


def _measure(metrics: Metrics | None, part: Part) -> None:
    found = part.predictions
    if metrics is not None and found is not None and found.labels is not None and len(found.values):
        metrics.add(found.values[:, 0], found.labels)


def _wall_s(parts: list[PartFacts]) -> float:
    """Seconds from the first request to the end of the last part, by the clocks of the machines that did them."""
    begun = [part.fetch.first_at for part in parts if part.fetch is not None]
    ended = [part.finished_at for part in parts if part.finished_at is not None]
    return (max(ended) - min(begun)).total_seconds() if begun and ended else 0.0


def _told(result: ItemResult) -> dict[str, Any]:
    told: dict[str, Any] = {"id": result.item.id, "status": result.status}
    if result.failure is not None:
        told |= {"error_class": result.failure.error_class, "error_message": result.failure.message}
    return told
