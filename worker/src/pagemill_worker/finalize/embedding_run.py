"""An EmbeddingJob's finalizing half, bound to its surroundings.

Layer: the top of `worker.finalize`. Used by work and finalize pods, by `pagemill run` and by whoever repairs an output.
"""

from __future__ import annotations

from pagemill_core.api.v1alpha1 import EmbeddingJob
from pagemill_core.errors import InvalidSpecError
from pagemill_core.ids import ulid
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.records import PlanPointer, Totals
from pagemill_worker.environment import JobEnvironment, source_fetcher
from pagemill_worker.fetch.items import fetch_picture
from pagemill_worker.finalize.embedding import EmbeddingKind
from pagemill_worker.finalize.embedding_extras import EmbeddingExtras
from pagemill_worker.images.limits import ImageLimits
from pagemill_worker.items import PlannedItem
from pagemill_worker.plan.step import PlanItems


def embedding_kind(environment: JobEnvironment, writer: Writer, pointer: PlanPointer, workers: int) -> EmbeddingKind:
    """What datasets, files of books and reports of this run are made with; `workers` is how many processes work."""
    job = environment.job
    if not isinstance(job, EmbeddingJob):
        raise InvalidSpecError(f"{job.metadata.name} is of kind {job.kind}, not an EmbeddingJob")
    fetcher = source_fetcher(environment.s3, environment.allowed_hosts)

    def fetch(item: PlannedItem) -> bytes:
        fetched = fetch_picture(fetcher, item, max_bytes=ImageLimits().max_bytes)
        return fetched.data if fetched is not None else b""

    def build_index() -> None:
        # faiss costs a second to import and is not wanted where no index is
        from pagemill_worker.embed.search.job import build_index_of

        attempt = ulid(int(writer.clock.now().timestamp() * 1000))
        build_index_of(job, writer, pointer, attempt=attempt, threads=max(1, workers))

    def write_extras(plan: PlanPointer, totals: Totals) -> None:
        extras().write(plan, totals)

    def extras() -> EmbeddingExtras:
        return EmbeddingExtras(environment, kind, workers, fetch, build_index)

    kind = EmbeddingKind(
        writer=writer,
        layout=RunLayout(pointer.run),
        pointer=pointer,
        items=PlanItems(writer, pointer),
        write_extras=write_extras,
        job=job,
        write_table=lambda plan, totals: extras().write_table(plan, totals),
    )
    return kind
