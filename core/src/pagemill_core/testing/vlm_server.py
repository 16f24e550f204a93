"""A chat-completions server on loopback that behaves as badly as its script says, and writes down what it was asked.

Layer: `core.testing`; used by tests, never by production code. The server keeps time with the clock it is given, so
that a `FakeClock` shared with the client makes an answer that drips for hours a matter of milliseconds.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import socketserver
import struct
import threading
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Self

from pagemill_core.clock import Clock, SystemClock
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
    default_content,
)

CHAT_PATH = "/v1/chat/completions"


class BadVlmServer:
    """The server; a context manager that listens on a free port of 127.0.0.1 while entered.

    With `api_key`, requests without exactly this bearer key are answered 401, in a body that quotes what was sent (as
    some endpoints do). With `capacity`, requests beyond that many at once are answered 429 with `busy_retry_after`,
    whatever the script says. A request that meets a bug of the server itself lands in `broken`, for the test to check.
    """

    def __init__(
        self,
        script: Script,
        *,
        api_key: str | None = None,
        capacity: int | None = None,
        busy_retry_after: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.script = script
        self.clock: Clock = clock if clock is not None else SystemClock()
        self.stopping = threading.Event()
        self.broken: list[BaseException] = []
        self._api_key = api_key
        self._capacity = capacity
        self._busy_retry_after = busy_retry_after
        self._lock = threading.Lock()
        self._requests: list[ChatRequest] = []
        self._statuses: Counter[int] = Counter()
        self._in_flight = 0
        self._max_in_flight = 0
        self._listener = _Listener(self)
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()

    @property
    def base_url(self) -> str:
        """What goes into `options.baseUrl`."""
        return f"http://127.0.0.1:{self._listener.server_address[1]}/v1"

    @property
    def requests(self) -> tuple[ChatRequest, ...]:
        """Every request that reached the server, in order of arrival."""
        with self._lock:
            return tuple(self._requests)

    @property
    def calls_by_page(self) -> dict[str, int]:
        """How often each picture was sent."""
        return dict(Counter(request.page for request in self.requests))

    @property
    def statuses(self) -> dict[int, int]:
        """How many answers had each status; connections cut and silence are not among them."""
        with self._lock:
            return dict(self._statuses)

    @property
    def max_in_flight(self) -> int:
        """The largest number of requests that were open at once."""
        with self._lock:
            return self._max_in_flight

    def received(self, request: ChatRequest) -> tuple[ChatRequest, Behaviour]:
        """Note a request, now in flight, and decide what happens to it."""
        with self._lock:
            number = len(self._requests)
            call_of_page = sum(1 for earlier in self._requests if earlier.page == request.page)
            request = replace(request, number=number, call_of_page=call_of_page)
            self._requests.append(request)
            self._in_flight += 1
            self._max_in_flight = max(self._max_in_flight, self._in_flight)
            is_full = self._capacity is not None and self._in_flight > self._capacity
        return request, self._decided(request, is_full=is_full)

    def left(self) -> None:
        """A request is no longer in flight."""
        with self._lock:
            self._in_flight -= 1

    def answered(self, status: int) -> None:
        """Count an answer."""
        with self._lock:
            self._statuses[status] += 1

    def _decided(self, request: ChatRequest, *, is_full: bool) -> Behaviour:
        if self._api_key is not None and request.authorization != f"Bearer {self._api_key}":
            return Status(401, message=f"Incorrect API key provided: {request.authorization}")
        if is_full:
            return Status(429, retry_after=self._busy_retry_after, message="Rate limit exceeded")
        return self.script(request)


class _Listener(socketserver.ThreadingMixIn, socketserver.TCPServer):
    # TCPServer rather than HTTPServer: the latter looks its own address up in the DNS.
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, owner: BadVlmServer) -> None:
        self.owner = owner
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: the handler keeps its own errors, and what is left is the other side having gone."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener

    def do_POST(self) -> None:
        self.close_connection = True
        owner = self.server.owner
        self._is_in_flight = False
        try:
            request = self._read_request()
            self._is_in_flight = True
            self._act(*owner.received(request))
        except ConnectionError:
            # The client went away, which slow and endless answers are there to make it do.
            return
        except (ValueError, KeyError, TypeError, AttributeError, LookupError) as error:
            owner.broken.append(error)
        finally:
            self._leave()

    def _leave(self) -> None:
        # Before the last byte goes out: a client may ask again the moment it has it, and must not be counted twice.
        if self._is_in_flight:
            self._is_in_flight = False
            self.server.owner.left()

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def _read_request(self) -> ChatRequest:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))) or b"{}")
        media_type, image, prompt = "", b"", ""
        for message in body.get("messages", []):
            for part in message["content"]:
                if part["type"] == "image_url":
                    media_type, _, encoded = part["image_url"]["url"].removeprefix("data:").partition(";base64,")
                    image = base64.b64decode(encoded, validate=True)
                else:
                    prompt = part["text"]
        return ChatRequest(
            number=0,
            page=hashlib.sha256(image).hexdigest()[:16] if image else "",
            call_of_page=0,
            model=body.get("model", ""),
            temperature=body.get("temperature"),
            max_tokens=body.get("max_tokens"),
            prompt=prompt,
            media_type=media_type,
            image=image,
            authorization=self.headers.get("Authorization", ""),
        )

    def _act(self, request: ChatRequest, behaviour: Behaviour) -> None:
        match behaviour:
            case _ if self.path != CHAT_PATH:
                self._send(_error_status(404, f"no route {self.path}"))
            case Answer():
                self._wait(behaviour.takes_s)
                self._send(_chat_status(request, behaviour))
            case Status():
                self._send(behaviour)
            case CutBeforeReply():
                self._reset()
            case CutMidBody():
                whole = _rendered(_chat_status(request, Answer()))
                self._leave()
                self.wfile.write(whole[: len(whole) - 40])
                self.wfile.flush()
            case SlowDrip():
                self._drip(_rendered(_chat_status(request, Answer())), behaviour)
            case EndlessBody():
                self._endless(behaviour)
            case Silence():
                self._stay_silent()

    def _send(self, status: Status) -> None:
        self.server.owner.answered(status.status)
        self._leave()
        self.wfile.write(_rendered(status))
        self.wfile.flush()

    def _drip(self, whole: bytes, drip: SlowDrip) -> None:
        body_start = whole.index(b"\r\n\r\n") + 4
        start = 0 if drip.in_headers else body_start
        self.wfile.write(whole[:start])
        for place in range(start, len(whole), drip.chunk_bytes):
            if self.server.owner.stopping.is_set():
                return
            self.wfile.write(whole[place : place + drip.chunk_bytes])
            self.wfile.flush()
            self._wait(drip.every_s)

    def _endless(self, body: EndlessBody) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")
        block = body.unit * max(1, 65536 // len(body.unit))
        while not self.server.owner.stopping.is_set():
            self.wfile.write(block)

    def _stay_silent(self) -> None:
        self.connection.settimeout(0.05)
        while not self.server.owner.stopping.is_set():
            try:
                if self.connection.recv(1) == b"":
                    return
            except TimeoutError:
                continue

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            self.server.owner.clock.sleep(seconds)

    def _reset(self) -> None:
        self._leave()
        # Linger for 0 s: the socket's end is then a reset and not an orderly goodbye.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        raise ConnectionResetError


def _error_status(status: int, message: str) -> Status:
    return Status(status, message=message)


def _chat_status(request: ChatRequest, answer: Answer) -> Status:
    content = default_content(request) if answer.content is None else answer.content
    message = {"role": "assistant", "content": content, **answer.extra}
    fields = {
        "id": f"chat-{request.number}",
        "object": "chat.completion",
        "model": request.model,
        "choices": [{"index": 0, "message": message, "finish_reason": answer.finish_reason}],
    }
    parts = [json.dumps(fields)[1:-1]]
    if answer.raw_usage is not None:
        parts.append(answer.raw_usage)
    elif answer.usage is not None:
        parts.append(f'"usage": {json.dumps(answer.usage)}')
    return Status(200, body=("{" + ", ".join(parts) + "}").encode())


def _rendered(status: Status) -> bytes:
    if status.body is None:
        error = {"code": status.status, "message": status.message, "metadata": status.metadata or {}}
        body = json.dumps({"error": error}).encode()
    else:
        body = status.body
    lines = [
        f"HTTP/1.1 {status.status} Scripted",
        f"Content-Type: {status.content_type}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    if status.retry_after is not None:
        lines.append(f"Retry-After: {status.retry_after}")
    if status.location is not None:
        lines.append(f"Location: {status.location}")
    return "\r\n".join([*lines, "", ""]).encode() + body
