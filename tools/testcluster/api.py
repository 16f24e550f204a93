"""Talks to an API server in plain HTTPS and JSON, without a client library and its opinions.

Layer: project tooling, for the tool itself and for tests. Retries nothing but a connection that the server closed
between two requests. One object may be shared by threads; each has its own connection.
"""

from __future__ import annotations

import base64
import copy
import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

Json = Any
"""A JSON value: what the API server takes and gives."""

MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"  # JSON is YAML
_TIMEOUT_S = 20.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said. `warnings` are those it meant for people."""

    status: int
    body: Json
    warnings: tuple[str, ...] = ()

    @property
    def is_error(self) -> bool:
        return self.status >= 400

    @property
    def message(self) -> str:
        """The message of a Status object, else the body as text."""
        if isinstance(self.body, dict) and "message" in self.body:
            return str(self.body["message"])
        return self.body if isinstance(self.body, str) else json.dumps(self.body)


class ApiError(Exception):
    """The server refused; `answer` is what it said."""

    def __init__(self, request: str, answer: Answer) -> None:
        super().__init__(f"{request}: {answer.status} {answer.message}")
        self.answer = answer


class _ClosedBetweenRequestsError(Exception):
    """The server closed a connection that had served before: a new one may do."""


class _Connections:
    """One connection to a server for each thread that asks, and the way to close them all."""

    def __init__(self, url: str, context: ssl.SSLContext | None) -> None:
        self._url = urlsplit(url)
        self._context = context
        self._local = threading.local()
        self._open: list[http.client.HTTPConnection] = []

    def new(self, timeout_s: float) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=timeout_s)
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=self._context)

    def mine(self) -> tuple[http.client.HTTPConnection, bool]:
        """This thread's connection, and whether it was used before."""
        found: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if found is not None:
            return found, found.sock is not None
        self._local.connection = self.new(_TIMEOUT_S)
        self._open.append(self._local.connection)
        return self._local.connection, False

    def close(self) -> None:
        for connection in self._open:
            connection.close()  # one that is asked again opens itself again


class KubeApi:
    """An API server as one user sees it. Close it, or use it in a `with`."""

    def __init__(self, url: str, *, token: str = "", context: ssl.SSLContext | None = None) -> None:
        self._connections = _Connections(url, context)
        self._headers = [("Accept", "application/json")]
        if token:
            self._headers.append(("Authorization", f"Bearer {token}"))

    @classmethod
    def from_kubeconfig(cls, path: Path) -> Self:
        """The API server of a kubeconfig that this tool wrote: JSON, one cluster, one token."""
        config = json.loads(path.read_text(encoding="utf-8"))
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        context = ssl.create_default_context(cadata=authority)
        return cls(cluster["server"], token=user["token"], context=context)

    @classmethod
    def for_server(cls, url: str, *, authority: Path, token: str) -> Self:
        """The API server at a URL, trusted by its authority's certificate."""
        return cls(url, token=token, context=ssl.create_default_context(cafile=str(authority)))

    def as_user(self, user: str, *groups: str) -> Self:
        """The same server through impersonation: RBAC judges `user`, not the administrator."""
        impersonated = [("Impersonate-User", user), *(("Impersonate-Group", group) for group in groups)]
        return self._with_headers([*self._headers, *impersonated])

    def as_tables(self) -> Self:
        """The same server, which answers with the table that `kubectl get` would print."""
        accept = ("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        return self._with_headers([accept, *self._headers[1:]])

    def with_token(self, token: str) -> Self:
        """The same server as the holder of another token, such as a service account's."""
        return self._with_headers([self._headers[0], ("Authorization", f"Bearer {token}")])

    def _with_headers(self, headers: list[tuple[str, str]]) -> Self:
        """The same connections, whose owner closes them, with other headers."""
        other = copy.copy(self)
        other._headers = headers
        return other

    def ask(
        self, method: str, path: str, body: Json = None, *, content_type: str = "application/json", **query: object
    ) -> Answer:
        """Send one request. Returns: the answer, whatever its status. Raises: OSError, http.client.HTTPException."""
        if query:
            path = f"{path}?{urlencode({name: _word(value) for name, value in query.items()})}"
        payload = None if body is None else json.dumps(body).encode()
        try:
            return self._try_once(method, path, payload, content_type)
        except _ClosedBetweenRequestsError:
            return self._try_once(method, path, payload, content_type)

    def call(
        self, method: str, path: str, body: Json = None, *, content_type: str = "application/json", **query: object
    ) -> Json:
        """Send one request. Returns: the answer's body. Raises: ApiError when the server refuses."""
        answer = self.ask(method, path, body, content_type=content_type, **query)
        if answer.is_error:
            raise ApiError(f"{method} {path}", answer)
        return answer.body

    def apply(self, path: str, manifest: Json, *, manager: str = "testcluster") -> Json:
        """Apply on the server's side, by force: creates or updates, and is idempotent."""
        return self.call("PATCH", path, manifest, content_type=APPLY, fieldManager=manager, force=True)

    def read_or_none(self, path: str) -> Json | None:
        """The object, or None where there is none."""
        answer = self.ask("GET", path)
        if answer.status == 404:
            return None
        if answer.is_error:
            raise ApiError(f"GET {path}", answer)
        return answer.body

    def wait_for(self, path: str, holds: Callable[[Json], bool], *, timeout_s: float = 30.0) -> Json:
        """Read until `holds` is true of the object, None while it is absent. Raises: TimeoutError with the last."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = self.read_or_none(path)
            if holds(found):
                return found
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path} after {timeout_s:g} s: {json.dumps(found)[:2000]}")
            time.sleep(_POLL_S)

    @contextmanager
    def watching(self, path: str, *, timeout_s: float = 60.0, **query: object) -> Iterator[Iterator[Json]]:
        """Follow changes on a connection of its own: `{"type": …, "object": …}` each."""
        connection = self._connections.new(timeout_s)
        query = {"watch": True, "timeoutSeconds": int(timeout_s), **query}
        words = urlencode({name: _word(value) for name, value in query.items()})
        try:
            response = self._send(connection, "GET", f"{path}?{words}")
            if response.status >= 400:
                raise ApiError(f"GET {path}", _answer(response))
            yield (json.loads(line) for line in response)
        finally:
            connection.close()

    def close(self) -> None:
        """Close the connections of every thread, and of every object made from this one."""
        self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _try_once(self, method: str, path: str, payload: bytes | None, content_type: str) -> Answer:
        connection, was_used = self._connections.mine()
        try:
            return _answer(self._send(connection, method, path, payload, content_type))
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError, ssl.SSLEOFError) as error:
            connection.close()
            if was_used:
                raise _ClosedBetweenRequestsError from error
            raise
        except (OSError, http.client.HTTPException):
            connection.close()
            raise

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        payload: bytes | None = None,
        content_type: str = "",
    ) -> http.client.HTTPResponse:
        connection.putrequest(method, path)
        for name, value in self._headers:  # a header may come twice, which `request` knows no form for
            connection.putheader(name, value)
        if payload is not None:
            connection.putheader("Content-Type", content_type)
            connection.putheader("Content-Length", str(len(payload)))
        connection.endheaders(payload)
        return connection.getresponse()


def _answer(response: http.client.HTTPResponse) -> Answer:
    data = response.read()
    warnings = tuple(line.split('"', 1)[-1].rstrip('"') for line in response.headers.get_all("Warning", []))
    try:
        return Answer(response.status, json.loads(data), warnings)
    except ValueError:
        return Answer(response.status, data.decode(errors="replace"), warnings)


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def object_path(api_version: str, plural: str, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """The path of an object or, without a name, of its collection."""
    base = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
    parts = [base, *(["namespaces", namespace] if namespace else []), plural, name, subresource]
    return "/".join(part if index == 0 else quote(part) for index, part in enumerate(parts) if part)
