"""One page through a remote model: ask, judge, wait, ask again, and stop at the right moment with the right error.

Layer: `worker.ocr`. Two budgets are kept apart. A page has as many attempts as there are temperatures; an answer that
cannot be used costs one. An endpoint that is busy or away costs none, but patience: seconds, after which the failure
is the endpoint's (RetriableError) and not the page's. Where only this page fails while others are answered, the page
is at fault after all (ReplyRejected), or it would stop its shard for ever.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from pagemill_core.clock import Clock
from pagemill_core.errors import EngineTimeoutError, PagemillError, ReplyRejected, ThrottledError
from pagemill_worker.ocr.engine import Usage
from pagemill_worker.ocr.vlm_backoff import wait_s
from pagemill_worker.ocr.vlm_image import SentImage
from pagemill_worker.ocr.vlm_limiter import ConcurrencyLimiter
from pagemill_worker.ocr.vlm_loops import loops_at_end
from pagemill_worker.ocr.vlm_options import TokenPrice, VlmRecipe
from pagemill_worker.ocr.vlm_prompt import prompt_for
from pagemill_worker.ocr.vlm_reply import Reading, Unusable, parse_reply
from pagemill_worker.ocr.vlm_transport import ChatTransport, HttpReply, NoReply
from pagemill_worker.ocr.vlm_verdict import Answered, Busy, Fatal, Faulty, Verdict, judge, said
from pagemill_worker.ocr.vlm_wire import CallUsage, ChatReply

# A sleep is cut into pieces of this length, so that a closed engine is noticed within one.
_NAP_S: Final = 1.0
# Longer than this nobody but the page that was told so is held back by one page's Retry-After.
_LONGEST_HOLD_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class PageAnswer:
    """A page read. `usage` counts every call made for it, useless ones too; `attempts` is the number that counted."""

    reading: Reading
    usage: Usage
    attempts: int
    served_model: str | None


class UsageMeter:
    """Adds up what calls use. Safe to share between threads."""

    def __init__(self, price: TokenPrice | None) -> None:
        self._price = price
        self._lock = threading.Lock()
        self._total = Usage()

    def add(self, call: CallUsage | None) -> None:
        """Count one call. `call` is None where the endpoint told nothing about it."""
        with self._lock:
            total = self._total
            cost_usd = self._cost_usd(call)
            self._total = Usage(
                prompt_tokens=total.prompt_tokens + (call.prompt_tokens if call else 0),
                completion_tokens=total.completion_tokens + (call.completion_tokens if call else 0),
                requests=total.requests + 1,
                cost_usd=total.cost_usd if cost_usd is None else (total.cost_usd or 0.0) + cost_usd,
            )

    @property
    def total(self) -> Usage:
        """Everything so far. `cost_usd` sums what is known of it, and is None while nothing is."""
        with self._lock:
            return self._total

    def _cost_usd(self, call: CallUsage | None) -> float | None:
        if call is None or call.cost_usd is not None or self._price is None:
            return call.cost_usd if call else None
        tokens_usd = call.prompt_tokens * self._price.prompt + call.completion_tokens * self._price.completion
        return float(tokens_usd / 1_000_000)


class VlmClient:
    """Reads pages with one model at one endpoint. Safe to share between threads."""

    def __init__(
        self,
        recipe: VlmRecipe,
        transport: ChatTransport,
        limiter: ConcurrencyLimiter,
        *,
        clock: Clock,
        dice: random.Random,
    ) -> None:
        self.recipe = recipe
        self.limiter = limiter
        self.meter = UsageMeter(recipe.options.price_per_million_tokens)
        self._transport = transport
        self._clock = clock
        self._dice = dice
        self._closed = threading.Event()
        self._host = urlsplit(recipe.base_url).netloc
        self._prompt = prompt_for(dialect=recipe.dialect, boxes=recipe.boxes, languages=recipe.languages)

    def read(self, image: SentImage) -> PageAnswer:
        """Read one page.

        Raises: ReplyRejected (this page), ThrottledError or EngineTimeoutError (the endpoint, after the patience),
        AccessDeniedError or EngineUnavailableError (the job). None of them holds the key or a foreign exception.
        """
        return _PageCall(self, image).run()

    def close(self) -> None:
        """End the calls and waits under way; their pages raise EngineTimeoutError."""
        self._closed.set()
        self._transport.close()

    def ask(self, body: Mapping[str, Any]) -> tuple[Verdict, float]:
        """One call within the limiter, judged; with the seconds spent on it, the endpoint's hold included."""
        with self.limiter.slot() as epoch:
            started_s = self._clock.monotonic_s()
            self.pause(self.limiter.hold_left_s())
            verdict = self._judged(self._transport.post(body))
            if isinstance(verdict, Answered):
                self.limiter.answered()
            elif isinstance(verdict, Busy | Faulty):
                asked_s = verdict.asked_s if isinstance(verdict, Busy) else None
                self.limiter.complained(asked_in_epoch=epoch, hold_s=min(asked_s or 0.0, _LONGEST_HOLD_S))
            return verdict, self._clock.monotonic_s() - started_s

    def next_wait_s(self, waits_before: int, asked_s: float | None) -> float:
        """Seconds to wait now."""
        return wait_s(waits_before, asked_s=asked_s, dice=self._dice)

    def pause(self, seconds: float) -> None:
        """Sleep, in naps. Raises: EngineTimeoutError when the engine is closed meanwhile."""
        left_s = seconds
        while left_s > 0:
            self.refuse_when_closed()
            self._clock.sleep(min(_NAP_S, left_s))
            left_s -= _NAP_S

    def refuse_when_closed(self) -> None:
        """Raises: EngineTimeoutError when the engine is closed."""
        if self._closed.is_set():
            raise EngineTimeoutError("the engine was closed while a page was being read")

    def body(self, image: SentImage, *, temperature: float, max_tokens: int) -> dict[str, Any]:
        """The request for one page."""
        return {
            **self.recipe.options.extra_body,
            "model": self.recipe.model,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": image.data_uri}},
                        {"type": "text", "text": self._prompt},
                    ],
                }
            ],
            "temperature": temperature,
            "max_tokens": max_tokens,
            "stream": False,
        }

    def named(self, text: str) -> str:
        """`text` about the endpoint, with its host and the model."""
        return f"{self._host} (model {self.recipe.model}) {text}"

    def _judged(self, reply: HttpReply | NoReply) -> Verdict:
        if isinstance(reply, HttpReply):
            answer = said(reply.status, reply.body, reply.retry_after, clean=self._transport.excerpt)
            return judge(answer, model=self.recipe.model, host=self._host, now=self._clock.now())
        if reply.kind == "connection":
            return Busy(f"could not be reached: {reply.detail}")
        return Faulty(f"failed: {reply.detail}")


class _PageCall:
    """The calls for one page, and what has happened in them so far."""

    def __init__(self, client: VlmClient, image: SentImage) -> None:
        self._client = client
        self._image = image
        self._options = client.recipe.options
        self._meter = UsageMeter(client.recipe.options.price_per_million_tokens)
        self._attempt = 0
        self._max_tokens = self._options.max_tokens
        self._waits = 0
        self._patience_left_s = self._options.patience_seconds
        self._answered_before = client.limiter.answered_count

    def run(self) -> PageAnswer:
        error: PagemillError | None = None
        while self._attempt < len(self._options.temperatures):
            self._client.refuse_when_closed()
            temperature = self._options.temperatures[self._attempt]
            body = self._client.body(self._image, temperature=temperature, max_tokens=self._max_tokens)
            verdict, spent_s = self._client.ask(body)
            match verdict:
                case Fatal(fatal):
                    raise fatal
                case Answered(reply):
                    reading = self._usable(reply)
                    if isinstance(reading, Reading):
                        return PageAnswer(reading, self._meter.total, self._attempt + 1, reply.served_model)
                    error = ReplyRejected(self._client.named(f"gave no usable answer: the last {reading.reason}"))
                    self._attempt += 1
                case Faulty(reason):
                    error = self._after_fault(reason)
                case Busy():
                    self._patience_left_s -= spent_s
                    self._wait_for(verdict)
        if error is None:
            raise AssertionError("a page without attempts cannot have been asked for")
        raise error

    def _usable(self, reply: ChatReply) -> Reading | Unusable:
        """The reading in a reply, or why it is not to be used; sets up the next attempt."""
        self._count(reply.usage)
        if reply.finish_reason == "content_filter":
            raise ReplyRejected(self._client.named("withheld its answer to this page (content_filter)"))
        if reply.refusal:
            return Unusable("was a refusal")
        if reply.finish_reason == "length":
            if loops_at_end(reply.content, finished=False):
                return Unusable("repeated itself without end")
            self._max_tokens = min(self._options.max_tokens_limit, self._max_tokens * 2)
            return Unusable("was cut at the token limit")
        if reply.finish_reason != "stop":
            return Unusable(f"ended with finish_reason {reply.finish_reason!r}"[:80])
        if loops_at_end(reply.content, finished=True):
            return Unusable("repeated itself")
        return parse_reply(reply.content)

    def _count(self, usage: CallUsage | None) -> None:
        self._meter.add(usage)
        self._client.meter.add(usage)

    def _after_fault(self, reason: str) -> PagemillError:
        """Use up an attempt and wait; gives the error to end with if it was the last."""
        self._attempt += 1
        self._count(None)
        error = self._given_up(reason)
        if self._attempt < len(self._options.temperatures):
            self._client.pause(self._next_wait_s(None))
        return error

    def _wait_for(self, busy: Busy) -> None:
        seconds = self._next_wait_s(busy.asked_s)
        if seconds > self._patience_left_s:
            raise self._out_of_patience(busy)
        self._patience_left_s -= seconds
        self._client.pause(seconds)

    def _next_wait_s(self, asked_s: float | None) -> float:
        self._waits += 1
        return self._client.next_wait_s(self._waits - 1, asked_s)

    def _out_of_patience(self, busy: Busy) -> PagemillError:
        if not busy.is_throttle:
            return self._given_up(busy.reason, asked_s=busy.asked_s)
        asked_s = busy.asked_s if busy.asked_s is not None and math.isfinite(busy.asked_s) else None
        return ThrottledError(
            self._client.named(f"{busy.reason} for {self._options.patience_seconds:g} s"),
            advice="lower engine.options.maxInFlight or workers.parallelism, or ask the provider for a higher limit",
            retry_after_s=asked_s,
        )

    def _given_up(self, reason: str, *, asked_s: float | None = None) -> PagemillError:
        """The endpoint's failure, unless it answered other pages meanwhile: then this page's."""
        if self._client.limiter.answered_count > self._answered_before:
            return ReplyRejected(self._client.named(f"{reason}, on this page again and again while it answered others"))
        return EngineTimeoutError(self._client.named(reason), retry_after_s=asked_s)
