"""How many processes work on a job on one machine, and which stages they hold.

Layer: `worker.kinds`; used by a pod and by the command alike.
"""

from __future__ import annotations

from collections.abc import Mapping

from pagemill_core.api.v1alpha1 import EmbeddingJob, Job
from pagemill_worker.machine import gpu_names, machine
from pagemill_worker.stages.pipeline import CLASSIFIED_BOOKS, LABELS, OCR, PICTURES, TENSORS, TEXTS, Pipeline
from pagemill_worker.stages.sizes import sizes_of


def pipeline_of(job: Job) -> Pipeline:
    """The built-in stages of the job."""
    if not isinstance(job, EmbeddingJob):
        return OCR
    spec = job.spec
    if spec.inference is not None:
        return TENSORS
    if spec.visual is None and spec.text is None:
        return LABELS
    if spec.classify is not None:
        return CLASSIFIED_BOOKS
    return PICTURES if spec.visual is not None else TEXTS


def processes_on_machine(job: Job, environment: Mapping[str, str]) -> int:
    """Processes of this machine: what `stages` says of the model's, else workers.processesPerPod, else its cores.

    Raises: InvalidSpecError for sizes that the job's stages do not have.
    """
    wanted, cores = job.spec.workers.effective_processes_per_pod, machine().cores
    sizes = sizes_of(pipeline_of(job), job.spec.effective_stages)
    return sizes.processes_on(cores, len(gpu_names(environment)), wanted if isinstance(wanted, int) else cores)
