"""The index of an EmbeddingJob's run, as its finalizing half asks for it.

Layer: `worker.embed.search`, its door for `finalize`.
"""

from __future__ import annotations

from pagemill_core.api.v1alpha1 import EmbeddingJob
from pagemill_core.work.conditional import Writer
from pagemill_core.work.records import PlanPointer
from pagemill_worker.embed.search.build import IndexSettings, build_index
from pagemill_worker.embed.search.manifest import IndexReport
from pagemill_worker.embed.search.rows import holds_vectors
from pagemill_worker.embed.search.space import JobSpace, space_of
from pagemill_worker.embed.settings import ModelsSettings


def build_index_of(
    job: EmbeddingJob, writer: Writer, pointer: PlanPointer, *, attempt: str, threads: int
) -> IndexReport | None:
    """Build the run's index, or add to the output's; None when the job asks for none, or nothing succeeded yet.

    Call it when the dataset's parts are written and the item index is folded. `attempt` is never used twice.
    Raises: as `build_index`.
    """
    if "faiss" not in job.spec.effective_formats or not holds_vectors(writer.store):
        return None
    asked = job.spec.output.effective_index
    settings = IndexSettings(
        run=pointer.run,
        attempt=attempt,
        space=space_of(JobSpace(job, pointer.fingerprint_fields, cache=ModelsSettings().dir)),
        kind=asked.effective_kind,
        min_recall=float(asked.effective_min_recall),
        threads=threads,
    )
    return build_index(writer, settings)
