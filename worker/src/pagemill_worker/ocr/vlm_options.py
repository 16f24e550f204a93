"""`spec.engine.options` of the vlm engines, parsed once into a typed and complete recipe.

Layer: `worker.ocr`, the border between a job's free-form options and the client; no I/O. The API key is not an
option and never passes through here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from pagemill_core.errors import EngineUnavailableError, InvalidSpecError
from pagemill_worker.ocr.engine import EngineSettings
from pagemill_worker.ocr.languages import canonical_tag, split_codes
from pagemill_worker.ocr.vlm_presets import PRESETS, Boxes, Dialect, Family, family_of

_OWN_BODY_FIELDS: Final = frozenset({"model", "messages", "max_tokens", "temperature", "stream", "n"})
# Where a job writes them; `ocr.job` puts them among the options.
_OWN_FIELDS: Final = {"model": "model", "baseUrl": "endpoint"}


def _checked_url(url: str) -> str:
    if not url.isprintable() or " " in url:
        raise ValueError("must not hold blanks or control characters")
    parts = urlsplit(url)
    _ = parts.port  # Raises ValueError when the port is none.
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http:// or https:// URL such as https://host/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must not hold credentials, a query or a fragment; the key belongs into apiKeySecretRef")
    return url.rstrip("/")


class _Parsed(BaseModel):
    # hide_input_in_errors: a key pasted into the options by mistake must not come back in an error's text.
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, hide_input_in_errors=True)


class TokenPrice(_Parsed):
    """US dollars per million tokens, for endpoints whose answers do not say what they cost."""

    prompt: Decimal = Field(ge=0)
    completion: Decimal = Field(ge=0)


class VlmOptions(_Parsed):
    """The options a job may set, with their defaults. Unknown names are refused."""

    model: str | None = Field(default=None, min_length=1, max_length=200)
    base_url: Annotated[str, AfterValidator(_checked_url)] | None = None
    boxes: Boxes | None = None
    dialect: Dialect | None = None
    # 2048: about 175 dpi on an A4 page, where 8-point print is still 17 pixels high; the models' own limits lie near.
    longest_side_px: int = Field(default=2048, ge=64, le=8192)
    image_format: Literal["jpeg", "png"] = "jpeg"
    jpeg_quality: int = Field(default=90, ge=30, le=100)
    # 4000: a dense page with boxes; a ceiling costs nothing where the answer is short. Doubled after an answer that
    # was cut, up to the limit.
    max_tokens: int = Field(default=4000, ge=16)
    max_tokens_limit: int = Field(default=16000, ge=16)
    temperatures: tuple[Annotated[float, Field(ge=0, le=2)], ...] = Field(
        default=(0.0, 0.2, 0.5), min_length=1, max_length=10
    )
    request_timeout_seconds: float = Field(default=120.0, gt=0, le=3600)
    patience_seconds: float = Field(default=600.0, ge=0, le=86400)
    max_in_flight: int = Field(default=4, ge=1, le=256)
    max_response_bytes: int = Field(default=4 * 1024 * 1024, ge=1024, le=256 * 1024 * 1024)
    price_per_million_tokens: TokenPrice | None = None
    extra_body: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_tokens_limit < self.max_tokens:
            raise ValueError("maxTokensLimit is below maxTokens")
        if taken := sorted(_OWN_BODY_FIELDS & self.extra_body.keys()):
            raise ValueError(f"extraBody must not set {', '.join(taken)}")
        return self


@dataclass(frozen=True, slots=True)
class VlmRecipe:
    """A job's options with every default filled in: what the client works by."""

    name: str
    model: str
    base_url: str
    boxes: Boxes
    dialect: Dialect
    grid_px: int
    languages: tuple[str, ...]
    options: VlmOptions

    @property
    def is_loopback(self) -> bool:
        host = urlsplit(self.base_url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


def recipe_of(settings: EngineSettings) -> VlmRecipe:
    """Everything the job asks for, checked.

    Raises: InvalidSpecError with the field's path, for an unknown option, a value out of range, a missing model, or a
    device (the model runs elsewhere); EngineUnavailableError for a code that is no language.
    """
    if settings.device == "gpu":
        raise InvalidSpecError(f"engine.device: {settings.name} runs on a remote endpoint; use auto")
    languages = _language_tags(settings.languages)
    options = _parsed(settings)
    preset = PRESETS[settings.name]
    model = options.model or preset.model
    if model is None:
        raise InvalidSpecError(
            f"engine.model: engine {settings.name} has no default model",
            advice="name the model as its endpoint calls it, or use one of the presets: qwen, gemma, deepseek",
        )
    family: Family = family_of(model)
    boxes = options.boxes if options.boxes is not None else family.boxes
    return VlmRecipe(
        name=settings.name,
        model=model,
        base_url=options.base_url or preset.base_url,
        boxes=boxes,
        dialect=options.dialect if options.dialect is not None else family.dialect,
        grid_px=family.grid_px if boxes is Boxes.PIXELS else 1,
        languages=languages,
        options=options,
    )


def _language_tags(languages: Iterable[str]) -> tuple[str, ...]:
    """The languages as tags; which of them a remote model reads nobody can say, so all that exist are taken."""
    tags: dict[str, None] = {}
    for code in split_codes(languages):
        tag = canonical_tag(code)
        if tag is None:
            raise EngineUnavailableError(
                f"engine.languages: {code!r} is no language code known here",
                advice="use BCP-47 codes such as en, fr, ja, zh-Hans",
            )
        tags[tag] = None
    return tuple(tags)


def _parsed(settings: EngineSettings) -> VlmOptions:
    problem = ""
    try:
        return VlmOptions.model_validate(dict(settings.options))
    except ValidationError as error:
        problem = _first_problem(error)
    # Raised out here, without the cause: a ValidationError carries its input, and a misplaced key may be in it.
    raise InvalidSpecError(problem)


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    first, *rest = map(str, problem["loc"] or ("",))
    own = _OWN_FIELDS.get(first)
    path = ".".join(("engine", *([own] if own else ["options", first]), *rest)).rstrip(".")
    return f"{path}: {problem['msg']}"
