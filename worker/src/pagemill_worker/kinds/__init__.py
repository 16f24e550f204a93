"""What a kind of job brings to the three steps. `kind_of` is the door; one module a kind.

Layer: above `plan`, `work` and `finalize`, below `pod` and the command.
"""

from __future__ import annotations

from pagemill_core.api.v1alpha1 import OcrJob
from pagemill_worker.environment import JobEnvironment
from pagemill_worker.kinds.kind import JobKind
from pagemill_worker.kinds.ocr import OcrJobKind
from pagemill_worker.plan.origin import original_job

__all__ = ["JobKind", "kind_of"]


def kind_of(environment: JobEnvironment) -> JobKind:
    """The kind of the environment's job, bound to it."""
    if isinstance(environment.job, OcrJob):
        return OcrJobKind(environment, environment.job)
    job, inference = original_job(environment, environment.job), environment.job.spec.inference
    if inference is not None:
        from pagemill_worker.kinds.inference import InferenceJobKind

        return InferenceJobKind(environment, job, inference)
    from pagemill_worker.kinds.embedding import EmbeddingJobKind

    return EmbeddingJobKind(environment, job)
