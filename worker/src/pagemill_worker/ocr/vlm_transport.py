"""One call to an endpoint: its whole time and size bounded, its key never let out, its failures returned as values.

Layer: `worker.ocr`; the only module of the vlm engine that names httpx. Failures are values and not `raise … from`,
because an httpx error holds the request, and the request its Authorization header.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self, runtime_checkable

import httpx
from pydantic import SecretStr

from pagemill_core.clock import Clock
from pagemill_core.errors import InvalidSpecError

_CONNECT_TIMEOUT_S: Final = 10.0
_KEY_LIKE: Final = re.compile(r"\bsk-[\w.*-]{6,}|\bBearer\s+[^\s\"']+")
_EXCERPT_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class HttpReply:
    """An answer read to its end. `retry_after` is the header as sent."""

    status: int
    body: bytes
    retry_after: str | None = None


@dataclass(frozen=True, slots=True)
class NoReply:
    """Why there is none. connection: it could not be made or was cut; timeout: not done in time; oversize: too long."""

    kind: Literal["connection", "timeout", "oversize"]
    detail: str


@dataclass(frozen=True, slots=True)
class TransportLimits:
    """Bounds of one call: all of it within `timeout_s`, the body within `max_bytes`.

    `use_proxies` takes the machine's proxy settings into account, which an endpoint on loopback must not.
    """

    timeout_s: float
    max_bytes: int
    use_proxies: bool = True


def checked_endpoint(base_url: str) -> str:
    """The URL to post to. Raises: InvalidSpecError when `base_url` makes none."""
    try:
        return str(httpx.URL(f"{base_url}/chat/completions"))
    except httpx.InvalidURL as error:
        raise InvalidSpecError(f"engine.endpoint: {error}") from error


class ChatTransport:
    """Posts to one chat-completions URL. Safe to share between threads."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: SecretStr | None,
        limits: TransportLimits,
        clock: Clock,
    ) -> None:
        self._url = checked_endpoint(base_url)
        self._limits = limits
        self._clock = clock
        self._api_key = api_key
        self._calls_lock = threading.Lock()
        self._open_calls: set[_Watchdog] = set()
        self._closed = False
        self._client = httpx.Client(
            auth=_Bearer(api_key) if api_key is not None else None,
            # identity: the size limit then counts what arrives, and no small body unpacks into a huge one.
            headers={"Accept-Encoding": "identity", "Content-Type": "application/json", "User-Agent": "pagemill"},
            timeout=httpx.Timeout(limits.timeout_s, connect=min(_CONNECT_TIMEOUT_S, limits.timeout_s)),
            # No connection is used twice: a call takes seconds, a handshake milliseconds, and the watchdog must know
            # that the socket it cuts belongs to its own call.
            limits=httpx.Limits(max_keepalive_connections=0),
            follow_redirects=False,
            trust_env=limits.use_proxies,
        )

    def post(self, body: Mapping[str, Any]) -> HttpReply | NoReply:
        """Send `body` and read the whole answer, whatever its status. Never raises for what the other side does."""
        payload = json.dumps(body, ensure_ascii=False).encode()
        with _Watchdog(self._limits.timeout_s) as watchdog:
            if not self._entered(watchdog):
                return NoReply("connection", "the engine was closed")
            try:
                request = self._client.build_request(
                    "POST", self._url, content=payload, extensions={"trace": watchdog.on_event}
                )
                return self._exchange(request)
            except httpx.ReadTimeout:
                return NoReply("timeout", f"no answer within {self._limits.timeout_s:g} s")
            except httpx.HTTPError as error:
                if watchdog.has_cut:
                    return NoReply("timeout", f"no whole answer within {self._limits.timeout_s:g} s")
                return NoReply("connection", self.excerpt(f"{type(error).__name__}: {error}"))
            finally:
                self._left(watchdog)

    def excerpt(self, text: str) -> str:
        """`text` from the other side on one line, cut to 200 characters, without the key or what looks like one."""
        if self._api_key is not None:
            text = text.replace(self._api_key.get_secret_value(), "[key]")
        text = _KEY_LIKE.sub("[key]", " ".join(text.split()))
        return text if len(text) <= _EXCERPT_CHARS else text[: _EXCERPT_CHARS - 1] + "…"

    def close(self) -> None:
        """Cut the calls under way; the sockets are freed when the last of them has noticed."""
        with self._calls_lock:
            self._closed = True
            under_way = tuple(self._open_calls)
            if not under_way:
                self._client.close()
        for watchdog in under_way:
            watchdog.cut()

    def _entered(self, watchdog: _Watchdog) -> bool:
        with self._calls_lock:
            if not self._closed:
                self._open_calls.add(watchdog)
            return not self._closed

    def _left(self, watchdog: _Watchdog) -> None:
        with self._calls_lock:
            self._open_calls.discard(watchdog)
            if self._closed and not self._open_calls:
                self._client.close()

    def _exchange(self, request: httpx.Request) -> HttpReply | NoReply:
        deadline_s = self._clock.monotonic_s() + self._limits.timeout_s
        response = self._client.send(request, stream=True)
        try:
            chunks: list[bytes] = []
            size_bytes = 0
            for chunk in response.iter_raw():
                chunks.append(chunk)
                size_bytes += len(chunk)
                if size_bytes > self._limits.max_bytes:
                    return NoReply("oversize", f"the answer was longer than {self._limits.max_bytes} bytes")
                if self._clock.monotonic_s() > deadline_s:
                    return NoReply("timeout", f"no whole answer within {self._limits.timeout_s:g} s")
            return HttpReply(response.status_code, b"".join(chunks), response.headers.get("Retry-After"))
        finally:
            response.close()


class _Bearer(httpx.Auth):
    """Puts the key on each request; kept out of the client's own headers, which are printed here and there."""

    def __init__(self, api_key: SecretStr) -> None:
        self._api_key = api_key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._api_key.get_secret_value()}"
        yield request


@runtime_checkable
class _NetworkStream(Protocol):
    """The part of a connection, as the trace extension shows it, that leads to its socket."""

    def get_extra_info(self, info: str) -> Any: ...


class _Watchdog:
    """Cuts a call's connection when its time is up.

    httpx bounds each single read, so that an endpoint that drips a byte now and then, in its headers even, is never
    late. The trace extension shows the connection as soon as there is one.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timer = threading.Timer(timeout_s, self.cut)
        self._timer.daemon = True
        self._lock = threading.Lock()
        self._stream: _NetworkStream | None = None
        self.has_cut = False

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()

    def on_event(self, name: str, info: Mapping[str, Any]) -> None:
        """Remember the newest connection: after TLS the one below it is no longer a socket of its own."""
        stream = info.get("return_value")
        if isinstance(stream, _NetworkStream):
            with self._lock:
                self._stream = stream
            if self.has_cut:
                self.cut()

    def cut(self) -> None:
        """Shut the connection, which wakes whoever reads from it. More than once is fine."""
        with self._lock:
            self.has_cut = True
            connection = self._stream.get_extra_info("socket") if self._stream is not None else None
        if isinstance(connection, socket.socket):
            try:
                # The plain socket's shutdown: that of ssl would first take its own state away under the reader.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
            except OSError:
                # Already closed by its reader: what was wanted.
                return
