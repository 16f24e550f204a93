"""One bucket's requests: signed, sent, repaired once, retried when that is safe, and refused in Pagemill's words.

Layer: `core.storage`, between `s3` (the store's verbs) and `s3_http`. Names no botocore: identity and location are
handed in.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pagemill_core.clock import Clock
from pagemill_core.errors import RetriableError, StoreUnavailableError, ThrottledError
from pagemill_core.storage.s3_errors import STALE_KEYS, Refusal, mapped, refusal_of
from pagemill_core.storage.s3_http import HttpHost, HttpOptions, Outgoing, Reply
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.storage.s3_sign import EMPTY_SHA256, Keys, KeySource, Signer, Unsigned, quote_path, quote_query

_OK = frozenset((200, 204, 206))
_REPAIRS = 3  # region, clock and credentials may each be wrong once
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 8.0
_LONGEST_WISH_S = 30.0  # a server's Retry-After beyond this is not waited for


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bucket is: requests go to `origin`, their paths start with `base_path`, signed for `region`."""

    origin: str
    base_path: str
    region: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a client needs from outside. `locate` answers for a region; "" means the configured one."""

    keys: KeySource
    locate: Callable[[str], Place]
    options: Callable[[str], HttpOptions]
    clock: Clock
    wall_s: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `key` is the object's whole key, or "" for the bucket. Statuses not in `accepts` are raised."""

    method: str
    key: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    accepts: frozenset[int] = _OK
    is_retried: bool = True


@dataclass(frozen=True, slots=True)
class _Link:
    place: Place
    host: HttpHost
    signer: Signer


class S3Client:
    """Shared by threads."""

    def __init__(self, bucket: str, settings: S3Settings, surroundings: Surroundings) -> None:
        self._bucket = bucket
        self._settings = settings
        self._around = surroundings
        self._link: _Link | None = None
        self._skew_s = 0.0
        self._has_answered = False
        self._random = random.Random()

    def send(self, call: Call) -> Reply:
        """Answer `call`, retrying with full jitter while that is allowed and the store's patience lasts.

        Raises: what `s3_errors.mapped` says; StoreUnavailableError when no answer came.
        """
        clock = self._around.clock
        started_s = clock.monotonic_s()
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return self._send_once(call)
            except (StoreUnavailableError, ThrottledError) as error:
                patience_s = self._settings.retry_for_s if self._has_answered else self._settings.first_contact_s
                wait_s = self._wait_s(error, pause_s)
                if not call.is_retried or clock.monotonic_s() + wait_s - started_s > patience_s:
                    raise
            clock.sleep(wait_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def close(self) -> None:
        if self._link is not None:
            self._link.host.close()

    def _wait_s(self, error: RetriableError, pause_s: float) -> float:
        wish_s = min(error.retry_after_s or 0.0, _LONGEST_WISH_S)
        return max(wish_s, self._random.uniform(0, pause_s))

    def _send_once(self, call: Call) -> Reply:
        for _ in range(_REPAIRS):
            keys = self._around.keys.keys()
            reply = self._exchange(call, keys)
            if reply.status in call.accepts:
                self._has_answered = True
                return reply
            refusal = refusal_of(reply)
            if not self._repair(refusal, reply, keys):
                break
        raise mapped(refusal, f"{call.method} s3://{self._bucket}/{call.key}")

    def _exchange(self, call: Call, keys: Keys) -> Reply:
        link = self._linked()
        headers = dict(call.headers)
        payload_sha256 = EMPTY_SHA256
        if call.body:
            payload_sha256 = hashlib.sha256(call.body).hexdigest()
            # Servers exist that sign the payload's digest but do not check it; all check this one.
            headers["content-md5"] = base64.b64encode(hashlib.md5(call.body, usedforsecurity=False).digest()).decode()
        path = link.place.base_path + quote_path(f"/{call.key}")
        query = quote_query(call.parameters)
        unsigned = Unsigned(call.method, link.host.netloc, path, query, headers, payload_sha256)
        signed = link.signer.sign(unsigned, keys, self._around.wall_s() + self._skew_s)
        return link.host.request(Outgoing(call.method, f"{path}?{query}" if query else path, signed, call.body))

    def _linked(self) -> _Link:
        if self._link is None:
            self._link = self._link_to("")
        return self._link

    def _link_to(self, region: str) -> _Link:
        place = self._around.locate(region)
        return _Link(place, HttpHost(place.origin, self._around.options(place.origin)), Signer(place.region))

    def _repair(self, refusal: Refusal, reply: Reply, keys: Keys) -> bool:
        """Set right what the refusal complains of. Returns: whether the same call may now go well."""
        region = reply.headers.get("x-amz-bucket-region") or ""
        if region and not self._settings.endpoint and region != self._linked().place.region:
            self._link = self._link_to(region)
            return True
        if refusal.code == "RequestTimeTooSkewed":
            return self._set_clock(reply.headers.get("Date") or "")
        is_nameless = not refusal.code and refusal.status in (400, 401, 403)  # a HEAD tells no code
        if refusal.code in STALE_KEYS or is_nameless:
            self._around.keys.refresh()
            return self._around.keys.keys() != keys
        return False

    def _set_clock(self, date: str) -> bool:
        try:
            server_s = email.utils.parsedate_to_datetime(date).timestamp()
        except ValueError:
            return False
        self._skew_s = server_s - self._around.wall_s()
        return True
