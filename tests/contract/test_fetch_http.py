"""Fetching URLs, against a real server on loopback that behaves as badly as the ones out there."""

from __future__ import annotations

import datetime as dt
import email.utils
import gzip
import http.server
import threading
import time
import zlib
from collections.abc import Callable

import pytest

from pagemill_core.clock import SystemClock
from pagemill_core.errors import FetchFailed, ImageMissing, ImageTooLarge, SourceChanged
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.testing.web_server import Answer, answer, in_turn, raw, serving
from pagemill_worker.fetch.fetched import Span
from pagemill_worker.fetch.http import HttpPolicy
from pagemill_worker.testing.http_fetching import LOOPBACK, fetching

PICTURE = b"\x89PNG" + bytes(range(256)) * 40
LIMIT = 1 << 20


def test_fetch_plain_answer_gives_bytes_and_etag() -> None:
    with serving({"/p.png": answer(200, PICTURE, ETag='"v1"')}) as (port, _), fetching() as fetcher:
        fetched = fetcher.fetch(f"http://127.0.0.1:{port}/p.png", max_bytes=LIMIT)
    assert fetched.data == PICTURE
    assert fetched.version == '"v1"'
    assert fetched.final_uri == f"http://127.0.0.1:{port}/p.png"


def test_fetch_many_from_one_host_reuses_the_connection() -> None:
    peers = set()

    def remember(handler: http.server.BaseHTTPRequestHandler, turn: int) -> None:
        peers.add(handler.client_address)
        answer(200, PICTURE)(handler, turn)

    with serving({"/p": remember}) as (port, _), fetching() as fetcher:
        for _ in range(5):
            fetcher.fetch(f"http://127.0.0.1:{port}/p", max_bytes=LIMIT)
    assert len(peers) == 1


def test_fetch_unchanged_etag_is_signalled_by_none() -> None:
    routes = {"/p": answer(304)}
    with serving(routes) as (port, seen), fetching() as fetcher:
        assert fetcher.fetch_if_changed(f"http://127.0.0.1:{port}/p", earlier_version='"v1"', max_bytes=LIMIT) is None
    assert seen.requests[0][1]["If-None-Match"] == '"v1"'


def test_fetch_changed_etag_gives_the_new_bytes() -> None:
    with serving({"/p": answer(200, PICTURE, ETag='"v2"')}) as (port, _), fetching() as fetcher:
        fetched = fetcher.fetch_if_changed(f"http://127.0.0.1:{port}/p", earlier_version='"v1"', max_bytes=LIMIT)
        assert fetched is not None
        assert fetched.version == '"v2"'
        with pytest.raises(SourceChanged):
            fetcher.fetch(f"http://127.0.0.1:{port}/p", expected_version='"v1"', max_bytes=LIMIT)


@pytest.mark.parametrize("status", [404, 410])
def test_fetch_gone_is_a_missing_image_at_once(status: int) -> None:
    with (
        serving({"/p": answer(status)}) as (port, seen),
        fetching() as fetcher,
        pytest.raises(ImageMissing) as caught,
    ):
        fetcher.fetch(f"http://127.0.0.1:{port}/p", max_bytes=LIMIT)
    assert caught.value.message == f"Image file not found: http://127.0.0.1:{port}/p"
    assert len(seen.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 418, 206])
def test_fetch_refused_fails_with_the_status_at_once(status: int) -> None:
    with (
        serving({"/p": answer(status)}) as (port, seen),
        fetching() as fetcher,
        pytest.raises(FetchFailed, match=f"status {status}"),
    ):
        fetcher.fetch(f"http://127.0.0.1:{port}/p", max_bytes=LIMIT)
    assert len(seen.requests) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_fetch_passing_trouble_is_retried_with_growing_waits(status: int) -> None:
    clock = FakeClock()
    routes = {"/p": in_turn(answer(status), answer(status), answer(200, PICTURE))}
    with serving(routes) as (port, _), fetching(clock=clock) as fetcher:
        assert fetcher.fetch(f"http://127.0.0.1:{port}/p", max_bytes=LIMIT).data == PICTURE
    assert clock.sleeps == (0.5, 1.0)


def test_fetch_lasting_trouble_fails_with_the_last_status_after_all_attempts() -> None:
    with (
        serving({"/p": answer(503)}) as (port, seen),
        fetching() as fetcher,
        pytest.raises(FetchFailed, match=r"status 503 \(after 4 attempts\)"),
    ):
        fetcher.fetch(f"http://127.0.0.1:{port}/p", max_bytes=LIMIT)
    assert len(seen.requests) == 4


def test_fetch_retry_after_in_seconds_is_honoured() -> None:
    clock = FakeClock()
    routes = {"/p": in_turn(answer(429, Retry_After="17"), answer(200, PICTURE))}
    with serving(routes) as (port, _), fetching(clock=clock) as fetcher:
        fetcher.fetch(f"http://127.0.0.1:{port}/p", max_bytes=LIMIT)
    assert clock.sleeps == (17.0,)


def test_fetch_retry_after_as_a_date_is_honoured() -> None:
    clock = FakeClock()
    at = email.utils.format_datetime(clock.now() + dt.timedelta(seconds=9), usegmt=True)
    routes = {"/p": in_turn(answer(503, Retry_After=at), answer(200, PICTURE))}
    with serving(routes) as (port, _), fetching(clock=clock) as fetcher:
        fetcher.fetch(f"http://127.0.0.1:{port}/p", max_bytes=LIMIT)
    assert clock.sleeps == (9.0,)


def test_fetch_retry_after_beyond_patience_fails_without_waiting() -> None:
    clock = FakeClock()
    with (
        serving({"/p": answer(429, Retry_After="86400")}) as (port, seen),
        fetching(clock=clock) as fetcher,
        pytest.raises(FetchFailed, match=r"status 429 \(after 1 attempts\)"),
    ):
        fetcher.fetch(f"http://127.0.0.1:{port}/p", max_bytes=LIMIT)
    assert clock.sleeps == ()
    assert len(seen.requests) == 1


CUT_BODY = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + bytes(100))
CUT_CHUNKS = raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\nabc")
NO_HTTP = raw(b"SSH-2.0-OpenSSH_9.6\r\n")
NOTHING = raw()


@pytest.mark.parametrize(
    "broken", [CUT_BODY, CUT_CHUNKS, NO_HTTP, NOTHING], ids=["body", "chunks", "no-http", "nothing"]
)
def test_fetch_cut_answer_is_retried_and_never_taken_for_whole(broken: Answer) -> None:
    routes = {"/p": in_turn(broken, answer(200, PICTURE)), "/always": broken}
    with serving(routes) as (port, _), fetching() as fetcher:
        assert fetcher.fetch(f"http://127.0.0.1:{port}/p", max_bytes=LIMIT).data == PICTURE
        with pytest.raises(FetchFailed, match="after 4 attempts"):
            fetcher.fetch(f"http://127.0.0.1:{port}/always", max_bytes=LIMIT)


def test_fetch_nobody_listening_fails_after_retries() -> None:
    with serving({}) as (port, _):
        pass
    with fetching() as fetcher, pytest.raises(FetchFailed, match="the connection failed"):
        fetcher.fetch(f"http://127.0.0.1:{port}/p", max_bytes=LIMIT)


@pytest.mark.parametrize(
    "slow",
    [
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", *[b"x"] * 100, pause_s=0.05),
        raw(*[b"H"] * 100, pause_s=0.05),
        raw(b"HTTP/1.1 200 OK\r\n", *[b"X-A: b\r\n"] * 100, pause_s=0.05),
    ],
    ids=["body", "status-line", "headers"],
)
def test_fetch_one_byte_at_a_time_ends_at_the_total_time(slow: Answer) -> None:
    policy = HttpPolicy(addresses=LOOPBACK, total_timeout_s=0.3, attempts=1)
    started = time.monotonic()
    with serving({"/p": slow}) as (port, _), fetching(policy, SystemClock()) as fetcher:
        with pytest.raises(FetchFailed, match="took too long"):
            fetcher.fetch(f"http://127.0.0.1:{port}/p", max_bytes=LIMIT)
        assert time.monotonic() - started < 3


def test_fetch_announced_size_over_the_cap_is_refused_before_the_body() -> None:
    huge = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")
    with (
        serving({"/p": huge}) as (port, seen),
        fetching() as fetcher,
        pytest.raises(ImageTooLarge, match="99999999 bytes"),
    ):
        fetcher.fetch(f"http://127.0.0.1:{port}/p", max_bytes=LIMIT)
    assert len(seen.requests) == 1


def test_fetch_endless_body_stops_at_the_cap() -> None:
    endless = raw(b"HTTP/1.1 200 OK\r\n\r\n", *[bytes(60_000)] * 400)
    with serving({"/p": endless}) as (port, _), fetching() as fetcher, pytest.raises(ImageTooLarge):
        fetcher.fetch(f"http://127.0.0.1:{port}/p", max_bytes=LIMIT)


@pytest.mark.parametrize(("encoding", "squeeze"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_fetch_encoded_although_not_asked_for_is_decoded(encoding: str, squeeze: Callable[[bytes], bytes]) -> None:
    routes = {"/p": answer(200, squeeze(PICTURE), Content_Encoding=encoding)}
    with serving(routes) as (port, seen), fetching() as fetcher:
        assert fetcher.fetch(f"http://127.0.0.1:{port}/p", max_bytes=LIMIT).data == PICTURE
    assert seen.requests[0][1]["Accept-Encoding"] == "identity"


def test_fetch_encoding_bomb_stops_at_the_cap() -> None:
    bomb = gzip.compress(bytes(200 << 20), 9)
    assert len(bomb) < LIMIT
    with (
        serving({"/p": answer(200, bomb, Content_Encoding="gzip")}) as (port, _),
        fetching() as fetcher,
        pytest.raises(ImageTooLarge),
    ):
        fetcher.fetch(f"http://127.0.0.1:{port}/p", max_bytes=LIMIT)


@pytest.mark.parametrize(("body", "encoding"), [(b"not gzip at all", "gzip"), (PICTURE, "br"), (PICTURE, "gzip, gzip")])
def test_fetch_unusable_encoding_fails(body: bytes, encoding: str) -> None:
    with (
        serving({"/p": answer(200, body, Content_Encoding=encoding)}) as (port, _),
        fetching() as fetcher,
        pytest.raises(FetchFailed, match="encoding"),
    ):
        fetcher.fetch(f"http://127.0.0.1:{port}/p", max_bytes=LIMIT)


def test_fetch_cut_gzip_is_retried() -> None:
    cut = gzip.compress(PICTURE)[:-10]
    routes = {"/p": in_turn(answer(200, cut, Content_Encoding="gzip"), answer(200, PICTURE))}
    with serving(routes) as (port, _), fetching() as fetcher:
        assert fetcher.fetch(f"http://127.0.0.1:{port}/p", max_bytes=LIMIT).data == PICTURE


def test_fetch_by_threads_at_once_all_arrive() -> None:
    results: list[bytes] = []
    with serving({"/p": answer(200, PICTURE)}) as (port, _), fetching() as fetcher:

        def work() -> None:
            for _ in range(5):
                results.append(fetcher.fetch(f"http://127.0.0.1:{port}/p", max_bytes=LIMIT).data)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [PICTURE] * 40


def ranged(handler: http.server.BaseHTTPRequestHandler, _: int) -> None:
    """A server that knows ranges."""
    start, _, end = handler.headers["Range"].removeprefix("bytes=").partition("-")
    body = PICTURE[int(start) : int(end) + 1]
    answer(206, body, Content_Range=f"bytes {start}-{end}/{len(PICTURE)}", ETag='"v1"')(handler, 0)


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_fetch_range_gives_its_bytes_from_any_server(knows_ranges: bool) -> None:
    routes = {"/p": ranged if knows_ranges else answer(200, PICTURE, ETag='"v1"')}
    with serving(routes) as (port, seen), fetching() as fetcher:
        uri = f"http://127.0.0.1:{port}/p"
        assert fetcher.fetch_range(uri, Span(100, 50), expected_version='"v1"').data == PICTURE[100:150]
        with pytest.raises(SourceChanged):
            fetcher.fetch_range(uri, Span(100, 50), expected_version='"v0"')
    assert seen.requests[0][1]["Range"] == "bytes=100-149"


def test_fetch_range_other_than_asked_for_fails() -> None:
    routes = {"/p": answer(206, b"abc", Content_Range="bytes 0-2/9")}
    with serving(routes) as (port, _), fetching() as fetcher, pytest.raises(FetchFailed, match="another range"):
        fetcher.fetch_range(f"http://127.0.0.1:{port}/p", Span(3, 3))
