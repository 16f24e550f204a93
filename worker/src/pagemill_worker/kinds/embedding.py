"""An EmbeddingJob: encoders turn pictures, texts and books into rows.

Layer: `worker.kinds`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pagemill_core.api.v1alpha1 import EmbeddingJob
from pagemill_core.errors import InvalidSpecError
from pagemill_core.work.conditional import Writer
from pagemill_core.work.records import PlanPointer
from pagemill_worker.embed.classify.settings import ClassifierSettings
from pagemill_worker.embed.classify_job import Place, classifier_fingerprint, classifier_settings, to_json
from pagemill_worker.embed.encoder import EncoderSettings
from pagemill_worker.embed.fetching import ensure_model
from pagemill_worker.embed.fingerprint import fingerprint
from pagemill_worker.embed.job import text_settings, visual_settings
from pagemill_worker.embed.settings import ModelsSettings
from pagemill_worker.embed.setup import EmbedSetup, setup_message
from pagemill_worker.environment import JobEnvironment
from pagemill_worker.finalize.embedding import EmbeddingKind
from pagemill_worker.finalize.embedding_run import embedding_kind
from pagemill_worker.images.limits import ImageLimits
from pagemill_worker.kinds.processes import pipeline_of
from pagemill_worker.machine import gpu_names, machine
from pagemill_worker.ocr.job import IMAGE_RECIPE
from pagemill_worker.ocr.settings import OcrSettings
from pagemill_worker.ocr.threads import engine_environment
from pagemill_worker.plan.request import PlanRequest
from pagemill_worker.plan.spec import SpecContext, from_embedding_spec
from pagemill_worker.stages.pipeline import Pipeline
from pagemill_worker.stages.setup import ChainSetup, chain_fingerprint, chain_setup
from pagemill_worker.stages.sizes import Sizes, gpu_environments, sizes_of
from pagemill_worker.work.child_environment import split
from pagemill_worker.work.pool import PoolSettings
from pagemill_worker.work.step import WorkOptions, memory_per_process

# In a child's hands: some batches at work, ready and being read. Texts go into the model by length, 256 at once.
CHILD_PICTURES = 64
CHILD_TEXTS = 768
CHILD_BOOKS = 2


@dataclass(frozen=True)
class EmbeddingJobKind:
    """See `JobKind`. `job` has the source that items come from in the end, also where the file says `retryOf`."""

    environment: JobEnvironment
    job: EmbeddingJob

    @property
    def encoders(self) -> dict[str, EncoderSettings]:
        """The settings of the job's encoders by side."""
        cache = ModelsSettings().dir
        given = {"visual": visual_settings(self.job, cache), "text": text_settings(self.job, cache)}
        for_gpu, batch = self.environment.plans_for_gpu, self.sizes.batch_size
        return {
            side: replace(found, plans_for_gpu=for_gpu, batch_size=batch or found.batch_size)
            for side, found in given.items()
            if found is not None
        }

    @cached_property
    def classifier(self) -> ClassifierSettings | None:
        """The settings of the job's page classifier, None when it has none."""
        given, here = self.job.spec.classify, self.environment
        if given is None:
            return None
        return classifier_settings(
            given, Place(ModelsSettings().dir, here.open_root, here.absolute, here.plans_for_gpu)
        )

    @property
    def pipeline(self) -> Pipeline:
        """The job's built-in stages."""
        return pipeline_of(self.job)

    @property
    def sizes(self) -> Sizes:
        """What the job says of the built-in stages."""
        return sizes_of(self.pipeline, self.job.spec.effective_stages)

    @cached_property
    def stages(self) -> ChainSetup:
        """The job's own stages, once they were found to fit."""
        return chain_setup(self.pipeline, self.job.spec.effective_stages)

    @property
    def limits(self) -> ImageLimits:
        source = self.job.spec.source
        paged = source.images or source.manifest or source.retry_of
        return ImageLimits() if paged is None else ImageLimits(pdf_dpi=paged.effective_pdf_dpi)

    @property
    def model(self) -> str:
        return ", ".join(settings.model.name or settings.model.uri or "" for settings in self.encoders.values())

    def check(self) -> None:
        self.fingerprint_fields()

    def fingerprint_fields(self) -> dict[str, Any]:
        encoders, _ = self.encoders, self.sizes
        if not encoders and self.classifier is None:
            raise InvalidSpecError("spec: an EmbeddingJob needs `visual`, `text`, `inference` or `classify`")
        for settings in encoders.values():
            ensure_model(settings.model, self.environment.open_root)
        fields: dict[str, Any] = {side: fingerprint(settings) for side, settings in encoders.items()}
        if self.classifier is not None:
            fields["classify"] = classifier_fingerprint(self.classifier)
        if "visual" in encoders:
            fields["images"] = {"recipe": IMAGE_RECIPE, "pdfDpi": self.limits.pdf_dpi}
        if "text" in encoders:
            fields["textFormat"] = self.job.spec.effective_text_format
        if self.job.spec.has_books:
            fields["badPages"] = self.job.spec.effective_bad_pages
        if self.stages:
            fields["stages"] = chain_fingerprint(self.stages)
        return {"kind": "EmbeddingJob", **fields}

    def request(self, context: SpecContext) -> PlanRequest:
        job = self.environment.absolute_job()
        return from_embedding_spec(job if isinstance(job, EmbeddingJob) else self.job, context)

    def pool_settings(self, options: WorkOptions) -> PoolSettings:
        given = split(options.environment)
        retries, sizes = self.job.spec.effective_retries, self.sizes
        setup = self._setup(options.planned)
        return PoolSettings(
            setup={
                **setup_message(setup.model_copy(update=self._sized(sizes, options.processes))),
                "environment": given.by_pipe,
            },
            processes=options.processes,
            environment={**given.plain, **engine_environment(OcrSettings())},
            depth=self._items_ahead,
            item_timeout_s=retries.effective_item_timeout_seconds,
            memory_bytes=sizes.memory_bytes or options.memory_bytes or memory_per_process(options.processes),
            max_deaths=retries.effective_per_item if sizes.attempts is None else sizes.attempts - 1,
            stderr=options.stderr,
            slot_environments=gpu_environments(sizes, options.processes, gpu_names(options.environment)),
            stages=("list", *self.pipeline.names, *self.stages.names),
        )

    @property
    def _items_ahead(self) -> int:
        if self.job.spec.items_are_books:
            return CHILD_BOOKS
        usual = CHILD_TEXTS if self.job.spec.visual is None else CHILD_PICTURES
        return max(usual, self.stages.items_at_once)

    def committed(self, writer: Writer, pointer: PlanPointer, workers: int) -> EmbeddingKind:
        return embedding_kind(replace(self.environment, job=self.job), writer, pointer, workers)

    def reader(self, writer: Writer, pointer: PlanPointer) -> EmbeddingKind:
        return embedding_kind(replace(self.environment, job=self.job), writer, pointer, 0)

    def _sized(self, sizes: Sizes, processes: int) -> dict[str, Any]:
        """What a child is told of stages."""
        share = float(sizes.gpus) if sizes.gpus is not None and sizes.gpus < 1 else None
        cores = max(1, machine().cores // processes)
        threads = sizes.prepare_threads
        return {"stages": self.stages, "prepare_threads": threads, "gpu_share": share, "cores": cores}

    def _setup(self, planned: Mapping[str, Any]) -> EmbedSetup:
        # The plan may have been made on another class of machine; all rows are made with the arithmetic it chose.
        decided = planned or self.fingerprint_fields()
        encoders = {
            side: replace(settings, precision=decided[side]["precision"]) for side, settings in self.encoders.items()
        }
        setup = EmbedSetup.of(encoders.get("visual"), encoders.get("text"), self.limits, self.environment.s3)
        return setup.model_copy(
            update={
                "text_format": self.job.spec.effective_text_format,
                "bad_pages": self.job.spec.effective_bad_pages,
                "is_books": self.job.spec.has_books,
                "classify": to_json(self.classifier) if self.classifier is not None else None,
                "allowed_hosts": self.environment.allowed_hosts,
            }
        )
