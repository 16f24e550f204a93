"""AWS Signature Version 4 for S3, by hand: 20 µs a request, where botocore's client takes a millisecond around it.

Layer: `core.storage`, pure. Headers are signed all, so a proxy cannot drop the precondition of a conditional write.
Source: the algorithm as AWS documents it; a test compares every signature with botocore's own signer.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Keys:
    """One identity's credentials; its secrets stay out of `repr`."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


class KeySource(Protocol):
    """Where credentials come from. Shared by threads."""

    def keys(self) -> Keys:
        """Credentials that are valid now. Raises: AccessDeniedError, StoreUnavailableError."""

    def refresh(self) -> None:
        """Read them anew, because the store refused the last ones."""


def quote_path(path: str) -> str:
    """`path` as it stands in a request and in its signature: "/" and unreserved characters stay as they are."""
    return quote(path, safe="/-_.~")


def quote_query(parameters: Mapping[str, str]) -> str:
    """A query string in the order that signing asks for."""
    return "&".join(f"{quote(name, safe='-_.~')}={quote(parameters[name], safe='-_.~')}" for name in sorted(parameters))


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A request before signing. `path` and `query` are quoted, header names lower-case, without host and x-amz-date."""

    method: str
    host: str
    path: str
    query: str
    headers: Mapping[str, str]
    payload_sha256: str


class Signer:
    """Signs for one region; keeps the day's signing key."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._cached: tuple[str, str, bytes] = ("", "", b"")

    def sign(self, request: Unsigned, keys: Keys, unix_s: float) -> dict[str, str]:
        """All headers to send, among them `host`, `x-amz-*` and `authorization`."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(unix_s))
        headers = {
            **request.headers,
            "host": request.host,
            "x-amz-date": stamp,
            "x-amz-content-sha256": request.payload_sha256,
        }
        if keys.session_token:
            headers["x-amz-security-token"] = keys.session_token
        names = sorted(headers)
        signed_names = ";".join(names)
        lines = "".join(f"{name}:{headers[name]}\n" for name in names)
        canonical = "\n".join(
            (request.method, request.path, request.query, lines, signed_names, request.payload_sha256)
        )
        scope = f"{stamp[:8]}/{self._region}/s3/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        signing_key = self._signing_key(keys.secret_key, stamp[:8])
        signature = hmac.digest(signing_key, f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}".encode(), "sha256").hex()
        credential = f"{keys.access_key}/{scope}"
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={signed_names}, Signature={signature}"
        )
        return headers

    def _signing_key(self, secret_key: str, day: str) -> bytes:
        cached_secret, cached_day, cached_key = self._cached
        if cached_day == day and cached_secret == secret_key:
            return cached_key
        key = f"AWS4{secret_key}".encode()
        for part in (day, self._region, "s3", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        self._cached = (secret_key, day, key)
        return key
