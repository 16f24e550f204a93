"""What an S3 server's refusal means in Pagemill's error tree: one table, which a test walks.

Layer: `core.storage`, pure. Messages hold the server's code and its sentence, never a signature or a credential.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree

from pagemill_core.errors import (
    AccessDeniedError,
    IntegrityError,
    InvalidSpecError,
    ObjectNotFoundError,
    PagemillError,
    PreconditionFailedError,
    StoreUnavailableError,
    StoreUnsuitableError,
    ThrottledError,
    UnsafeId,
)
from pagemill_core.storage.s3_http import Reply

_MAX_SENTENCE_CHARS = 300
_THROTTLES = frozenset(
    (
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TooManyRequests",
        "BandwidthLimitExceeded",
    )
)
STALE_KEYS = frozenset(
    ("ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "TokenRefreshRequired")
)
_BY_CODE: dict[str, type[PagemillError]] = {
    "NoSuchBucket": InvalidSpecError,
    "KeyTooLongError": UnsafeId,
    "EntityTooLarge": IntegrityError,
    # Nothing of these was stored, and the same call with the same bytes may go well.
    "BadDigest": StoreUnavailableError,
    "IncompleteBody": StoreUnavailableError,
    "RequestTimeout": StoreUnavailableError,
    "XAmzContentChecksumMismatch": StoreUnavailableError,
    "XAmzContentSHA256Mismatch": StoreUnavailableError,
    **dict.fromkeys(STALE_KEYS, AccessDeniedError),
}
_BY_STATUS: dict[int, type[PagemillError]] = {
    401: AccessDeniedError,
    403: AccessDeniedError,
    404: ObjectNotFoundError,
    405: StoreUnsuitableError,
    408: StoreUnavailableError,
    409: StoreUnavailableError,
    412: PreconditionFailedError,
}
_ADVICE = {
    "NoSuchBucket": "create the bucket, or correct its name",
    "ExpiredToken": "the credentials have expired; renew them",
    "InvalidAccessKeyId": "the access key is unknown to this server; check the key and the endpoint",
    "SignatureDoesNotMatch": "the secret key is wrong for this access key, or a proxy changes requests",
    "RequestTimeTooSkewed": "set this machine's clock",
    "AccessDenied": "grant s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket there (without the last, a "
    "missing object is answered like a forbidden one)",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """The part of an error reply that may be shown."""

    status: int
    code: str
    sentence: str
    retry_after_s: float | None


def refusal_of(reply: Reply) -> Refusal:
    """Read an error reply, whatever it is: a HEAD has no body, a gateway answers in HTML."""
    code = sentence = ""
    if reply.body.lstrip()[:1] == b"<":
        try:
            root = ElementTree.fromstring(reply.body)
        except ElementTree.ParseError:
            root = None
        if root is not None and root.tag.rpartition("}")[2] == "Error":
            code, sentence = (_text(root, "Code"), _text(root, "Message"))
    return Refusal(reply.status, code, sentence[:_MAX_SENTENCE_CHARS], _retry_after_s(reply))


def mapped(refusal: Refusal, what: str) -> PagemillError:
    """The error of ours for a refused request; `what` is the method and the object's URI."""
    message = f"{what}: {refusal.status} {refusal.code or 'without a reason'}"
    if refusal.sentence:
        message += f" ({refusal.sentence})"
    advice = _ADVICE.get(refusal.code, "")
    # A HEAD tells no code; 503 is SlowDown's status.
    if refusal.code in _THROTTLES or refusal.status == 429 or (refusal.status, refusal.code) == (503, ""):
        return ThrottledError(message, retry_after_s=refusal.retry_after_s)
    if refusal.status >= 500:
        return _mapped_failure(refusal, message)
    return _mapped_refusal(refusal, message, advice)


def _mapped_failure(refusal: Refusal, message: str) -> PagemillError:
    if refusal.status == 501:
        return StoreUnsuitableError(message, advice="this server lacks something that Pagemill needs; use another")
    if refusal.status == 507:
        return StoreUnavailableError(message, advice="the store is full; free or add space")
    return StoreUnavailableError(message, retry_after_s=refusal.retry_after_s)


def _mapped_refusal(refusal: Refusal, message: str, advice: str) -> PagemillError:
    kind = _BY_CODE.get(refusal.code) or _BY_STATUS.get(refusal.status) or InvalidSpecError
    if kind is AccessDeniedError and not advice:
        advice = _ADVICE["AccessDenied"]
    if kind is InvalidSpecError and not advice:
        advice = "check the endpoint (without a path), the bucket's region and the encryption settings"
    return kind(message, advice=advice)


def _text(root: ElementTree.Element, name: str) -> str:
    for child in root:
        if child.tag.rpartition("}")[2] == name:
            return child.text or ""
    return ""


def _retry_after_s(reply: Reply) -> float | None:
    value = reply.headers.get("Retry-After") or ""
    return float(value) if value.isascii() and value.isdigit() else None
