"""Bodies of chat completions: the good, the odd and the broken; and what an HTTP answer means."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagemill_core.errors import AccessDeniedError, EngineUnavailableError, PagemillError, ReplyRejected
from pagemill_worker.ocr.vlm_verdict import Answered, Busy, Fatal, Faulty, Verdict, judge, said
from pagemill_worker.ocr.vlm_wire import ApiError, CallUsage, ChatReply, parse_body

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


def make_body(**fields: Any) -> bytes:
    choice = {"message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], "model": "acme/x-0301", **fields}).encode()


def verdict(status: int, body: bytes = b"", retry_after: str | None = None) -> Verdict:
    return judge(said(status, body, retry_after, clean=str), model="acme/x", host="host", now=NOW)


def test_body_of_a_chat_is_parsed() -> None:
    reply = parse_body(make_body(usage={"prompt_tokens": 3, "completion_tokens": 4, "cost": 0.5, "extra": {}}))

    assert reply == ChatReply("hello", "stop", None, CallUsage(3, 4, 0.5), "acme/x-0301")


@pytest.mark.parametrize(
    ("message", "finish", "want_content", "want_finish"),
    [
        ({"content": None}, "stop", "", "stop"),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "STOP", "ab", "stop"),
        ({"content": "x", "reasoning": "hm"}, None, "x", None),
        ({}, "length", "", "length"),
    ],
    ids=["null", "parts", "no-reason", "empty"],
)
def test_message_of_any_known_form_is_read(
    message: dict[str, Any], finish: str | None, want_content: str, want_finish: str | None
) -> None:
    reply = parse_body(make_body(choices=[{"message": message, "finish_reason": finish}]))

    assert isinstance(reply, ChatReply)
    assert (reply.content, reply.finish_reason) == (want_content, want_finish)


@pytest.mark.parametrize(
    ("usage", "want"),
    [
        (None, None),
        ([], None),
        ("lots", None),
        ({"prompt_tokens": -1}, None),
        ({}, CallUsage(0, 0, None)),
        ({"prompt_tokens": 5, "cost": "0.25"}, CallUsage(5, 0, 0.25)),
        ({"prompt_tokens": 5, "cost": -1}, CallUsage(5, 0, None)),
        ({"prompt_tokens": 5, "cost": float("inf")}, CallUsage(5, 0, None)),
    ],
    ids=["null", "list", "text", "negative", "empty", "cost-text", "cost-negative", "cost-inf"],
)
def test_usage_without_sense_never_spoils_the_answer(usage: object, want: CallUsage | None) -> None:
    reply = parse_body(make_body(usage=usage))

    assert isinstance(reply, ChatReply)
    assert reply.usage == want


@pytest.mark.parametrize(
    ("error", "want"),
    [
        ({"code": 502, "message": "down"}, ApiError(502, "down")),
        ({"code": "429", "message": "slow"}, ApiError(429, "slow")),
        ({"code": "rate_limit", "message": "slow"}, ApiError(None, "slow")),
        ("just words", ApiError(None, "just words")),
        (["?"], ApiError(None, "an error of unknown shape")),
        ({"message": "m", "metadata": {"reasons": ["x"]}}, ApiError(None, "m", is_moderation=True)),
    ],
    ids=["number", "digits", "word", "text", "list", "moderation"],
)
def test_error_in_the_body_is_read(error: object, want: ApiError) -> None:
    assert parse_body(json.dumps({"error": error}).encode()) == want


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{}", b"<html>", b"\xff\xfe", b"[" * 200_000, b"1" * 10_000, b'{"choices": []}']
    + [b'{"choices": {}}', b'{"choices": [{}]}', b'{"choices": [{"message": {"content": 5}}]}'],
    ids=range(12),
)
def test_body_that_is_no_chat_is_none(body: bytes) -> None:
    assert parse_body(body) is None


@given(st.binary(max_size=200))
def test_body_of_any_bytes_raises_nothing(body: bytes) -> None:
    assert parse_body(body) is None or body


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520, 529])
def test_busy_statuses_wait(status: int) -> None:
    assert verdict(status, retry_after="7") == Busy(f"answered {status}", 7.0, is_throttle=status == 429)


def test_status_200_is_an_answer_or_garbage() -> None:
    assert isinstance(verdict(200, make_body()), Answered)
    assert isinstance(verdict(200, b"<html>"), Faulty)


@pytest.mark.parametrize(
    ("code", "want"),
    [(429, Busy), (503, Busy), (None, Busy), (7, Busy), (401, Fatal), (400, Fatal)],
    ids=str,
)
def test_error_inside_a_200_counts_as_its_own_status(code: int | None, want: type[Verdict]) -> None:
    assert isinstance(verdict(200, json.dumps({"error": {"code": code, "message": "x"}}).encode()), want)


def test_credit_that_comes_back_is_waited_for() -> None:
    assert verdict(402, retry_after="9") == Busy("answered 402", 9.0, is_throttle=True)
    final = verdict(402)
    assert isinstance(final, Fatal)
    assert isinstance(final.error, AccessDeniedError)


@pytest.mark.parametrize(
    ("status", "message", "want"),
    [
        (401, "", AccessDeniedError),
        (403, "", AccessDeniedError),
        (301, "", EngineUnavailableError),
        (404, "", EngineUnavailableError),
        (405, "", EngineUnavailableError),
        (400, "The model `x` does not exist", EngineUnavailableError),
        (400, "unknown model x", EngineUnavailableError),
        (400, "model x does not support image input", EngineUnavailableError),
        (400, "This model's maximum context length is 8192 tokens", ReplyRejected),
        (400, "could not process image", ReplyRejected),
        (413, "", ReplyRejected),
        (422, "", ReplyRejected),
        (418, "", ReplyRejected),
    ],
    ids=str,
)
def test_refusals_end_the_job_or_the_page(status: int, message: str, want: type[PagemillError]) -> None:
    final = verdict(status, json.dumps({"error": {"code": status, "message": message}}).encode())

    assert isinstance(final, Fatal)
    assert type(final.error) is want
