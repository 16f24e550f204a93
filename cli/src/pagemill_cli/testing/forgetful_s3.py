"""A store that answers like S3 and knows nothing of conditions: every write succeeds. Nothing may be committed to it.

Layer: `cli.testing`.
"""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.objects[unquote(self.path)] = data
        self._answer(200, b"", data)

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if "list-type" in query:
            self._answer(200, b'<?xml version="1.0"?><ListBucketResult></ListBucketResult>', b"")
            return
        data = self.objects.get(unquote(path))
        self._answer(404 if data is None else 200, data or b"<Error><Code>NoSuchKey</Code></Error>", data or b"")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self.objects.pop(unquote(self.path), None)
        self._answer(204, b"", b"")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _answer(self, status: int, body: bytes, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()[:32]}"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def forgetful_s3(objects: dict[str, bytes] | None = None) -> Iterator[str]:
    """Run such a server on loopback, over `objects` by path where they are given. Yields: its address."""
    handler = type("Handler", (_Handler,), {"objects": {} if objects is None else objects})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
