"""The vlm engine against a server that misbehaves: what each page gets, what calls cost, and that no page is lost."""

from __future__ import annotations

import io
import json
import logging
import random
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pagemill_core.errors import (
    AccessDeniedError,
    EngineTimeoutError,
    EngineUnavailableError,
    PagemillError,
    ReplyRejected,
    ThrottledError,
)
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.testing.vlm_faults import (
    Answer,
    Behaviour,
    ChatRequest,
    CutBeforeReply,
    CutMidBody,
    EndlessBody,
    Script,
    Silence,
    SlowDrip,
    Status,
    always,
    endless_repetition,
    hidden_error,
    html_page,
    huge_body,
    in_order,
    no_choices,
    seeded,
    truncated_json,
)
from pagemill_core.testing.vlm_server import BadVlmServer
from pagemill_worker.images.page import PageImage
from pagemill_worker.ocr.engine import EngineSettings, PageText, Usage
from pagemill_worker.ocr.vlm import VlmAdapter, VlmEngine
from pagemill_worker.ocr.vlm_backoff import most_waits

KEY = "sk-or-planted-7d1f93c2a8e64b50"
MODEL = "acme/reader-vl"


def make_page(number: int = 0, *, width_px: int = 40, height_px: int = 20) -> PageImage:
    pixels = np.full((height_px, width_px, 3), 255, dtype=np.uint8)
    pixels[4:12, 4:20] = np.random.default_rng(number).integers(0, 255, (8, 16, 3), dtype=np.uint8)
    return PageImage(pixels)


def make_settings(server: BadVlmServer, *, api_key: str | None = None, **options: Any) -> EngineSettings:
    # A blank model family gives no boxes; PNG keeps the pages of different numbers different.
    fields = {"model": MODEL, "baseUrl": server.base_url, "imageFormat": "png", **options}
    return EngineSettings(name="vlm", options=fields, api_key=api_key)


class Bench:
    """A server and engines on one fake clock, all closed at the end of the test."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self._closers: list[Callable[[], None]] = []

    def serve(self, script: Script | Behaviour, **settings: Any) -> BadVlmServer:
        chosen: Script = script if callable(script) else always(script)
        server = BadVlmServer(chosen, clock=self.clock, **settings)
        server.__enter__()
        self._closers.append(lambda: server.__exit__(None, None, None))
        return server

    def engine(self, server: BadVlmServer, *, api_key: str | None = None, **options: Any) -> VlmEngine:
        adapter = VlmAdapter("vlm", clock=self.clock, dice=random.Random(7))
        settings = make_settings(server, api_key=api_key, **options)
        adapter.check(settings)
        engine = adapter.load(settings)
        self._closers.append(engine.close)
        return engine

    def close(self) -> None:
        for closer in reversed(self._closers):
            closer()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def texts(page: PageText) -> list[str]:
    return [region.text for region in page.regions]


# What is sent


def test_request_names_the_picture_as_what_it_is(bench: Bench) -> None:
    for image_format in ("png", "jpeg"):
        server = bench.serve(Answer())

        bench.engine(server, imageFormat=image_format).recognise(make_page())

        [request] = server.requests
        assert request.media_type == f"image/{image_format}"
        with Image.open(io.BytesIO(request.image)) as picture:
            assert picture.format == image_format.upper()


def test_request_for_a_large_page_is_shrunk_and_boxes_come_back_in_page_pixels(bench: Bench) -> None:
    box = {"text_regions": [{"text": "a", "bbox": [100, 200, 300, 400]}]}
    server = bench.serve(Answer(json.dumps(box)))
    engine = bench.engine(server, model="qwen/qwen3-vl-8b", longestSidePx=100)

    page = engine.recognise(make_page(width_px=400, height_px=200))

    with Image.open(io.BytesIO(server.requests[0].image)) as picture:
        assert picture.size == (100, 50)
    assert page.regions[0].bbox == (40.0, 40.0, 80.0, 40.0)


def test_request_carries_model_prompt_and_key(bench: Bench) -> None:
    server = bench.serve(Answer(), api_key=KEY)

    bench.engine(server, api_key=f"{KEY}\n").recognise(make_page())

    [request] = server.requests
    assert request.authorization == f"Bearer {KEY}"
    assert (request.model, request.temperature, request.max_tokens) == (MODEL, 0.0, 4000)
    assert "text_regions" in request.prompt


# What a good answer gives


def test_good_answer_becomes_regions_with_usage(bench: Bench) -> None:
    server = bench.serve(Answer())

    page = bench.engine(server).recognise(make_page())

    assert texts(page) == [f"page {server.requests[0].page}"]
    assert page.regions[0].confidence == 0.8
    assert page.regions[0].metadata == {"order": 0, "location": "top"}
    assert page.usage == Usage(prompt_tokens=1000, completion_tokens=100, requests=1, cost_usd=0.002)
    assert not page.confidence_is_default


def test_answer_without_confidence_gets_the_default_and_says_so(bench: Bench) -> None:
    server = bench.serve(Answer('{"text_regions": [{"text": "a"}, {"text": "b"}]}'))

    page = bench.engine(server).recognise(make_page())

    assert [region.confidence for region in page.regions] == [0.9, 0.9]
    assert page.confidence_is_default
    assert all(region.metadata["confidence_is_default"] for region in page.regions)


def test_answer_in_prose_is_one_flagged_region(bench: Bench) -> None:
    server = bench.serve(Answer("Once upon a time\nthere was a page."))

    page = bench.engine(server).recognise(make_page())

    assert texts(page) == ["Once upon a time\nthere was a page."]
    assert page.regions[0].confidence == 0.5
    assert page.regions[0].metadata["parsing_failed"]
    assert page.metadata["is_fallback"]


def test_answer_with_no_region_is_an_empty_page(bench: Bench) -> None:
    server = bench.serve(Answer('{"text_regions": []}'))

    page = bench.engine(server).recognise(make_page())

    assert page.regions == ()
    assert len(server.requests) == 1


def test_grounding_model_is_asked_in_its_own_words_and_placed(bench: Bench) -> None:
    server = bench.serve(Answer("<|ref|>BANG<|/ref|><|det|>[[500, 500, 1000, 1000]]<|/det|>"))

    page = bench.engine(server, model="deepseek/deepseek-ocr").recognise(make_page())

    assert server.requests[0].prompt == "<|grounding|>OCR this image."
    assert (page.regions[0].text, page.regions[0].bbox) == ("BANG", (20.0, 10.0, 20.0, 10.0))


# Answers that cost an attempt


@pytest.mark.parametrize(
    ("useless", "want_reason"),
    [
        (truncated_json(), "broken JSON"),
        (truncated_json(finish_reason="length"), "cut at the token limit"),
        (endless_repetition(), "repeated itself"),
        (Answer(""), "empty"),
        (Answer(None, finish_reason=None), "finish_reason None"),
        (Answer(None, finish_reason="tool_calls"), "finish_reason 'tool_calls'"),
        (Answer('{"text_regions": "none"}'), "another shape"),
        (Answer("I'm sorry, but I can't help with that."), "refusal"),
        (Answer("", extra={"refusal": "no"}), "refusal"),
    ],
    ids=["truncated", "length", "loop", "empty", "unfinished", "tools", "shape", "refusal-prose", "refusal-field"],
)
def test_useless_answer_is_asked_again_hotter_then_rejected(bench: Bench, useless: Answer, want_reason: str) -> None:
    server = bench.serve(in_order(useless))
    assert texts(bench.engine(server).recognise(make_page())) == [f"page {server.requests[0].page}"]
    assert [request.temperature for request in server.requests] == [0.0, 0.2]

    hopeless = bench.serve(useless)
    engine = bench.engine(hopeless)
    with pytest.raises(ReplyRejected, match=want_reason):
        engine.recognise(make_page())
    assert [request.temperature for request in hopeless.requests] == [0.0, 0.2, 0.5]
    assert engine.spent.requests == 3
    assert bench.clock.sleeps == ()


def test_answer_cut_by_length_gets_more_tokens_but_a_loop_does_not(bench: Bench) -> None:
    cut = bench.serve(truncated_json(finish_reason="length"))
    loop = bench.serve(endless_repetition())

    for server in (cut, loop):
        with pytest.raises(ReplyRejected):
            bench.engine(server, maxTokens=1000, maxTokensLimit=3000).recognise(make_page())

    assert [request.max_tokens for request in cut.requests] == [1000, 2000, 3000]
    assert [request.max_tokens for request in loop.requests] == [1000, 1000, 1000]


def test_content_filter_rejects_the_page_at_once(bench: Bench) -> None:
    server = bench.serve(Answer("", finish_reason="content_filter"))

    with pytest.raises(ReplyRejected, match="content_filter"):
        bench.engine(server).recognise(make_page())

    assert len(server.requests) == 1


# Trouble that costs patience, and no attempt


@pytest.mark.parametrize(
    "trouble",
    [
        Status(429),
        Status(500),
        Status(502),
        Status(503),
        Status(529),
        Status(408),
        Status(402, retry_after="3"),
        CutBeforeReply(),
        CutMidBody(),
        hidden_error(502),
        hidden_error(429),
        html_page(502),
    ],
    ids=["429", "500", "502", "503", "529", "408", "402-wait", "reset", "cut", "hidden-502", "hidden-429", "html-502"],
)
def test_busy_endpoint_is_waited_for_without_using_up_attempts(bench: Bench, trouble: Behaviour) -> None:
    server = bench.serve(in_order(*[trouble] * 5))

    page = bench.engine(server, temperatures=[0.0]).recognise(make_page())

    assert texts(page) == [f"page {server.requests[0].page}"]
    assert len(server.requests) == 6
    assert {request.temperature for request in server.requests} == {0.0}
    assert page.metadata["attempts"] == 1
    assert bench.clock.monotonic_s() >= 1 + 2 + 4 + 8 + 12


@pytest.mark.parametrize(
    ("header", "want_at_least_s"),
    [("17", 17), ("0.5", 1), ("Thu, 01 Jan 2026 00:00:40 GMT", 40), ("Wed, 31 Dec 2025 00:00:00 GMT", 1)],
    ids=["seconds", "fraction", "date", "date-passed"],
)
def test_retry_after_is_honoured(bench: Bench, header: str, want_at_least_s: float) -> None:
    server = bench.serve(in_order(Status(429, retry_after=header)))

    bench.engine(server).recognise(make_page())

    assert want_at_least_s <= bench.clock.monotonic_s() <= want_at_least_s + 2


def test_retry_after_of_one_page_holds_the_others_back(bench: Bench) -> None:
    server = bench.serve(in_order(Status(429, retry_after="30")))
    engine = bench.engine(server)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: engine.recognise(make_page(number)), range(4)))

    assert bench.clock.monotonic_s() >= 30
    assert engine.spent.requests == 4


def test_retry_after_of_a_page_that_gave_up_holds_the_next_one_back(bench: Bench) -> None:
    server = bench.serve(Status(429, retry_after="30"))
    engine = bench.engine(server, patienceSeconds=0)
    with pytest.raises(ThrottledError):
        engine.recognise(make_page(0))
    assert bench.clock.sleeps == ()

    server.script = always(Answer())
    engine.recognise(make_page(1))

    assert bench.clock.monotonic_s() == 30


def test_retry_after_beyond_the_patience_is_given_back_to_the_worker(bench: Bench) -> None:
    server = bench.serve(Status(429, retry_after="7200"))

    with pytest.raises(ThrottledError) as caught:
        bench.engine(server).recognise(make_page())

    assert caught.value.retry_after_s == 7200
    assert "maxInFlight" in caught.value.advice
    assert bench.clock.sleeps == ()


@pytest.mark.parametrize(
    ("trouble", "want"),
    [(Status(429), ThrottledError), (Status(503), EngineTimeoutError), (CutBeforeReply(), EngineTimeoutError)],
    ids=["throttled", "down", "reset"],
)
def test_endpoint_that_stays_away_ends_in_a_retriable_error_within_the_patience(
    bench: Bench, trouble: Behaviour, want: type[PagemillError]
) -> None:
    server = bench.serve(trouble)

    with pytest.raises(want):
        bench.engine(server, patienceSeconds=300).recognise(make_page())

    assert 100 <= bench.clock.monotonic_s() <= 300
    assert len(server.requests) <= most_waits(300) + 1


def test_closed_port_is_an_endpoint_that_is_away(bench: Bench) -> None:
    with BadVlmServer(always(Answer())) as server:
        engine = bench.engine(server, patienceSeconds=20)

    with pytest.raises(EngineTimeoutError, match="could not be reached"):
        engine.recognise(make_page())


# Answers that are none


@pytest.mark.parametrize(
    "garbage",
    [
        html_page(200),
        no_choices(),
        Status(200, body=b"[" * 100_000),
        Status(200, body=b"\xff\xfe"),
        Status(200, body=b""),
    ],
    ids=["html", "no-choices", "nested", "not-utf8", "nothing"],
)
def test_garbage_uses_attempts_and_waits(bench: Bench, garbage: Status) -> None:
    server = bench.serve(in_order(garbage, garbage))
    assert texts(bench.engine(server).recognise(make_page()))
    assert bench.clock.monotonic_s() >= 3

    hopeless = bench.serve(garbage)
    with pytest.raises(EngineTimeoutError, match="no chat reply"):
        bench.engine(hopeless).recognise(make_page())
    assert len(hopeless.requests) == 3


def test_page_that_fails_alone_is_rejected_instead_of_stopping_its_shard(bench: Bench) -> None:
    bad_page = make_page(1)
    bench_server: list[BadVlmServer] = []

    def script(request: ChatRequest) -> Behaviour:
        if request.page == bench_server[0].requests[0].page:
            if request.call_of_page == 0:
                engine.recognise(make_page(2))
            return no_choices()
        return Answer()

    bench_server.append(bench.serve(script))
    engine = bench.engine(bench_server[0])

    with pytest.raises(ReplyRejected, match="while it answered others"):
        engine.recognise(bad_page)


@pytest.mark.parametrize("body", [huge_body(200_000), EndlessBody()], ids=["huge", "endless"])
def test_body_beyond_the_limit_is_dropped_early(bench: Bench, body: Behaviour) -> None:
    server = bench.serve(body)

    with pytest.raises(EngineTimeoutError, match="longer than 65536 bytes"):
        bench.engine(server, maxResponseBytes=65536, temperatures=[0]).recognise(make_page())


def test_body_that_drips_is_cut_by_the_whole_time(bench: Bench) -> None:
    server = bench.serve(SlowDrip(every_s=10))

    with pytest.raises(EngineTimeoutError, match="within 120 s"):
        bench.engine(server, temperatures=[0]).recognise(make_page())


@pytest.mark.parametrize("slow", [Silence(), SlowDrip(every_s=0.15, in_headers=True)], ids=["silence", "headers-drip"])
def test_answer_that_never_comes_whole_is_cut_in_real_time(slow: Behaviour) -> None:
    adapter = VlmAdapter("vlm")
    with BadVlmServer(always(slow)) as server:
        engine = adapter.load(make_settings(server, requestTimeoutSeconds=0.2, temperatures=[0]))
        started = threading.Event()
        outcome: Future[PageText] = Future()

        def read() -> None:
            started.set()
            try:
                outcome.set_result(engine.recognise(make_page()))
            except PagemillError as error:
                outcome.set_exception(error)

        thread = threading.Thread(target=read)
        thread.start()
        with pytest.raises(EngineTimeoutError, match=r"within 0\.2 s"):
            # The headers alone would take 14 s.
            outcome.result(timeout=8)
        thread.join()
        engine.close()


def test_close_ends_a_call_under_way() -> None:
    adapter = VlmAdapter("vlm")
    arrived = threading.Event()

    def script(_request: ChatRequest) -> Behaviour:
        arrived.set()
        return Silence()

    with BadVlmServer(script) as server, ThreadPoolExecutor(1) as pool:
        engine = adapter.load(make_settings(server))
        reading = pool.submit(engine.recognise, make_page())
        assert arrived.wait(10)
        engine.close()
        with pytest.raises(EngineTimeoutError):
            reading.result(timeout=10)


# Trouble that ends the job, or the page


@pytest.mark.parametrize(
    ("answer", "want", "want_advice"),
    [
        (Status(401, message="bad key"), AccessDeniedError, "apiKeySecretRef"),
        (Status(403, message="forbidden"), AccessDeniedError, "apiKeySecretRef"),
        (Status(402, message="Insufficient credits"), AccessDeniedError, "credits"),
        (Status(404, message="No endpoints found that support image input"), EngineUnavailableError, "engine.model"),
        (Status(400, message="acme/x is not a valid model ID"), EngineUnavailableError, "engine.model"),
        (Status(308, location="https://elsewhere.example/v1"), EngineUnavailableError, "engine.endpoint"),
        (hidden_error(401), AccessDeniedError, "apiKeySecretRef"),
        (Status(400, message="image too large"), ReplyRejected, ""),
        (Status(400, message="This model's maximum context length is 8192 tokens"), ReplyRejected, ""),
        (Status(413, message="too large"), ReplyRejected, ""),
        (Status(403, metadata={"flagged_input": "x", "reasons": ["violence"]}), ReplyRejected, ""),
    ],
    ids=["401", "403", "402", "404", "400-model", "redirect", "hidden-401", "400", "context", "413", "moderation"],
)
def test_refusal_is_final_and_says_what_to_do(
    bench: Bench, answer: Status, want: type[PagemillError], want_advice: str
) -> None:
    server = bench.serve(answer)

    with pytest.raises(want) as caught:
        bench.engine(server).recognise(make_page())

    assert want_advice in caught.value.advice
    assert len(server.requests) == 1


# Money


def test_usage_counts_every_call_of_a_page(bench: Bench) -> None:
    server = bench.serve(in_order(Answer(""), Status(503), html_page(200)))

    page = bench.engine(server).recognise(make_page())

    assert page.usage == Usage(prompt_tokens=2000, completion_tokens=200, requests=3, cost_usd=0.004)


def test_usage_of_failed_pages_is_in_what_the_engine_spent(bench: Bench) -> None:
    engine = bench.engine(bench.serve(Answer("")))
    for number in range(2):
        with pytest.raises(ReplyRejected):
            engine.recognise(make_page(number))

    assert engine.spent.requests == 6
    assert engine.spent.cost_usd == pytest.approx(0.012)


@pytest.mark.parametrize(
    ("answer", "want_cost_usd"),
    [
        (Answer(usage={"prompt_tokens": 1_000_000, "completion_tokens": 500_000}), 0.64),
        (Answer(usage={"prompt_tokens": 1_000_000, "completion_tokens": 0, "cost": 5}), 5.0),
        (Answer(usage={"prompt_tokens": 10, "completion_tokens": 0, "cost": -5}), 0.000002),
        (Answer(usage=None), None),
        (Answer(usage={"prompt_tokens": "lots"}), None),
        (Answer(raw_usage='"usage": {"cost": 1, "prompt_tokens": 1}, "usage": {"cost": 1, "prompt_tokens": 1}'), 1.0),
        (Answer(raw_usage='"usage": {"cost": NaN, "prompt_tokens": 0}'), 0.0),
    ],
    ids=["by-price", "api-says", "negative", "absent", "nonsense", "twice", "nan"],
)
def test_cost_is_what_the_api_says_else_by_price(bench: Bench, answer: Answer, want_cost_usd: float | None) -> None:
    server = bench.serve(answer)
    engine = bench.engine(server, pricePerMillionTokens={"prompt": "0.20", "completion": "0.88"})

    usage = engine.recognise(make_page()).usage

    assert usage is not None
    assert usage.cost_usd == (None if want_cost_usd is None else pytest.approx(want_cost_usd))


# The key


def everything_said(error: BaseException) -> str:
    """An exception as the nosiest reporter would print it: causes, contexts and the local names of every frame.

    The test's own frame is left out: it knows the key.
    """
    frames = error.__traceback__.tb_next if error.__traceback__ is not None else None
    report = traceback.TracebackException(type(error), error, frames, capture_locals=True)
    parts = ["".join(report.format()), repr(error), str(vars(error))]
    for linked in (error.__cause__, error.__context__):
        if linked is not None:
            parts.append(everything_said(linked))
    return "\n".join(parts)


@pytest.mark.parametrize(
    "trouble",
    [
        Status(401),
        Status(429),
        Status(500, body=KEY.encode()),
        Status(400, message=f"bad request with {KEY}"),
        Status(404, message=f"Bearer {KEY}"),
        CutBeforeReply(),
        CutMidBody(),
        html_page(200),
        Answer(""),
        hidden_error(401, f"{KEY} is wrong"),
    ],
    ids=["401", "429", "500", "400", "404", "reset", "cut", "html", "empty", "hidden"],
)
def test_key_is_in_no_error_log_or_repr(bench: Bench, trouble: Behaviour, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server = bench.serve(trouble)
    engine = bench.engine(server, api_key=KEY, patienceSeconds=20)

    with pytest.raises(PagemillError) as caught:
        engine.recognise(make_page())

    assert server.requests[0].authorization == f"Bearer {KEY}"
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    said = everything_said(caught.value)
    assert "self = <pagemill_worker.ocr.vlm_client." in said
    for text in (said, caught.value.advice, caplog.text, repr(engine), repr(vars(engine))):
        assert KEY not in text
        assert "planted" not in text


@pytest.mark.parametrize("padding", ["", "x" * 190, " " * 5000], ids=["plain", "at-the-cut", "after-blanks"])
def test_key_of_no_known_form_is_scrubbed_from_what_the_endpoint_says(bench: Bench, padding: str) -> None:
    key = "f3a9c1d27b6e4805"
    for answer in (Status(400, message=f"{padding}{key}"), Status(400, body=f"<p>{padding}{key}</p>".encode())):
        with pytest.raises(ReplyRejected) as caught:
            bench.engine(bench.serve(answer), api_key=key).recognise(make_page())
        assert key[:6] not in caught.value.message


def test_wrong_key_echoed_by_the_endpoint_is_scrubbed(bench: Bench) -> None:
    server = bench.serve(Answer(), api_key="the-right-one")

    with pytest.raises(AccessDeniedError) as caught:
        bench.engine(server, api_key=KEY).recognise(make_page())

    assert "Incorrect API key provided" in caught.value.message
    assert KEY not in everything_said(caught.value)


def test_key_does_not_follow_a_redirect(bench: Bench) -> None:
    other = bench.serve(Answer())
    server = bench.serve(Status(307, location=f"{other.base_url}/chat/completions"))

    with pytest.raises(EngineUnavailableError):
        bench.engine(server, api_key=KEY).recognise(make_page())

    assert other.requests == ()


# Many pages at once

STORM_FAULTS: tuple[Behaviour, ...] = (
    Status(429, retry_after="5"),
    Status(429, retry_after="Thu, 01 Jan 2026 00:01:00 GMT"),
    Status(429),
    Status(500),
    Status(502),
    Status(503),
    CutBeforeReply(),
    CutMidBody(),
    html_page(502),
    hidden_error(502),
)


@pytest.mark.parametrize("seed", range(3))
def test_storm_of_200_pages_with_30_percent_faults_loses_none(bench: Bench, seed: int) -> None:
    server = bench.serve(seeded(seed, fault_share=0.3, faults=STORM_FAULTS))
    engine = bench.engine(server, maxInFlight=8, patienceSeconds=80_000, temperatures=[0.0])
    pages = [make_page(number) for number in range(200)]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(engine.recognise, pages))

    assert sorted(texts(result)[0] for result in results) == sorted(f"page {page}" for page in server.calls_by_page)
    assert len(server.calls_by_page) == 200
    assert max(server.calls_by_page.values()) <= 12
    assert 220 < len(server.requests) < 400
    assert server.max_in_flight <= 8
    assert server.broken == []
    assert engine.spent.cost_usd == pytest.approx(200 * 0.002)


def test_storm_is_the_same_whatever_the_order_of_threads(bench: Bench) -> None:
    counts = []
    for threads in (1, 8):
        server = bench.serve(seeded(11, fault_share=0.3, faults=STORM_FAULTS))
        engine = bench.engine(server, maxInFlight=threads, patienceSeconds=80_000)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(engine.recognise, [make_page(number) for number in range(30)]))
        counts.append(server.calls_by_page)

    assert counts[0] == counts[1]


def test_concurrency_falls_to_what_the_endpoint_bears(bench: Bench) -> None:
    has_fallen = threading.Event()

    def script(_request: ChatRequest) -> Behaviour:
        # The first three are kept until the engine has understood that three is what the endpoint bears.
        while not has_fallen.wait(0.001):
            if engine.concurrency <= 3:
                has_fallen.set()
        return Answer()

    server = bench.serve(script, capacity=3, busy_retry_after="1")
    engine = bench.engine(server, maxInFlight=16, patienceSeconds=80_000)
    assert engine.concurrency == 16

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(engine.recognise, [make_page(number) for number in range(60)]))

    assert len({texts(result)[0] for result in results}) == 60
    assert has_fallen.is_set()
    assert server.statuses[429] >= 3
    assert max(server.calls_by_page.values()) <= 20


def test_concurrency_halves_on_429_and_comes_back(bench: Bench) -> None:
    server = bench.serve(in_order(Status(429)))
    engine = bench.engine(server, maxInFlight=8)

    engine.recognise(make_page(0))
    assert engine.concurrency == 4

    server.script = always(Answer())
    for number in range(1, 40):
        engine.recognise(make_page(number))
    assert engine.concurrency == 8
