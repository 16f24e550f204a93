"""What an OcrJob's file means for its engine: settings, fingerprint, refusals before any work starts.

Layer: `worker.ocr`, its door for `plan`, `work` and `finalize`.
"""

from __future__ import annotations

from typing import Any

from pydantic import JsonValue

from pagemill_core.api.v1alpha1 import OcrJob
from pagemill_core.errors import InvalidSpecError
from pagemill_core.ids import digest
from pagemill_worker.images.limits import ImageLimits
from pagemill_worker.ocr.engine import EngineAdapter, EngineSettings
from pagemill_worker.ocr.registry import adapter

IMAGE_RECIPE = 1  # raised only when the loader gives an engine other pixels for the same file


def engine_settings(job: OcrJob, api_key: str = "") -> EngineSettings:
    """The engine as the job asks for it; `model` and `endpoint` of remote engines travel as options.

    Raises: InvalidSpecError when they are given as options: an endpoint must pass the operator's list of allowed ones.
    """
    engine = job.spec.effective_engine
    options: dict[str, JsonValue] = dict(engine.effective_options)
    for name, field in (("baseUrl", "endpoint"), ("model", "model")):
        if engine.is_remote and name in options:
            raise InvalidSpecError(f"spec.engine.options.{name}: write spec.engine.{field} instead")
    if engine.model is not None:
        options["model"] = engine.model
    if engine.endpoint is not None:
        options["baseUrl"] = engine.endpoint
    return EngineSettings(
        name=engine.effective_name,
        languages=engine.effective_languages,
        device=engine.effective_device,
        options=options,
        item_timeout_s=job.spec.effective_retries.effective_item_timeout_seconds,
        api_key=api_key or None,
    )


def image_limits(job: OcrJob) -> ImageLimits:
    """How large a page may be, and how finely PDF pages are drawn."""
    source = job.spec.source.images or job.spec.source.manifest or job.spec.source.retry_of
    return ImageLimits() if source is None else ImageLimits(pdf_dpi=source.effective_pdf_dpi)


def checked_adapter(settings: EngineSettings) -> EngineAdapter:
    """The job's engine, once it has agreed to the job. Raises: EngineUnavailableError, InvalidSpecError."""
    engine = adapter(settings.name)
    engine.check(settings)
    return engine


def fingerprint_fields(job: OcrJob, engine: EngineAdapter, settings: EngineSettings) -> dict[str, Any]:
    """Everything that decides the bytes of this job's results."""
    return {
        "kind": "OcrJob",
        "engine": engine.fingerprint(settings),
        "images": {"recipe": IMAGE_RECIPE, "pdfDpi": image_limits(job).pdf_dpi},
    }


def fingerprint(fields: dict[str, Any]) -> str:
    """The digest that results are marked with, 64 hexadecimal digits."""
    return digest(fields)
