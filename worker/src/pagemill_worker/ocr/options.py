"""An engine's `options` as the job's file gives them, parsed once into a typed model.

Layer: `worker.ocr`. Every adapter subclasses `EngineOptions`; nothing else reads the raw mapping.
"""

from __future__ import annotations

from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from pagemill_core.errors import InvalidSpecError
from pagemill_worker.ocr.engine import EngineSettings

ReadingDirection = Literal["left-to-right", "right-to-left"]


class EngineOptions(BaseModel):
    """What every local engine understands. Names are camelCase in the job's file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel)

    reading_order: ReadingDirection = Field(
        default="left-to-right", description="Order of columns and of pieces within a line; right-to-left for manga."
    )
    min_confidence: float = Field(
        default=0.0, ge=0.0, le=1.0, description="Regions of lower confidence are left out, 0 to 1."
    )


Options = TypeVar("Options", bound=EngineOptions)


def parse_options(model: type[Options], settings: EngineSettings) -> Options:
    """The job's options as `model`, defaults filled in.

    Raises: InvalidSpecError, whose message names the first wrong option and its fault; `advice` lists the known ones.
    """
    try:
        return model.model_validate(dict(settings.options))
    except ValidationError as error:
        raise _refusal(model, settings.name, error) from error


def _refusal(model: type[EngineOptions], engine: str, error: ValidationError) -> InvalidSpecError:
    first = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    known = ", ".join(sorted(str(field.alias or name) for name, field in model.model_fields.items()))
    if first["type"] == "extra_forbidden":
        fault = f"{engine} has no such option; known options: {known}"
    else:
        fault = str(first["msg"])
    return InvalidSpecError(f"engine.options.{path}: {fault}", advice=f"options of {engine}: {known}")
