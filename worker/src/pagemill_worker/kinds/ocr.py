"""An OcrJob: engines read pages.

Layer: `worker.kinds`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pagemill_core.api.v1alpha1 import OcrJob
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.records import PlanPointer, Totals
from pagemill_worker.environment import JobEnvironment, source_fetcher
from pagemill_worker.finalize.extras import Extras
from pagemill_worker.finalize.ocr import OcrKind
from pagemill_worker.images.limits import ImageLimits
from pagemill_worker.items import PlannedItem
from pagemill_worker.machine import gpu_names
from pagemill_worker.ocr.engine import EngineSettings, max_in_flight, page_limit_s
from pagemill_worker.ocr.job import checked_adapter, engine_settings, fingerprint_fields, image_limits
from pagemill_worker.ocr.registry import adapter
from pagemill_worker.ocr.runner import OcrSetup, setup_message
from pagemill_worker.ocr.settings import OcrSettings
from pagemill_worker.ocr.threads import engine_environment
from pagemill_worker.plan.request import PlanRequest
from pagemill_worker.plan.spec import SpecContext, from_spec
from pagemill_worker.plan.step import PlanItems
from pagemill_worker.stages.pipeline import OCR
from pagemill_worker.stages.setup import ChainSetup, chain_fingerprint, chain_setup
from pagemill_worker.stages.sizes import Sizes, gpu_environments, sizes_of
from pagemill_worker.work.child_environment import split
from pagemill_worker.work.pool import PoolSettings
from pagemill_worker.work.step import WorkOptions, memory_per_process

RECYCLE_AFTER_ITEMS = 2000  # arbitrary; engines leak a little, and a restart costs a few seconds


@dataclass(frozen=True)
class OcrJobKind:
    """See `JobKind`."""

    environment: JobEnvironment
    job: OcrJob

    @property
    def settings(self) -> EngineSettings:
        return engine_settings(self.job, self.environment.api_key.get_secret_value())

    @property
    def limits(self) -> ImageLimits:
        return image_limits(self.job)

    @property
    def model(self) -> str:
        return self.job.spec.effective_engine.effective_name

    @property
    def sizes(self) -> Sizes:
        """What the job says of the built-in stages."""
        return sizes_of(OCR, self.job.spec.effective_stages)

    @cached_property
    def stages(self) -> ChainSetup:
        """The job's own stages, once they were found to fit."""
        return chain_setup(OCR, self.job.spec.effective_stages)

    def check(self) -> None:
        self.fingerprint_fields()

    def fingerprint_fields(self) -> dict[str, Any]:
        settings, _, stages = self.settings, self.sizes, self.stages
        fields = fingerprint_fields(self.job, checked_adapter(settings), settings)
        return {**fields, "stages": chain_fingerprint(stages)} if stages else fields

    def request(self, context: SpecContext) -> PlanRequest:
        job = self.environment.absolute_job()
        return from_spec(job if isinstance(job, OcrJob) else self.job, context)

    def pool_settings(self, options: WorkOptions) -> PoolSettings:
        settings = self.settings
        engine = checked_adapter(settings)
        threads = max_in_flight(engine, settings)
        hosts = self.environment.allowed_hosts
        sizes, retries = self.sizes, self.job.spec.effective_retries
        setup = OcrSetup.of(settings, self.limits, self.environment.s3, hosts, threads).model_copy(
            update={
                "stages": self.stages,
                "attempts": sizes.attempts or 1,
                "prepare_threads": sizes.prepare_threads or 1,
            }
        )
        given = split(options.environment)
        return PoolSettings(
            setup={**setup_message(setup), "environment": given.by_pipe},
            processes=options.processes,
            environment={**given.plain, **engine_environment(OcrSettings())},
            depth=max(2 * threads, self.stages.items_at_once, setup.prepare_threads + 1),
            item_timeout_s=page_limit_s(engine, settings),
            memory_bytes=sizes.memory_bytes or options.memory_bytes or memory_per_process(options.processes),
            max_deaths=retries.effective_per_item if sizes.attempts is None else sizes.attempts - 1,
            recycle_after_items=RECYCLE_AFTER_ITEMS,
            stderr=options.stderr,
            slot_environments=gpu_environments(sizes, options.processes, gpu_names(options.environment)),
            stages=(*OCR.names, *self.stages.names),
        )

    def committed(self, writer: Writer, pointer: PlanPointer, workers: int) -> OcrKind:
        def write_extras(plan: PlanPointer, totals: Totals) -> None:
            version = adapter(self.model).status().version or ""
            Extras(self.environment, kind, workers, version).write(plan, totals)

        kind = self._half(writer, pointer, write_extras)
        return kind

    def reader(self, writer: Writer, pointer: PlanPointer) -> OcrKind:
        return self._half(writer, pointer, lambda *_: None)

    def _half(
        self, writer: Writer, pointer: PlanPointer, write_extras: Callable[[PlanPointer, Totals], None]
    ) -> OcrKind:
        fetcher = source_fetcher(self.environment.s3, self.environment.allowed_hosts)

        def fetch(item: PlannedItem) -> bytes:
            return fetcher.fetch(item.uri, expected_version=item.version, max_bytes=self.limits.max_bytes).data

        return OcrKind(
            writer=writer,
            layout=RunLayout(pointer.run),
            pointer=pointer,
            items=PlanItems(writer, pointer),
            write_extras=write_extras,
            job=self.job,
            fetch=fetch,
        )
