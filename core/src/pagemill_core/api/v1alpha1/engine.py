"""Which engine reads the pages, and in which languages.

Layer: `core.api`. Whether an engine is installed and has a language is asked of the engine before any work starts.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, WithJsonSchema
from pydantic_core import PydanticCustomError

from pagemill_core.api.rules.parts import REMOTE_ENGINES
from pagemill_core.api.v1alpha1.base import ApiModel
from pagemill_core.api.v1alpha1.types import Endpoint, Language, Listed, Name, Text

EngineName = Literal["rapidocr", "paddleocr", "tesseract", "easyocr", "vlm", "qwen", "gemma", "deepseek"]
Device = Literal["auto", "cpu", "gpu"]

FREE_FORM: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "maxProperties": 64}


def _as_stored(value: JsonValue) -> JsonValue:
    """The value as the API server gives it back (1.0 as 1), so that a laptop and a cluster see the same options."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise PydanticCustomError("rules", "{text}", {"text": "must be a finite number"})
        return int(value) if value.is_integer() else value
    if isinstance(value, dict):
        return {name: _as_stored(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_as_stored(inner) for inner in value]
    return value


def _store_options(options: dict[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: _as_stored(value) for name, value in options.items() if value is not None}


Options = Annotated[
    dict[str, JsonValue], Field(max_length=64), AfterValidator(_store_options), WithJsonSchema(FREE_FORM)
]
Languages = Annotated[tuple[Language, ...], Listed(min_length=1, max_length=32)]


class SecretKeyRef(ApiModel):
    """One key of a Secret in the job's namespace. On a laptop the command line's own settings are used instead."""

    name: Name = Field(description="The Secret's name; it must match the operator's secretNamePattern (pagemill-*).")
    key: Text | None = Field(default=None, description="The key inside the Secret. Default api-key.")

    @property
    def effective_key(self) -> str:
        """The key inside the Secret."""
        return "api-key" if self.key is None else self.key


class Engine(ApiModel):
    """The OCR engine. A remote engine (vlm, qwen, gemma, deepseek) sends pages to an OpenAI-compatible endpoint."""

    name: EngineName | None = Field(
        default=None, description="The engine; qwen, gemma and deepseek are presets of vlm. Default rapidocr."
    )
    languages: Languages | None = Field(
        default=None,
        description='Languages as BCP-47 codes or the engine\'s own, in quotes ("no" is a boolean without). '
        'Default ["en"].',
    )
    device: Device | None = Field(
        default=None, description="auto takes a GPU where the pool has one and the engine can use it. Default auto."
    )
    model: Text | None = Field(
        default=None, description="Remote engines: the model's name at the endpoint. Default: the preset's."
    )
    endpoint: Endpoint | None = Field(
        default=None,
        description="Remote engines: the base address of the API; it must be allowed by the operator. Default: the "
        "preset's.",
    )
    api_key_secret_ref: SecretKeyRef | None = Field(
        default=None, description="Remote engines: where the API key lies. A key never stands in a job's file."
    )
    options: Options | None = Field(
        default=None, description="The engine's own options; unknown names and bad values are refused before work."
    )

    @property
    def effective_name(self) -> EngineName:
        """The engine."""
        return "rapidocr" if self.name is None else self.name

    @property
    def effective_languages(self) -> tuple[str, ...]:
        """Languages in the order of preference."""
        return ("en",) if self.languages is None else self.languages

    @property
    def effective_device(self) -> Device:
        """Where the engine computes."""
        return "auto" if self.device is None else self.device

    @property
    def effective_options(self) -> dict[str, JsonValue]:
        """The engine's own options, as given."""
        return {} if self.options is None else self.options

    @property
    def is_remote(self) -> bool:
        """Whether pages are sent to an endpoint, which costs money per page and may be named by the job."""
        return self.effective_name in REMOTE_ENGINES
