"""An OcrJob's finalizing half, bound to its surroundings.

Layer: the top of `worker.finalize`. Used by work and finalize pods and by `pagemill run` alike.
"""

from __future__ import annotations

from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.records import PlanPointer, Totals
from pagemill_worker.environment import JobEnvironment, source_fetcher
from pagemill_worker.finalize.extras import Extras
from pagemill_worker.finalize.ocr import OcrKind
from pagemill_worker.items import PlannedItem
from pagemill_worker.ocr.job import image_limits
from pagemill_worker.ocr.registry import adapter
from pagemill_worker.plan.step import PlanItems


def open_kind(environment: JobEnvironment, writer: Writer, pointer: PlanPointer, workers: int) -> OcrKind:
    """What views, dataset and reports of this run are made with; `workers` is how many processes read its pages."""
    job = environment.job
    fetcher = source_fetcher(environment.s3, environment.allowed_hosts)
    limits = image_limits(job)

    def fetch(item: PlannedItem) -> bytes:
        return fetcher.fetch(item.uri, expected_version=item.version, max_bytes=limits.max_bytes).data

    def write_extras(plan: PlanPointer, totals: Totals) -> None:
        version = adapter(job.spec.effective_engine.effective_name).status().version or ""
        Extras(environment, kind, workers, version).write(plan, totals)

    kind = OcrKind(
        job=job,
        writer=writer,
        layout=RunLayout(pointer.run),
        pointer=pointer,
        items=PlanItems(writer, pointer),
        fetch=fetch,
        write_extras=write_extras,
    )
    return kind
