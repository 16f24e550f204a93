"""A web server on loopback that answers as it is told: late, cut, squeezed, endless, or not in HTTP at all.

Layer: `core.testing`; not for production.
"""

from __future__ import annotations

import http.server
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Seen:
    """What a server was asked: (path, headers) in order."""

    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]


Answer = Callable[[http.server.BaseHTTPRequestHandler, int], None]


def answer(status: int, body: bytes = b"", **headers: str) -> Answer:
    """A whole answer; underscores in the headers' names become hyphens."""

    def send(handler: http.server.BaseHTTPRequestHandler, _: int) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return send


def in_turn(*answers: Answer) -> Answer:
    """The n-th request of a path gets the n-th answer, the rest the last one."""
    return lambda handler, turn: answers[min(turn, len(answers) - 1)](handler, turn)


def raw(*pieces: bytes, pause_s: float = 0.0) -> Answer:
    """These bytes, with pauses between them, then the end of the connection."""

    def send(handler: http.server.BaseHTTPRequestHandler, _: int) -> None:
        handler.close_connection = True
        try:
            for piece in pieces:
                handler.wfile.write(piece)
                handler.wfile.flush()
                time.sleep(pause_s)
        except OSError:
            return  # the client gave up, as it should

    return send


@contextmanager
def serving(routes: dict[str, Answer], tls: ssl.SSLContext | None = None) -> Iterator[tuple[int, Seen]]:
    """Serve `routes` (path without query to answer; others are 404) and give the port and what was asked."""
    seen = Seen()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            turn = seen.paths.count(self.path)
            seen.requests.append((self.path, dict(self.headers)))
            routes.get(self.path.partition("?")[0], answer(404))(self, turn)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[1], seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
