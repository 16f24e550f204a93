"""HTTP/1.1 connections to one host, kept and shared by threads: what is left of an HTTP client when speed counts.

Layer: `core.storage`, below `s3_client`. Knows nothing of S3. Does not retry, save for one case: a kept connection
that the server closed while it lay idle tells nothing of the request, which is then sent again on a fresh one.
"""

from __future__ import annotations

import base64
import collections
import contextlib
import http.client
import os
import select
import socket
import ssl
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from pagemill_core.errors import InvalidSpecError, StoreUnavailableError

_MAX_KEPT = 64  # above the threads of any process of ours


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply. `headers` answers `get(name)` whatever the case."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How to connect. `proxy` is a URL or empty; `tls` is used for https alone."""

    connect_timeout_s: float
    read_timeout_s: float
    proxy: str = ""
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request, ready to send: `target` is path and query, `headers` hold the host."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


class HttpHost:
    """One origin, as `https://host:port`."""

    def __init__(self, origin: str, options: HttpOptions) -> None:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidSpecError(f"the endpoint {parts.scheme}://{parts.hostname or ''} is no http or https URL")
        self._scheme = parts.scheme
        self._host = parts.hostname
        default_port = 443 if parts.scheme == "https" else 80
        self._port = parts.port or default_port
        self.netloc = self._host if self._port == default_port else f"{self._host}:{self._port}"
        self._options = options
        self._kept: collections.deque[http.client.HTTPConnection] = collections.deque()
        self._pid = os.getpid()
        weakref.finalize(self, _close_all, self._kept)  # a store that is just dropped leaves no open socket

    def request(self, request: Outgoing) -> Reply:
        """Send and read all of the reply.

        Raises: StoreUnavailableError when no whole reply came; InvalidSpecError when the certificate is not trusted.
        """
        try:
            kept = self._take_kept()
            if kept is not None:
                # A reset tells nothing: the server may have hung up as we sent. One fresh connection tells more.
                with contextlib.suppress(ConnectionError):
                    return self._exchange(kept, request)
            return self._exchange(self._connect(), request)
        except ssl.SSLCertVerificationError as error:
            raise InvalidSpecError(
                f"the certificate of {self.netloc} is not trusted: {error.verify_message}",
                advice="name the file of the certificate authority (ca_path, or caSecretRef in a job)",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise StoreUnavailableError(
                f"no whole answer from {self.netloc}: {_said(error)}", advice="check the endpoint and the network"
            ) from error

    def close(self) -> None:
        """Close the connections that lie idle."""
        _close_all(self._kept)

    def _exchange(self, connection: http.client.HTTPConnection, request: Outgoing) -> Reply:
        try:
            connection.putrequest(
                request.method, self._target(request.target), skip_host=True, skip_accept_encoding=True
            )
            for name, value in request.headers.items():
                connection.putheader(name, value)
            if request.body or request.method in ("PUT", "POST"):
                connection.putheader("content-length", str(len(request.body)))
            connection.endheaders(request.body or None)
            response = connection.getresponse()
            content = response.read()
        except BaseException:
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            self._keep(connection)
        return Reply(response.status, response.headers, content)

    def _take_kept(self) -> http.client.HTTPConnection | None:
        if self._pid != os.getpid():  # after a fork these sockets are the parent's
            _close_all(self._kept)
            self._pid = os.getpid()
        while True:
            try:
                connection = self._kept.pop()
            except IndexError:
                return None
            if connection.sock is not None and not _is_readable(connection.sock):
                return connection
            connection.close()  # readable while idle: the server hung up

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        if len(self._kept) < _MAX_KEPT:
            self._kept.append(connection)
        else:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        proxy = urlsplit(self._options.proxy)
        host, port = (proxy.hostname or self._host, proxy.port or 80) if proxy.hostname else (self._host, self._port)
        timeout_s = self._options.connect_timeout_s
        if self._scheme == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=timeout_s, context=self._options.tls
            )
            if proxy.hostname:
                connection.set_tunnel(self._host, self._port, headers=_proxy_headers(proxy.username, proxy.password))
        else:
            connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
        try:
            connection.connect()
            connection.sock.settimeout(self._options.read_timeout_s)
        except BaseException:
            connection.close()
            raise
        return connection

    def _target(self, target: str) -> str:
        if self._scheme == "http" and self._options.proxy:
            return f"http://{self.netloc}{target}"
        return target


def _close_all(connections: collections.deque[http.client.HTTPConnection]) -> None:
    while connections:
        connections.pop().close()


def _is_readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _said(error: Exception) -> str:
    """What happened, without anything a server wrote."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__


def _proxy_headers(username: str | None, password: str | None) -> dict[str, str]:
    if username is None:
        return {}
    secret = base64.b64encode(f"{unquote(username)}:{unquote(password or '')}".encode()).decode()
    return {"Proxy-Authorization": f"Basic {secret}"}
