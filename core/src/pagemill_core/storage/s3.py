"""A store in an S3 bucket, below a prefix: AWS, or any server that speaks the same and has conditional writes.

Layer: `core.storage`. The only module that imports botocore, for what it alone knows: the chain of default credentials
and AWS' partitions; and only once these are needed, since loading it takes as long as a thousand requests. Requests do
not go through its client: that takes 1.2 ms of CPU each, and the protocol makes five per shard
(docs/adr/0002-object-store-interface.md).
"""

from __future__ import annotations

import copy
import re
import ssl
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus, urlsplit
from xml.etree import ElementTree

from pagemill_core.clock import Clock, SystemClock
from pagemill_core.errors import (
    AccessDeniedError,
    InvalidSpecError,
    ObjectNotFoundError,
    PreconditionFailedError,
    StoreUnavailableError,
    StoreUnsuitableError,
)
from pagemill_core.storage.keys import check_key, check_meta, check_prefix, check_reading_key, shown
from pagemill_core.storage.s3_client import Call, Place, S3Client, Surroundings
from pagemill_core.storage.s3_http import HttpOptions, Reply
from pagemill_core.storage.s3_keys import FileKeys, StaticKeys
from pagemill_core.storage.s3_multipart import put_parts
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.storage.s3_sign import Keys, KeySource, quote_path
from pagemill_core.storage.store import Blob, ObjectInfo

MULTIPART_BYTES = 64 << 20  # up to here one request: cheaper, and its ETag is the content's digest
_PAGE = 1000
_DEFAULT_REGION = "us-east-1"
_SECONDS_BETWEEN_CHAINS = 30.0  # reading the chain can ask the instance's metadata service


class S3Store:
    """Objects of one bucket whose keys start with a prefix.

    The token is the ETag. Conditional writes are one PutObject each and not retried here, save on a kept connection
    that was reset; everything else is retried for as long as the settings say. Keys that Pagemill did not name may be
    read and listed even where `put` would refuse them.
    """

    def __init__(
        self, bucket: str, prefix: str = "", settings: S3Settings | None = None, *, clock: Clock | None = None
    ) -> None:
        """Open a bucket; nothing is sent before the first call.

        Raises: InvalidSpecError for a bucket's name that no server takes.
        """
        if not bucket or any(char in bucket for char in "/?#@ :%\\"):
            raise InvalidSpecError(f"the bucket {shown(bucket)} is no bucket's name", advice="write s3://bucket/prefix")
        self._settings = settings or S3Settings()
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._whole: S3Store | None = None
        around = _surroundings(bucket, self._settings, clock or SystemClock())
        self._client = S3Client(bucket, self._settings, around)
        self._encryption = _encryption(self._settings.sse)

    @property
    def uri(self) -> str:
        return f"s3://{self._bucket}/{self._prefix.rstrip('/')}"

    def below(self, prefix: str) -> S3Store:
        """The same bucket below another prefix, by the same connections; this store lives as long as that one."""
        other = copy.copy(self)
        other._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        other._whole = self
        return other

    def get(self, key: str) -> Blob:
        reply = self._client.send(Call("GET", self._reading_key(key)))
        return Blob(reply.body, _token(reply), _meta(reply))

    def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None) -> bytes:
        whole_key = self._reading_key(key)
        if length <= 0:  # HTTP cannot ask for nothing
            self._check_unchanged(key, if_match)
            return b""
        headers = {"range": f"bytes={start}-{start + length - 1}"}
        if if_match is not None:
            headers["if-match"] = f'"{if_match}"'
        reply = self._client.send(Call("GET", whole_key, headers=headers, accepts=frozenset((200, 206, 416))))
        if reply.status == 416:  # nothing there; whether the precondition held is then not said
            self._check_unchanged(key, if_match)
            return b""
        return reply.body if reply.status == 206 else reply.body[start : start + length]

    def head(self, key: str) -> ObjectInfo | None:
        reply = self._client.send(Call("HEAD", self._reading_key(key), accepts=frozenset((200, 404))))
        if reply.status == 404:
            return None
        return ObjectInfo(key, int(reply.headers.get("Content-Length") or 0), _token(reply), _meta(reply))

    def put(self, key: str, data: bytes, *, meta: Mapping[str, str] | None = None) -> str:
        return _token(self._client.send(Call("PUT", self._writing_key(key), {}, self._headers(meta), data)))

    def put_file(self, key: str, path: Path, *, meta: Mapping[str, str] | None = None) -> str:
        if path.stat().st_size <= MULTIPART_BYTES:
            return self.put(key, path.read_bytes(), meta=meta)
        return put_parts(self._client, self._writing_key(key), path, self._headers(meta))

    def put_if_absent(self, key: str, data: bytes, *, meta: Mapping[str, str] | None = None) -> str | None:
        return self._put_if(key, data, meta, {"if-none-match": "*"})

    def put_if_match(self, key: str, data: bytes, token: str, *, meta: Mapping[str, str] | None = None) -> str | None:
        return self._put_if(key, data, meta, {"if-match": f'"{token}"'})

    def delete(self, key: str) -> None:
        self._client.send(Call("DELETE", self._writing_key(key), accepts=frozenset((200, 204, 404))))

    def list(self, prefix: str, *, limit: int | None = None) -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        return self._list(prefix, limit)

    def create_bucket(self) -> None:
        """Make the bucket unless it exists: for the embedded server and tests; people's buckets are theirs to make."""
        self._client.send(Call("PUT", "", accepts=frozenset((200, 409))))

    def close(self) -> None:
        """Close idle connections. The store stays usable."""
        self._client.close()

    def _list(self, prefix: str, limit: int | None) -> Iterator[ObjectInfo]:
        parameters = {"list-type": "2", "encoding-type": "url", "prefix": self._prefix + prefix}
        left = limit
        while left is None or left > 0:
            page = _PAGE if left is None else min(_PAGE, left)
            reply = self._client.send(Call("GET", "", {**parameters, "max-keys": str(page)}))
            found, continuation = _listed(reply.body, len(self._prefix))
            yield from found if left is None else found[:left]
            if not continuation:
                return
            parameters["continuation-token"] = continuation
            left = None if left is None else left - len(found)

    def _put_if(
        self, key: str, data: bytes, meta: Mapping[str, str] | None, precondition: dict[str, str]
    ) -> str | None:
        headers = self._headers(meta) | precondition
        call = Call("PUT", self._writing_key(key), {}, headers, data, frozenset((200, 412)), is_retried=False)
        try:
            reply = self._client.send(call)
        except ObjectNotFoundError:  # AWS' answer to if-match where nothing is
            return None
        return None if reply.status == 412 else _token(reply)

    def _check_unchanged(self, key: str, if_match: str | None) -> None:
        found = self.head(key)
        if found is None:
            raise ObjectNotFoundError(f"there is no {shown(key)} in {self.uri}")
        if if_match is not None and found.token != if_match:
            raise PreconditionFailedError(f"{shown(key)} in {self.uri} changed")

    def _headers(self, meta: Mapping[str, str] | None) -> dict[str, str]:
        return {**self._encryption, **{f"x-amz-meta-{name}": value for name, value in check_meta(meta).items()}}

    def _writing_key(self, key: str) -> str:
        check_key(key)
        whole_key = self._prefix + key
        check_key(whole_key)
        return whole_key

    def _reading_key(self, key: str) -> str:
        check_reading_key(key)
        return self._prefix + key


class ChainKeys:
    """botocore's chain: environment, shared files, IRSA, container and instance roles; it refreshes itself."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._credentials: Any = None
        self._read_s = 0.0

    def keys(self) -> Keys:
        import botocore.exceptions
        import botocore.session

        try:
            if self._credentials is None:
                self._credentials = botocore.session.Session().get_credentials()
                self._read_s = self._clock.monotonic_s()
            frozen = self._credentials.get_frozen_credentials() if self._credentials else None
        except botocore.exceptions.BotoCoreError as error:
            raise AccessDeniedError(
                f"no credentials for S3: {type(error).__name__}",
                advice="check the AWS configuration or the pod's identity",
            ) from error
        if frozen is None:
            raise AccessDeniedError(
                "there are no credentials for S3", advice="set access key and secret key, or give the pod an identity"
            )
        return Keys(frozen.access_key, frozen.secret_key, frozen.token or "")

    def refresh(self) -> None:
        if self._clock.monotonic_s() - self._read_s > _SECONDS_BETWEEN_CHAINS:
            self._credentials = None


def _surroundings(bucket: str, settings: S3Settings, clock: Clock) -> Surroundings:
    keys: KeySource
    if settings.access_key:
        keys = StaticKeys(settings)
    elif settings.secret_path is not None:
        keys = FileKeys(settings.secret_path, clock.monotonic_s)
    else:
        keys = ChainKeys(clock)

    def locate(region: str) -> Place:
        return locate_bucket(bucket, settings, region)

    def options(origin: str) -> HttpOptions:
        return _options(origin, settings)

    return Surroundings(keys, locate, options, clock)


def locate_bucket(bucket: str, settings: S3Settings, region: str) -> Place:
    """Where the bucket is reached. `region` is the one to use, or "" for the configured one.

    A name with dots stays in the path: no certificate covers it as a host name.
    """
    region = region or settings.region or _configured_region()
    endpoint = settings.endpoint.rstrip("/") or f"https://s3.{region}.{_domain(region)}"
    is_virtual = settings.addressing == "virtual" or (settings.addressing == "auto" and not settings.endpoint)
    parts = urlsplit(endpoint)
    if is_virtual and "." not in bucket:
        return Place(f"{parts.scheme}://{bucket}.{parts.netloc}", quote_path(parts.path), region)
    return Place(f"{parts.scheme}://{parts.netloc}", quote_path(f"{parts.path}/{bucket}"), region)


def _configured_region() -> str:
    import botocore.session

    return botocore.session.Session().get_config_variable("region") or _DEFAULT_REGION


def _domain(region: str) -> str:
    """The domain of AWS that the region belongs to."""
    import botocore.session

    for partition in botocore.session.Session().get_data("partitions")["partitions"]:
        if re.match(partition["regionRegex"], region):
            return str(partition["outputs"]["dnsSuffix"])
    return "amazonaws.com"


def _options(origin: str, settings: S3Settings) -> HttpOptions:
    parts = urlsplit(origin)
    tls = _trust(settings.ca_path) if parts.scheme == "https" else None
    is_direct = bool(urllib.request.proxy_bypass(parts.hostname or ""))
    proxy = "" if is_direct else urllib.request.getproxies().get(parts.scheme, "")
    return HttpOptions(settings.connect_timeout_s, settings.read_timeout_s, proxy, tls)


def _trust(ca_path: Path | None) -> ssl.SSLContext:
    """The machine's certificates, or botocore's where a slim image has none, and those of `ca_path`."""
    tls = ssl.create_default_context()
    if not tls.cert_store_stats()["x509_ca"]:
        import botocore.httpsession

        tls.load_verify_locations(botocore.httpsession.get_cert_path(True))
    if ca_path is not None:
        try:
            tls.load_verify_locations(ca_path)
        except OSError as error:  # ssl.SSLError is one
            raise InvalidSpecError(f"{ca_path} holds no readable certificates") from error
    return tls


def _encryption(sse: str) -> dict[str, str]:
    if not sse:
        return {}
    name, _, key_id = sse.partition("aws:kms:") if sse.startswith("aws:kms:") else (sse, "", "")
    headers = {"x-amz-server-side-encryption": name or "aws:kms"}
    return headers | {"x-amz-server-side-encryption-aws-kms-key-id": key_id} if key_id else headers


def _token(reply: Reply) -> str:
    token = (reply.headers.get("ETag") or "").strip('"')
    if not token:
        raise StoreUnsuitableError("the store answers without an ETag, so a changed object could not be told")
    return token


def _meta(reply: Reply) -> dict[str, str]:
    prefix = "x-amz-meta-"
    return {
        name[len(prefix) :].lower(): value for name, value in reply.headers.items() if name.lower().startswith(prefix)
    }


def _listed(body: bytes, prefix_chars: int) -> tuple[list[ObjectInfo], str]:
    """A page of a listing, and the token of the next one or ""."""
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError as error:
        raise StoreUnavailableError("the store's listing is no whole document") from error
    space = root.tag.rpartition("}")[0] + "}" if root.tag.startswith("{") else ""
    is_quoted = root.findtext(f"{space}EncodingType") == "url"
    found = []
    for entry in root.iter(f"{space}Contents"):
        key = entry.findtext(f"{space}Key") or ""
        token = (entry.findtext(f"{space}ETag") or "").strip('"')
        whole_key = unquote_plus(key) if is_quoted else key
        found.append(ObjectInfo(whole_key[prefix_chars:], int(entry.findtext(f"{space}Size") or 0), token))
    continuation = root.findtext(f"{space}NextContinuationToken") or ""
    is_cut = root.findtext(f"{space}IsTruncated") == "true"
    if is_cut and not continuation:
        raise StoreUnsuitableError("the store's listing is cut and does not say how it goes on")
    return found, continuation if is_cut else ""
