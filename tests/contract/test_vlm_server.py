"""The misbehaving chat-completions server misbehaves exactly as its script says, and keeps honest books about it."""

from __future__ import annotations

import base64
import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.testing.vlm_faults import (
    Answer,
    Behaviour,
    ChatRequest,
    CutBeforeReply,
    CutMidBody,
    EndlessBody,
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
from pagemill_core.testing.vlm_server import CHAT_PATH, BadVlmServer

PICTURE = b"not really a picture"


def chat_body(picture: bytes = PICTURE, **fields: Any) -> bytes:
    url = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "read"}]
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": content}], **fields}).encode()


@contextmanager
def posted(
    server: BadVlmServer, body: bytes | None = None, *, key: str = "", path: str = CHAT_PATH
) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(urlsplit(server.base_url).netloc, timeout=5)
    try:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        connection.request("POST", path, body=chat_body() if body is None else body, headers=headers)
        with connection.getresponse() as response:
            yield response
    finally:
        connection.close()


def status_of(server: BadVlmServer, body: bytes | None = None, *, key: str = "", path: str = CHAT_PATH) -> int:
    with posted(server, body, key=key, path=path) as response:
        response.read()
        return response.status


def document_of(server: BadVlmServer) -> Any:
    with posted(server) as response:
        return json.loads(response.read())


def test_good_answer_is_a_chat_completion_that_names_its_page() -> None:
    with BadVlmServer(always(Answer())) as server:
        document = document_of(server)

    [request] = server.requests
    content = json.loads(document["choices"][0]["message"]["content"])
    assert content["text_regions"][0]["text"] == f"page {request.page}"
    assert document["choices"][0]["finish_reason"] == "stop"
    assert document["usage"]["prompt_tokens"] == 1000
    assert server.broken == []


def test_request_is_written_down_as_it_came() -> None:
    with BadVlmServer(always(Answer())) as server:
        status_of(server, chat_body(temperature=0.5, max_tokens=77), key="k")

    [request] = server.requests
    assert (request.model, request.temperature, request.max_tokens) == ("m", 0.5, 77)
    assert (request.prompt, request.media_type, request.image) == ("read", "image/png", PICTURE)
    assert request.authorization == "Bearer k"
    assert "Bearer" not in repr(request)


@pytest.mark.parametrize(
    ("behaviour", "want_status", "want_in_body"),
    [
        (Status(429, retry_after="12"), 429, b"scripted"),
        (Status(503), 503, b'"code": 503'),
        (html_page(), 200, b"<html>"),
        (html_page(502), 502, b"<html>"),
        (no_choices(), 200, b'"choices": []'),
        (hidden_error(502), 200, b'"code": 502'),
        (huge_body(100_000), 200, b"x" * 100_000),
        (endless_repetition(), 200, b'"finish_reason": "length"'),
        (truncated_json(), 200, b"hal"),
        (Answer(raw_usage='"usage": 1, "usage": 2'), 200, b'"usage": 1, "usage": 2'),
        (Answer(extra={"refusal": "no"}), 200, b'"refusal": "no"'),
    ],
    ids=["429", "503", "html", "html-502", "no-choices", "hidden"]
    + ["huge", "loop", "truncated", "usage-twice", "refusal"],
)
def test_behaviour_is_acted_out(behaviour: Behaviour, want_status: int, want_in_body: bytes) -> None:
    with BadVlmServer(always(behaviour)) as server, posted(server) as response:
        body = response.read()

    assert response.status == want_status
    assert want_in_body in body
    assert server.statuses == {want_status: 1}


def test_headers_of_the_script_are_sent() -> None:
    with (
        BadVlmServer(always(Status(307, retry_after="9", location="http://127.0.0.1:1/x"))) as server,
        posted(server) as response,
    ):
        assert response.headers["Retry-After"] == "9"
        assert response.headers["Location"] == "http://127.0.0.1:1/x"


def test_cut_before_the_reply_is_a_reset() -> None:
    with BadVlmServer(always(CutBeforeReply())) as server, pytest.raises(ConnectionResetError), posted(server):
        pytest.fail("an answer came")

    assert len(server.requests) == 1


def test_cut_in_the_body_leaves_it_incomplete() -> None:
    with (
        BadVlmServer(always(CutMidBody())) as server,
        posted(server) as response,
        pytest.raises(http.client.IncompleteRead),
    ):
        response.read()


@pytest.mark.parametrize("in_headers", [False, True], ids=["body", "headers"])
def test_drip_takes_the_clocks_time_and_comes_whole(in_headers: bool) -> None:
    clock = FakeClock()
    drip = SlowDrip(every_s=60, chunk_bytes=50, in_headers=in_headers)
    with BadVlmServer(always(drip), clock=clock) as server:
        document = document_of(server)

    assert document["choices"]
    assert clock.monotonic_s() >= 5 * 60


def test_answer_takes_the_time_it_is_told_to() -> None:
    clock = FakeClock()
    with BadVlmServer(always(Answer(takes_s=33)), clock=clock) as server:
        assert status_of(server) == 200

    assert clock.sleeps == (33,)


def test_endless_body_goes_on_until_the_client_leaves() -> None:
    with BadVlmServer(always(EndlessBody())) as server, posted(server) as response:
        assert len(response.read(1_000_000)) == 1_000_000

    assert server.broken == []


def test_silence_lasts_until_the_server_stops() -> None:
    with BadVlmServer(always(Silence())) as server:
        connection = http.client.HTTPConnection(urlsplit(server.base_url).netloc, timeout=0.1)
        connection.request("POST", CHAT_PATH, body=chat_body())
        with pytest.raises(TimeoutError):
            connection.getresponse()
        connection.close()


def test_wrong_key_is_refused_and_quoted() -> None:
    with BadVlmServer(always(Answer()), api_key="right") as server:
        assert status_of(server, key="right") == 200
        with posted(server, key="wrong") as response:
            assert response.status == 401
            assert b"Bearer wrong" in response.read()


def test_unknown_route_is_404() -> None:
    with BadVlmServer(always(Answer())) as server:
        assert status_of(server, path="/v2/chat") == 404


def test_request_that_is_no_chat_is_kept_as_broken() -> None:
    with BadVlmServer(always(Answer())) as server, pytest.raises(http.client.HTTPException):
        status_of(server, b"{")

    assert [type(error) for error in server.broken] == [json.JSONDecodeError]


def test_script_in_order_counts_calls_of_each_page() -> None:
    with BadVlmServer(in_order(Status(500), Status(502))) as server:
        rows = [[status_of(server, chat_body(picture)) for picture in (b"a", b"b")] for _ in range(4)]

    assert rows == [[500, 500], [502, 502], [200, 200], [200, 200]]
    assert set(server.calls_by_page.values()) == {4}


def test_seeded_storm_is_the_same_for_the_same_seed_and_near_its_share() -> None:
    requests = [
        ChatRequest(
            number=0,
            page=f"{page:016x}",
            call_of_page=call,
            model="m",
            temperature=None,
            max_tokens=None,
            prompt="",
            media_type="",
            image=b"",
            authorization="",
        )
        for page in range(500)
        for call in range(2)
    ]
    faults = (Status(429), Status(503), CutBeforeReply())

    first, again, other = (
        [seeded(seed, fault_share=0.3, faults=faults)(request) for request in requests] for seed in (1, 1, 2)
    )

    assert first == again
    assert first != other
    assert 250 <= sum(1 for behaviour in first if behaviour in faults) <= 350
    assert all(fault in first for fault in faults)


def test_capacity_turns_away_what_is_too_much_and_the_peak_is_recorded() -> None:
    both_in = threading.Event()

    def script(_request: ChatRequest) -> Behaviour:
        while not both_in.wait(0.001):
            if server.statuses.get(429, 0) >= 3:
                both_in.set()
        return Answer()

    with (
        BadVlmServer(script, capacity=2, busy_retry_after="4") as server,
        ThreadPoolExecutor(5) as pool,
    ):
        statuses = sorted(pool.map(lambda _: status_of(server), range(5)))

    assert statuses == [200, 200, 429, 429, 429]
    assert 3 <= server.max_in_flight <= 5
