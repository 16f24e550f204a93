"""The chat-completions answer of an OpenAI-compatible endpoint, parsed once and forgivingly.

Layer: `worker.ocr`, the border between bytes and types; no network. Endpoints differ in everything but the outline,
so only what decides is typed strictly; usage that makes no sense is None and never spoils an answer that does.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError


@dataclass(frozen=True, slots=True)
class CallUsage:
    """What one call used. `cost_usd` is None where the endpoint does not say."""

    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class ApiError:
    """An error in an answer's body. `code` is an HTTP status or None."""

    code: int | None
    message: str
    is_moderation: bool = False


@dataclass(frozen=True, slots=True)
class ChatReply:
    """The part of an answer that matters. `finish_reason` is lower case."""

    content: str
    finish_reason: str | None
    refusal: str | None
    usage: CallUsage | None
    served_model: str | None


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class _Part(_Lenient):
    text: str = ""


class _Message(_Lenient):
    content: str | list[_Part] | None = None
    refusal: str | None = None


class _Choice(_Lenient):
    message: _Message
    finish_reason: str | None = None


class _Chat(_Lenient):
    choices: list[_Choice] = Field(min_length=1)
    model: str | None = None


class _Usage(_Lenient):
    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    cost: float | None = None


class _Error(_Lenient):
    code: int | str | None = None
    message: str = ""
    metadata: dict[str, Any] | None = None


def parse_body(body: bytes) -> ChatReply | ApiError | None:
    """An answer, the error that stands in its place, or None for anything else. Never raises."""
    try:
        document = json.loads(body.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    if document.get("error"):
        return _error(document["error"])
    try:
        chat = _Chat.model_validate(document)
    except ValidationError:
        return None
    choice = chat.choices[0]
    content = choice.message.content
    return ChatReply(
        content="".join(part.text for part in content) if isinstance(content, list) else content or "",
        finish_reason=choice.finish_reason.lower() if choice.finish_reason else None,
        refusal=choice.message.refusal or None,
        usage=_usage(document.get("usage")),
        served_model=chat.model,
    )


def _error(value: object) -> ApiError:
    if isinstance(value, str):
        return ApiError(None, value)
    try:
        error = _Error.model_validate(value)
    except ValidationError:
        return ApiError(None, "an error of unknown shape")
    code = int(error.code) if error.code is not None and str(error.code).isdecimal() else None
    metadata = error.metadata or {}
    return ApiError(code, error.message, is_moderation="flagged_input" in metadata or "reasons" in metadata)


def _usage(value: object) -> CallUsage | None:
    try:
        usage = _Usage.model_validate(value)
    except ValidationError:
        return None
    cost = usage.cost if usage.cost is not None and math.isfinite(usage.cost) and usage.cost >= 0 else None
    return CallUsage(usage.prompt_tokens, usage.completion_tokens, cost)
