"""What an endpoint's answer means for the page, for the job, and for how hard we may press.

Layer: `worker.ocr`, pure. One place decides it, so that the guide can print it as a table:

    answer                                      verdict    the page
    200 with choices                            Answered   is read from it, or the answer is refused and the next asked
    429, 5xx, 408, 425, 402 with Retry-After    Busy       waits; its attempts stay
    no connection, a connection cut             Busy       waits; its attempts stay
    no whole answer in time, 200 with garbage   Faulty     uses up an attempt, then waits
    longer than allowed                         Faulty     uses up an attempt, then waits
    401, 403, 402                               Fatal      AccessDeniedError: the job stops
    404, 3xx, 400 about the model               Fatal      EngineUnavailableError: the job stops
    other 4xx, moderation                       Fatal      ReplyRejected: this page fails, the next goes on
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pagemill_core.errors import AccessDeniedError, EngineUnavailableError, PagemillError, ReplyRejected
from pagemill_worker.ocr.vlm_backoff import retry_after_s
from pagemill_worker.ocr.vlm_wire import ApiError, ChatReply, parse_body

_BUSY_STATUSES: Final = frozenset({408, 425, 429})
_MODEL_TROUBLE: Final = re.compile(
    r"not (?:a )?(?:valid|found|support)|does(?: not|n't) (?:exist|support)|unknown|no such", re.I
)
_KEY_ADVICE: Final = (
    "put a valid key into the Secret named by engine.apiKeySecretRef, or hand it over with --api-key "
    "or OPENROUTER_API_KEY"
)
_CREDIT_ADVICE: Final = "add credits to the account or raise the limit of the key, then run the same file again"
_MODEL_ADVICE: Final = "name a model in engine.model that this endpoint serves and that takes pictures"
_URL_ADVICE: Final = "set engine.endpoint to the address before /chat/completions, with the scheme it answers on"


@dataclass(frozen=True, slots=True)
class Answered:
    """The model said something."""

    reply: ChatReply


@dataclass(frozen=True, slots=True)
class Busy:
    """The endpoint is busy or away. `asked_s` is its own wish; `is_throttle` when it said that we ask too much."""

    reason: str
    asked_s: float | None = None
    is_throttle: bool = False


@dataclass(frozen=True, slots=True)
class Faulty:
    """An answer that is none: perhaps the endpoint's fault, perhaps the page's."""

    reason: str


@dataclass(frozen=True, slots=True)
class Fatal:
    """Asking again cannot help."""

    error: PagemillError


Verdict = Answered | Busy | Faulty | Fatal


@dataclass(frozen=True, slots=True)
class Said:
    """An HTTP answer as it is judged: `excerpt` is what it says for people, cleaned of keys."""

    status: int
    retry_after: str | None
    body: ChatReply | ApiError | None
    excerpt: str


def said(status: int, body: bytes, retry_after: str | None, *, clean: Callable[[str], str]) -> Said:
    """An answer with its body parsed; an error inside a 200 gets the status that it names.

    `clean` makes a short line without keys of a text from the other side.
    """
    parsed = parse_body(body)
    excerpt = ""
    if isinstance(parsed, ApiError):
        excerpt = clean(parsed.message)
    elif status != 200:
        excerpt = clean(body.decode("utf-8", "replace"))
    if status == 200 and isinstance(parsed, ApiError):
        # Endpoints that began with 200 before the model failed put the true status into the body; without one it is
        # a failure behind the endpoint.
        status = parsed.code if parsed.code is not None and 400 <= parsed.code < 600 else 502
    return Said(status, retry_after, parsed, excerpt)


def judge(answer: Said, *, model: str, host: str, now: dt.datetime) -> Verdict:
    """The verdict on one HTTP answer of `host`, asked for `model`."""
    status = answer.status
    if status == 200:
        return (
            Answered(answer.body) if isinstance(answer.body, ChatReply) else Faulty("answered 200 with no chat reply")
        )
    asked_s = retry_after_s(answer.retry_after, now)
    if status in _BUSY_STATUSES or status >= 500 or (status == 402 and asked_s is not None):
        return Busy(f"answered {status}", asked_s, is_throttle=status in (402, 429))
    return Fatal(_refusal(answer, model=model, host=host))


def _refusal(answer: Said, *, model: str, host: str) -> PagemillError:
    status = answer.status
    what = f"{host} answered {status}: {answer.excerpt}"
    if status == 402:
        return AccessDeniedError(f"the account has no credit left; {what}", advice=_CREDIT_ADVICE)
    error = answer.body if isinstance(answer.body, ApiError) else ApiError(None, "")
    if error.is_moderation:
        return ReplyRejected(f"the page was flagged by the endpoint's moderation; {what}")
    if status in (401, 403):
        return AccessDeniedError(f"the API key was not accepted; {what}", advice=_KEY_ADVICE)
    if 300 <= status < 400:
        return EngineUnavailableError(f"{host} redirects elsewhere (HTTP {status})", advice=_URL_ADVICE)
    about_model = "model" in error.message.lower() and _MODEL_TROUBLE.search(error.message)
    if status in (404, 405) or (status == 400 and about_model):
        return EngineUnavailableError(f"no model {model} to be asked; {what}", advice=_MODEL_ADVICE)
    return ReplyRejected(f"the request for this page was refused; {what}")
