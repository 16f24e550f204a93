"""Items that are http:// and https:// URLs, from servers that nobody vouches for.

Layer: `worker.fetch`. Uses httpcore below httpx's client, because that one keeps cookies between requests, logs whole
URLs with their signatures, and hides where it connects. Nothing is written to disk. Proxies are not used: what a proxy
connects to cannot be checked.
"""

from __future__ import annotations

import base64
import email.utils
import functools
import random
import ssl
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

import httpcore
import httpx

from pagemill_core.clock import Clock
from pagemill_core.errors import FetchFailed, ForbiddenAddress, InvalidSpecError
from pagemill_worker.fetch.addresses import AddressPolicy, CheckedNetwork, Resolve, resolve_by_system
from pagemill_worker.fetch.fetched import Fetched, Span, changed, failed, missing, shown_uri, too_large

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_GONE = frozenset({404, 410})
_WORTH_RETRYING = frozenset({408, 425, 429, 500, 502, 503, 504})
_GZIP_OR_ZLIB = 47  # zlib's window bits for "tell by the header"
_ENCODINGS = frozenset({"gzip", "x-gzip", "deflate"})
_MAX_ETAG = 1024  # arbitrary; versions are kept for every item
_NETWORK_ERRORS = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.RemoteProtocolError,
    httpcore.ConnectionNotAvailable,
)


@dataclass(frozen=True, slots=True)
class HttpPolicy:
    """How patient fetching is. `total_timeout_s` bounds one attempt, redirects and body included.

    `max_wait_s`: a server that asks for a longer pause (Retry-After) is not waited for. `ca_file`: certificates of
    authorities to trust instead of the usual ones.
    """

    addresses: AddressPolicy = field(default_factory=AddressPolicy)
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0
    total_timeout_s: float = 120.0
    attempts: int = 4
    first_wait_s: float = 0.5
    max_wait_s: float = 60.0
    max_redirects: int = 5
    max_connections: int = 32
    ca_file: str | None = None
    user_agent: str = "pagemill"


class _TryAgainError(Exception):
    """An attempt failed in a way that another may not. `wait_s` is what the server asked for."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class _Wanted:
    uri: str
    headers: Mapping[str, str]
    max_bytes: int
    span: Span | None = None


class HttpFetcher:
    """A `Fetcher` of URLs, versions being their ETags. Closed with `close`, or when it is no longer used."""

    def __init__(
        self,
        policy: HttpPolicy,
        clock: Clock,
        *,
        resolve: Resolve = resolve_by_system,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`jitter` gives numbers from 0 to 1. Raises: InvalidSpecError when `ca_file` holds no certificates."""
        self._policy = policy
        self._clock = clock
        self._jitter = jitter
        self._network = CheckedNetwork(policy.addresses, clock, resolve)
        self._pool = httpcore.ConnectionPool(
            ssl_context=_ssl_context(policy.ca_file),
            max_connections=policy.max_connections,
            keepalive_expiry=30.0,
            network_backend=self._network,
        )
        # Idle connections would outlive a fetcher that nobody closes, such as one below a wrapper.
        weakref.finalize(self, self._pool.close)

    def fetch(self, uri: str, *, expected_version: str | None = None, max_bytes: int) -> Fetched:
        fetched = self._fetch(_Wanted(uri, {}, max_bytes))
        if fetched is None:
            raise failed(uri, "status 304 to a request without conditions")
        if expected_version is not None and fetched.version != expected_version:
            raise changed(uri)
        return fetched

    def fetch_if_changed(self, uri: str, *, earlier_version: str, max_bytes: int) -> Fetched | None:
        return self._fetch(_Wanted(uri, {"If-None-Match": earlier_version}, max_bytes))

    def fetch_range(self, uri: str, span: Span, *, expected_version: str | None = None) -> Fetched:
        """As the contract says; of a server that knows no ranges everything up to the end of `span` is read."""
        end = span.start + span.length
        wanted = _Wanted(uri, {"Range": f"bytes={span.start}-{max(span.start, end - 1)}"}, end, span)
        fetched = self._fetch(wanted)
        if fetched is None:
            raise failed(uri, "status 304 to a request without conditions")
        if expected_version is not None and fetched.version != expected_version:
            raise changed(uri)
        return fetched

    def size_of(self, uri: str, *, expected_version: str | None = None) -> int:
        raise failed(uri, "the size of what lies behind a URL is not asked for")

    def close(self) -> None:
        """Close idle connections."""
        self._pool.close()

    def _fetch(self, wanted: _Wanted) -> Fetched | None:
        url = _parsed(wanted.uri, wanted.uri)
        why = ""
        for attempt in range(self._policy.attempts):
            try:
                with self._network.deadline(self._policy.total_timeout_s):
                    return self._follow(url, wanted)
            except _TryAgainError as again:
                why = again.why
                wait_s = self._wait_s(attempt, again.wait_s)
            if wait_s is None or attempt == self._policy.attempts - 1:
                break
            self._clock.sleep(wait_s)
        raise failed(wanted.uri, f"{why} (after {attempt + 1} attempts)")

    def _wait_s(self, attempt: int, asked_s: float | None) -> float | None:
        """How long to wait before the next attempt; None when the server asks for more patience than we have."""
        if asked_s is not None:
            return asked_s if asked_s <= self._policy.max_wait_s else None
        # Jitter, because every worker of a job meets the same server's bad minute together.
        return min(self._policy.max_wait_s, self._policy.first_wait_s * float(2**attempt) * (0.5 + self._jitter()))

    def _follow(self, url: httpx.URL, wanted: _Wanted) -> Fetched | None:
        first = _origin(url)
        credentials = _credentials(url)
        for _ in range(self._policy.max_redirects + 1):
            own = credentials if _origin(url) == first else {}  # a password stays with the host it was given for
            outcome = self._request(url, {**wanted.headers, **own}, wanted)
            if not isinstance(outcome, httpx.URL):
                return outcome
            url = outcome
        raise failed(wanted.uri, f"more than {self._policy.max_redirects} redirects")

    def _request(self, url: httpx.URL, headers: Mapping[str, str], wanted: _Wanted) -> Fetched | None | httpx.URL:
        try:
            with self._pool.stream(
                "GET",
                httpcore.URL(scheme=url.scheme.encode(), host=url.raw_host, port=url.port, target=url.raw_path or b"/"),
                headers=[("User-Agent", self._policy.user_agent), ("Accept-Encoding", "identity"), *headers.items()],
                extensions={"timeout": self._timeouts()},
            ) as response:
                return self._judge(url, response, wanted)
        except _NETWORK_ERRORS as error:
            if _is_untrusted(error):
                raise failed(wanted.uri, "its certificate is not trusted") from error
            raise _TryAgainError(_network_problem(error)) from error
        except (httpcore.LocalProtocolError, httpcore.UnsupportedProtocol) as error:
            raise failed(wanted.uri, "the request cannot be made") from error
        except (FetchFailed, ForbiddenAddress) as error:
            if error.message.startswith(shown_uri(wanted.uri)):
                raise
            raise type(error)(f"{shown_uri(wanted.uri)}: {error.message}", advice=error.advice) from error

    def _timeouts(self) -> dict[str, float]:
        patience = self._policy
        return {
            "connect": patience.connect_timeout_s,
            "read": patience.read_timeout_s,
            "write": patience.read_timeout_s,
            "pool": patience.total_timeout_s,
        }

    def _judge(self, url: httpx.URL, response: httpcore.Response, wanted: _Wanted) -> Fetched | None | httpx.URL:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        status = response.status
        if status in _REDIRECTS and "location" in headers:
            return _redirected(url, headers["location"], wanted.uri)
        if status == 304:
            return None
        if status in _GONE:
            raise missing(wanted.uri)
        if status in _WORTH_RETRYING:
            raise _TryAgainError(f"status {status}", self._retry_after_s(headers.get("retry-after")))
        if status != 200 and not (status == 206 and wanted.span):
            raise failed(wanted.uri, f"status {status}")
        etag = headers.get("etag")
        version = etag if etag and len(etag) <= _MAX_ETAG else None
        if wanted.span is None:
            return Fetched(_body(response, headers, wanted), version, shown_uri(str(url)))
        return Fetched(_span_of(response, headers, wanted, wanted.span), version, shown_uri(str(url)))

    def _retry_after_s(self, value: str | None) -> float | None:
        """Seconds from a Retry-After header, given as a number or a date; None when there is none to read."""
        if value is None:
            return None
        if value.strip().isdigit() and value.isascii():
            return float(value)
        try:
            at = email.utils.parsedate_to_datetime(value)
        except ValueError:
            return None
        return max(0.0, (at - self._clock.now()).total_seconds()) if at.tzinfo else None


def _body(response: httpcore.Response, headers: Mapping[str, str], wanted: _Wanted) -> bytes:
    encoding = headers.get("content-encoding", "identity").strip().lower()
    length = headers.get("content-length", "")
    if encoding == "identity" and length.isdigit() and int(length) > wanted.max_bytes:
        raise too_large(wanted.uri, int(length), wanted.max_bytes)
    pieces: Iterator[bytes] = iter(response.iter_stream())
    if encoding in _ENCODINGS:
        pieces = _inflated(pieces, wanted)
    elif encoding != "identity":
        raise failed(wanted.uri, "an encoding that was not asked for")
    kept, size_bytes = [], 0
    for piece in pieces:
        size_bytes += len(piece)
        if size_bytes > wanted.max_bytes:
            raise too_large(wanted.uri, None, wanted.max_bytes)
        kept.append(piece)
    return b"".join(kept)


def _span_of(response: httpcore.Response, headers: Mapping[str, str], wanted: _Wanted, span: Span) -> bytes:
    """The bytes of `span`, whether the server sent them alone or all there is."""
    if response.status == 206:
        if not headers.get("content-range", "").startswith(f"bytes {span.start}-"):
            raise failed(wanted.uri, "it answered with another range than asked for")
        return _body(response, headers, wanted)[: span.length]
    kept = bytearray()
    for piece in response.iter_stream():
        kept += piece
        if len(kept) >= span.start + span.length:
            break
    return bytes(kept[span.start : span.start + span.length])


def _inflated(pieces: Iterator[bytes], wanted: _Wanted) -> Iterator[bytes]:
    """Undo gzip or deflate in bounded steps: a small body may unfold to any size."""
    inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
    step = min(wanted.max_bytes + 1, 1 << 20)
    for piece in pieces:
        pending = piece
        while pending and not inflate.eof:
            try:
                yield inflate.decompress(pending, step)
            except zlib.error as error:
                raise failed(wanted.uri, "its encoding is damaged") from error
            pending = inflate.unconsumed_tail
    if not inflate.eof:
        raise _TryAgainError("the answer ended early")


def _parsed(text: str, uri: str) -> httpx.URL:
    """`text` as a URL. The message names `uri`; what the parser says would quote it. Raises: FetchFailed."""
    try:
        url = httpx.URL(text)
        is_usable = _is_web_address(url)
    except (httpx.InvalidURL, UnicodeError, ValueError):
        is_usable = False
    if not is_usable:
        raise failed(uri, "not a usable URL")
    return url


def _is_web_address(url: httpx.URL) -> bool:
    return url.scheme in ("http", "https") and bool(url.raw_host) and (url.port is None or 0 < url.port < 65_536)


def _redirected(url: httpx.URL, location: str, uri: str) -> httpx.URL:
    try:
        target = url.copy_with(userinfo=b"").join(location)
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise failed(uri, "redirected to something that is no URL") from None
    if not _is_web_address(target):
        raise failed(uri, "redirected to something that is no web address")
    return target


def _origin(url: httpx.URL) -> tuple[str, bytes, int]:
    return url.scheme, url.raw_host, url.port or {"http": 80, "https": 443}[url.scheme]


def _credentials(url: httpx.URL) -> dict[str, str]:
    if not url.userinfo:
        return {}
    user, _, password = url.userinfo.partition(b":")
    plain = f"{unquote(user.decode())}:{unquote(password.decode())}"
    return {"Authorization": "Basic " + base64.b64encode(plain.encode()).decode()}


def _is_untrusted(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _network_problem(error: Exception) -> str:
    if isinstance(error, httpcore.TimeoutException):
        return "it took too long"
    if isinstance(error, httpcore.RemoteProtocolError):
        return "the answer ended early or was not HTTP"
    return "the connection failed"


@functools.cache  # reading the list of authorities takes longer than most pictures
def _ssl_context(ca_file: str | None) -> ssl.SSLContext:
    if ca_file is None:
        return httpcore.default_ssl_context()
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise InvalidSpecError(f"no certificates could be read from {ca_file}") from error
