"""What the misbehaving chat-completions server may do with a request, and scripts that decide which, deterministically.

Layer: `core.testing`; plain values and pure functions, no sockets. Each behaviour was met in the wild or follows from
HTTP; the server in vlm_server.py acts them out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request as the server understood it.

    `number` counts all requests from 0, `call_of_page` those with the same picture. `page` is 16 hexadecimal digits
    of the picture's SHA-256, "" where there was none. `authorization` is the header as sent.
    """

    number: int
    page: str
    call_of_page: int
    model: str
    temperature: float | None
    max_tokens: int | None
    prompt: str
    media_type: str
    image: bytes = field(repr=False)
    authorization: str = field(repr=False)


def default_content(request: ChatRequest) -> str:
    """A well-formed answer whose one region names the page, so that mixed-up answers are seen."""
    region = {"text": f"page {request.page}", "location": "top", "confidence": 0.8, "bbox": [100, 100, 500, 200]}
    return json.dumps({"text_regions": [region]})


@dataclass(frozen=True, slots=True)
class Answer:
    """200 with a chat completion.

    `content` None means `default_content`; `usage` None leaves usage out, and `raw_usage`, when set, is put into the
    body as it stands, instead. `extra` fields join the message (`refusal`, …).
    """

    content: str | None = None
    finish_reason: str | None = "stop"
    usage: Mapping[str, object] | None = field(
        default_factory=lambda: {"prompt_tokens": 1000, "completion_tokens": 100, "cost": 0.002}
    )
    raw_usage: str | None = None
    extra: Mapping[str, object] = field(default_factory=dict)
    takes_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Status:
    """Any status with any body; JSON with an `error` object unless `body` is given."""

    status: int
    retry_after: str | None = None
    message: str = "scripted"
    body: bytes | None = None
    content_type: str = "application/json"
    metadata: Mapping[str, object] | None = None
    location: str | None = None


@dataclass(frozen=True, slots=True)
class CutBeforeReply:
    """The connection is reset before a single byte."""


@dataclass(frozen=True, slots=True)
class CutMidBody:
    """The headers promise a whole answer; half of it comes, then the end."""


@dataclass(frozen=True, slots=True)
class SlowDrip:
    """A good answer, `chunk_bytes` at a time every `every_s` seconds; the headers too, when `in_headers`."""

    every_s: float
    chunk_bytes: int = 1
    in_headers: bool = False


@dataclass(frozen=True, slots=True)
class EndlessBody:
    """A body without length or end: `unit` again and again until the other side leaves."""

    unit: bytes = b'{"text": "again"}, '


@dataclass(frozen=True, slots=True)
class Silence:
    """The request is read, and nothing ever comes back."""


Behaviour = Answer | Status | CutBeforeReply | CutMidBody | SlowDrip | EndlessBody | Silence
Script = Callable[[ChatRequest], Behaviour]


def html_page(status: int = 200) -> Status:
    """A gateway's error page in place of JSON, with a status that need not say so."""
    body = b"<!DOCTYPE html><html><body><h1>Bad gateway</h1></body></html>"
    return Status(status, body=body, content_type="text/html")


def no_choices() -> Status:
    """A chat completion without `choices`."""
    return Status(200, body=b'{"id": "x", "object": "chat.completion", "choices": []}')


def hidden_error(code: int, message: str = "provider failed") -> Status:
    """200 outside, an error inside: how some endpoints report what broke after they had begun."""
    return Status(200, body=json.dumps({"error": {"code": code, "message": message}}).encode())


def huge_body(size_bytes: int) -> Status:
    """A body of `size_bytes`, announced with its length."""
    return Status(200, body=b'{"choices": "' + b"x" * size_bytes + b'"}')


def endless_repetition(unit: str = "la ", times: int = 3000) -> Answer:
    """A model caught in a loop until its token limit."""
    return Answer('{"text_regions": [{"text": "' + unit * times, finish_reason="length")


def truncated_json(finish_reason: str = "stop") -> Answer:
    """JSON that ends inside its second region."""
    return Answer('{"text_regions": [{"text": "whole"}, {"text": "hal', finish_reason=finish_reason)


def always(behaviour: Behaviour) -> Script:
    """The same for every request."""
    return lambda _request: behaviour


def in_order(*behaviours: Behaviour, then: Behaviour | None = None) -> Script:
    """One behaviour per request of a page, in order; afterwards `then`, a good answer by default."""
    last = Answer() if then is None else then

    def script(request: ChatRequest) -> Behaviour:
        return behaviours[request.call_of_page] if request.call_of_page < len(behaviours) else last

    return script


def seeded(seed: int, *, fault_share: float, faults: Sequence[Behaviour]) -> Script:
    """A storm: each request fails with probability `fault_share`, by one of `faults`.

    Decided by seed, page and the page's own count of calls, so that the order in which threads arrive changes nothing.
    """

    def script(request: ChatRequest) -> Behaviour:
        word = hashlib.sha256(f"{seed}/{request.page}/{request.call_of_page}".encode()).digest()
        if int.from_bytes(word[:4], "big") / 2**32 >= fault_share:
            return Answer()
        return faults[int.from_bytes(word[4:8], "big") % len(faults)]

    return script
