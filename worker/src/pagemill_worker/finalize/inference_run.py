"""A tensor job's finalizing half, bound to its surroundings.

Layer: the top of `worker.finalize`. Used by work and finalize pods, by `pagemill run` and by whoever repairs an output.
"""

from __future__ import annotations

from pagemill_core.api.v1alpha1 import EmbeddingJob
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.records import PlanPointer, Totals
from pagemill_worker.environment import JobEnvironment
from pagemill_worker.finalize.inference import InferenceKind
from pagemill_worker.finalize.inference_extras import InferenceExtras
from pagemill_worker.plan.step import PlanItems


def inference_kind(
    environment: JobEnvironment, job: EmbeddingJob, writer: Writer, pointer: PlanPointer, workers: int
) -> InferenceKind:
    """What dataset, predictions and reports of this run are made with; `workers` is how many processes work."""

    def write_extras(plan: PlanPointer, totals: Totals) -> None:
        InferenceExtras(environment, kind, workers).write(plan, totals)

    kind = InferenceKind(
        writer=writer,
        layout=RunLayout(pointer.run),
        pointer=pointer,
        items=PlanItems(writer, pointer),
        write_extras=write_extras,
        job=job,
        items_of=lambda plan: PlanItems(writer, plan),
        mend=lambda *_: InferenceExtras(environment, kind, workers).write_results(),
        merged=lambda: InferenceExtras(environment, kind, workers).keys(),
    )
    return kind
