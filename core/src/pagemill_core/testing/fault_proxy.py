"""A loopback HTTP proxy that stands in front of a real S3 server and breaks what a network and a busy store break.

Layer: `core.testing`. Knows HTTP, not S3: it answers in S3's error format, but decides by method, path and headers.
What strikes a request depends on the seed, the request and how often it came before, not on which thread was faster.
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Self
from urllib.parse import unquote, urlsplit

_HOST = "127.0.0.1"
_CONDITIONAL = re.compile(rb"(?im)^if-(none-)?match:")
_LENGTH = re.compile(rb"(?im)^content-length:[ \t]*(\d+)")
_CHUNKED = re.compile(rb"(?im)^transfer-encoding:[ \t]*chunked")
_DRIPS = 8
# Closing with this makes the kernel send a reset instead of an orderly end.
_RESET = struct.pack("ii", 1, 0)
_ANSWERS = {
    "conflict": (409, "ConditionalRequestConflict"),
    "throttled": (429, "TooManyRequests"),
    "slow_down": (503, "SlowDown"),
    "unavailable": (500, "InternalError"),
    "denied": (403, "AccessDenied"),
}


@dataclass(frozen=True, slots=True)
class ProxyRates:
    """How often each fault strikes, from 0 to 1; at most one per request.

    conflict 409, throttled 429, slow_down 503, unavailable 500, denied 403: answered here, the server sees nothing.
    reset: the connection breaks before the server sees the request. reply_lost: it breaks once the server has
    answered. truncated: the reply's body ends early. slow: the reply drips in over `slow_s`.
    A `retry_after_s` above 0 is named in the answers given here.
    """

    conflict: float = 0.0
    throttled: float = 0.0
    slow_down: float = 0.0
    unavailable: float = 0.0
    denied: float = 0.0
    reset: float = 0.0
    reply_lost: float = 0.0
    truncated: float = 0.0
    slow: float = 0.0
    slow_s: float = 0.05
    retry_after_s: int = 0


_NO_FAULTS = ProxyRates()
_FAULTS = tuple(name for name in ProxyRates.__dataclass_fields__ if not name.endswith("_s"))


@dataclass(frozen=True, slots=True)
class ProxyRule:
    """Rates for requests of these methods (all, when empty) in whose path with query `pattern` is found.

    `conditional` narrows to requests with (True) or without (False) a precondition.
    """

    rates: ProxyRates
    methods: frozenset[str] = frozenset()
    pattern: str = ""
    conditional: bool | None = None

    def fits(self, request: _Request) -> bool:
        return (
            (not self.methods or request.method in self.methods)
            and (self.conditional is None or self.conditional == request.is_conditional)
            and re.search(self.pattern, request.path) is not None
        )


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    is_conditional: bool
    raw: bytes = field(repr=False)


class FaultProxy:
    """`with FaultProxy(server.endpoint, rules, seed=1) as proxy:` and point stores to `proxy.endpoint`.

    The first rule that fits decides. Rules and outage may change at any time; `struck` counts faults and "ok".
    """

    def __init__(self, upstream: str, rules: Sequence[ProxyRule] = (), *, seed: int = 0) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or _HOST, parts.port or 80)
        self._rules = tuple(rules)
        self._seed = seed
        self._lock = threading.Lock()
        self._seen: Counter[tuple[str, str]] = Counter()
        self._open: set[socket.socket] = set()
        self._is_out = False
        self._is_stopped = False
        self._listener = socket.create_server((_HOST, 0), backlog=128)
        self._acceptor = threading.Thread(target=self._accept, name="fault-proxy", daemon=True)
        self.struck: Counter[str] = Counter()

    @property
    def endpoint(self) -> str:
        return f"http://{_HOST}:{self._listener.getsockname()[1]}"

    def set_rules(self, rules: Sequence[ProxyRule]) -> None:
        self._rules = tuple(rules)

    def set_outage(self, is_out: bool) -> None:
        """While out, every connection is reset, those that are open at once."""
        with self._lock:
            self._is_out = is_out
            broken = list(self._open) if is_out else []
        for connection in broken:
            _hang_up(connection)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_stopped = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.set_outage(True)
        self._acceptor.join(5)

    def _accept(self) -> None:
        while not self._is_stopped:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed by __exit__
                return
            with self._lock:
                is_out = self._is_out
                self._open.add(connection)
            if is_out:
                self._forget(connection)
                _break(connection)
                connection.close()
                continue
            threading.Thread(target=self._serve, args=(connection,), name="fault-proxy-client", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection.makefile("rb") as reader, contextlib.ExitStack() as stack:
                upstream: _Upstream | None = None
                while (request := _read_request(reader)) is not None:
                    upstream = upstream or _Upstream(stack, self._upstream)
                    if not self._answer(connection, upstream, request):
                        return
        except (OSError, EOFError):
            pass  # one side hung up, so does the other
        finally:
            self._forget(connection)
            connection.close()

    def _answer(self, connection: socket.socket, upstream: _Upstream, request: _Request) -> bool:
        """Whether the connection goes on."""
        fault, rates = self._drawn(request)
        with self._lock:
            if self._is_out:  # the request was under way when the outage began
                return False
            self.struck[fault] += 1
        if fault in _ANSWERS:
            connection.sendall(_refusal(fault, rates.retry_after_s, has_body=request.method != "HEAD"))
            return True
        if fault == "reset":
            _break(connection)
            return False
        head, body = upstream.ask(request)
        if fault == "reply_lost":
            _break(connection)
            return False
        if fault == "truncated" and body:
            connection.sendall(head + body[: len(body) // 2])
            return False
        if fault == "slow":
            _drip(connection, head + body, rates.slow_s)
        else:
            connection.sendall(head + body)
        return True

    def _drawn(self, request: _Request) -> tuple[str, ProxyRates]:
        with self._lock:
            count = self._seen[(request.method, request.path)]
            self._seen[(request.method, request.path)] += 1
        chance = random.Random(f"{self._seed} {request.method} {request.path} {count}").random()
        for rule in self._rules:
            if rule.fits(request):
                total = 0.0
                for fault in _FAULTS:
                    total += getattr(rule.rates, fault)
                    if chance < total:
                        return fault, rule.rates
                break
        return "ok", _NO_FAULTS

    def _forget(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)


class _Upstream:
    """The proxy's own connection to the server, one per client connection."""

    def __init__(self, stack: contextlib.ExitStack, address: tuple[str, int]) -> None:
        self._socket = stack.enter_context(socket.create_connection(address, timeout=60))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = stack.enter_context(self._socket.makefile("rb"))

    def ask(self, request: _Request) -> tuple[bytes, bytes]:
        """Head and body of the server's reply, as they came. Raises: OSError, EOFError when it hangs up."""
        self._socket.sendall(request.raw)
        head = _read_head(self._reader)
        if head is None:
            raise EOFError
        status = int(head.split(b" ", 2)[1])
        has_body = request.method != "HEAD" and status not in (204, 304)
        return head, _read_body(self._reader, head) if has_body else b""


def _read_request(reader: IO[bytes]) -> _Request | None:
    head = _read_head(reader)
    if head is None:
        return None
    method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
    return _Request(method, unquote(target), _CONDITIONAL.search(head) is not None, head + _read_body(reader, head))


def _read_head(reader: IO[bytes]) -> bytes | None:
    """Start line and headers with the empty line; None when the other side has hung up in order."""
    lines = [reader.readline()]
    if not lines[0]:
        return None
    while lines[-1] != b"\r\n":
        line = reader.readline()
        if not line:
            raise EOFError
        lines.append(line)
    return b"".join(lines)


def _read_body(reader: IO[bytes], head: bytes) -> bytes:
    if length := _LENGTH.search(head):
        return _read_exactly(reader, int(length[1]))
    if not _CHUNKED.search(head):
        return b""
    pieces = []
    while True:
        line = reader.readline()
        size = int(line.split(b";")[0], 16)
        pieces += [line, _read_exactly(reader, size + 2)]
        if size == 0:
            return b"".join(pieces)


def _read_exactly(reader: IO[bytes], size: int) -> bytes:
    data = reader.read(size)
    if len(data) != size:
        raise EOFError
    return data


def _refusal(fault: str, retry_after_s: int, *, has_body: bool) -> bytes:
    status, code = _ANSWERS[fault]
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>struck by the proxy</Message></Error>".encode()
    head = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\n"
    if retry_after_s:
        head += f"Retry-After: {retry_after_s}\r\n"
    if not has_body:
        return f"{head}\r\n".encode()
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _drip(connection: socket.socket, data: bytes, seconds: float) -> None:
    step = -(-len(data) // _DRIPS)
    for offset in range(0, len(data), step):
        connection.sendall(data[offset : offset + step])
        time.sleep(seconds / _DRIPS)


def _break(connection: socket.socket) -> None:
    """Let the connection end in a reset when its thread closes it, which it does next."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def _hang_up(connection: socket.socket) -> None:
    """End a connection that another thread waits on, at once."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
