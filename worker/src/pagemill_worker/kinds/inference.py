"""An EmbeddingJob with `inference`: a tensor model over partitions.

Layer: `worker.kinds`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pagemill_core.api.v1alpha1 import EmbeddingJob, Inference
from pagemill_core.work.conditional import Writer
from pagemill_core.work.records import PlanPointer
from pagemill_worker.embed.infer.job import inference_fingerprint, inference_settings
from pagemill_worker.embed.infer.settings import InferenceSettings
from pagemill_worker.embed.infer.setup import setup_message
from pagemill_worker.embed.settings import ModelsSettings
from pagemill_worker.environment import JobEnvironment
from pagemill_worker.finalize.inference import InferenceKind
from pagemill_worker.finalize.inference_run import inference_kind
from pagemill_worker.images.limits import ImageLimits
from pagemill_worker.machine import gpu_names
from pagemill_worker.ocr.settings import OcrSettings
from pagemill_worker.ocr.threads import engine_environment
from pagemill_worker.plan.request import PlanRequest
from pagemill_worker.plan.spec import SpecContext, from_embedding_spec
from pagemill_worker.stages.pipeline import TENSORS, arrange
from pagemill_worker.stages.sizes import Sizes, gpu_environments, sizes_of
from pagemill_worker.work.child_environment import split
from pagemill_worker.work.pool import PoolSettings
from pagemill_worker.work.step import WorkOptions, memory_per_process

CHILD_ITEMS = 3  # one at work, one ready, one being read: each may hold a whole partition


@dataclass(frozen=True)
class InferenceJobKind:
    """See `JobKind`. `job` has the source that items come from in the end, also where the file says `retryOf`."""

    environment: JobEnvironment
    job: EmbeddingJob
    inference: Inference

    @cached_property
    def settings(self) -> InferenceSettings:
        """The model as the job asks for it, its file on this machine."""
        environment = self.environment
        return inference_settings(self.inference, ModelsSettings(), environment.open_root, environment.absolute)

    @property
    def limits(self) -> ImageLimits:
        return ImageLimits()

    @property
    def model(self) -> str:
        return self.inference.weights.rpartition("/")[2]

    def check(self) -> None:
        self.fingerprint_fields()

    @property
    def sizes(self) -> Sizes:
        """What the job says of its stages, which are the built-in ones."""
        stages = self.job.spec.effective_stages
        arrange(TENSORS, stages)
        return sizes_of(TENSORS, stages)

    def fingerprint_fields(self) -> dict[str, Any]:
        _ = self.sizes
        return {"kind": "EmbeddingJob", "inference": inference_fingerprint(self.settings)}

    def request(self, context: SpecContext) -> PlanRequest:
        job = self.environment.absolute_job()
        return from_embedding_spec(job if isinstance(job, EmbeddingJob) else self.job, context)

    def pool_settings(self, options: WorkOptions) -> PoolSettings:
        given = split(options.environment)
        retries = self.job.spec.effective_retries
        sizes = self.sizes
        memory_bytes = sizes.memory_bytes or options.memory_bytes or memory_per_process(options.processes)
        hosts = self.environment.allowed_hosts
        return PoolSettings(
            setup={
                **setup_message(self.settings, self.environment.s3, hosts, memory_bytes),
                "environment": given.by_pipe,
            },
            processes=options.processes,
            environment={**given.plain, **engine_environment(OcrSettings())},
            depth=CHILD_ITEMS,
            item_timeout_s=retries.effective_item_timeout_seconds,
            memory_bytes=memory_bytes,
            max_deaths=retries.effective_per_item if sizes.attempts is None else sizes.attempts - 1,
            stderr=options.stderr,
            slot_environments=gpu_environments(sizes, options.processes, gpu_names(options.environment)),
            stages=TENSORS.names,
        )

    def committed(self, writer: Writer, pointer: PlanPointer, workers: int) -> InferenceKind:
        return inference_kind(self.environment, self.job, writer, pointer, workers)

    def reader(self, writer: Writer, pointer: PlanPointer) -> InferenceKind:
        return inference_kind(self.environment, self.job, writer, pointer, 0)
