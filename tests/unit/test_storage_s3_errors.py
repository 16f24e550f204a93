"""Every refusal of an S3 server, and what it means in the error tree."""

from __future__ import annotations

import http.client

import pytest

from pagemill_core import errors
from pagemill_core.storage.s3_errors import mapped, refusal_of
from pagemill_core.storage.s3_http import Reply


def make_reply(
    status: int, code: str = "", *, sentence: str = "", headers: str = "", body: bytes | None = None
) -> Reply:
    if body is None:
        body = f"<Error><Code>{code}</Code><Message>{sentence}</Message></Error>".encode() if code else b""
    return Reply(status, http.client.HTTPMessage(), body)


@pytest.mark.parametrize(
    ("status", "code", "want"),
    [
        (301, "PermanentRedirect", errors.InvalidSpecError),
        (307, "TemporaryRedirect", errors.InvalidSpecError),
        (400, "AuthorizationHeaderMalformed", errors.InvalidSpecError),
        (400, "BadDigest", errors.StoreUnavailableError),
        (400, "EntityTooLarge", errors.IntegrityError),
        (400, "ExpiredToken", errors.AccessDeniedError),
        (400, "IncompleteBody", errors.StoreUnavailableError),
        (400, "InvalidArgument", errors.InvalidSpecError),
        (400, "KeyTooLongError", errors.UnsafeId),
        (400, "RequestTimeout", errors.StoreUnavailableError),
        (400, "XAmzContentChecksumMismatch", errors.StoreUnavailableError),
        (400, "XAmzContentSHA256Mismatch", errors.StoreUnavailableError),
        (400, "", errors.InvalidSpecError),
        (401, "", errors.AccessDeniedError),
        (403, "AccessDenied", errors.AccessDeniedError),
        (403, "InvalidAccessKeyId", errors.AccessDeniedError),
        (403, "RequestTimeTooSkewed", errors.AccessDeniedError),
        (403, "SignatureDoesNotMatch", errors.AccessDeniedError),
        (403, "", errors.AccessDeniedError),
        (404, "NoSuchBucket", errors.InvalidSpecError),
        (404, "NoSuchKey", errors.ObjectNotFoundError),
        (404, "", errors.ObjectNotFoundError),
        (405, "MethodNotAllowed", errors.StoreUnsuitableError),
        (408, "", errors.StoreUnavailableError),
        (409, "ConditionalRequestConflict", errors.StoreUnavailableError),
        (409, "OperationAborted", errors.StoreUnavailableError),
        (412, "PreconditionFailed", errors.PreconditionFailedError),
        (429, "", errors.ThrottledError),
        (429, "TooManyRequests", errors.ThrottledError),
        (500, "InternalError", errors.StoreUnavailableError),
        (501, "NotImplemented", errors.StoreUnsuitableError),
        (502, "", errors.StoreUnavailableError),
        (503, "", errors.ThrottledError),
        (503, "ServiceUnavailable", errors.StoreUnavailableError),
        (503, "SlowDown", errors.ThrottledError),
        (504, "", errors.StoreUnavailableError),
        (507, "InsufficientStorage", errors.StoreUnavailableError),
    ],
)
def test_refusal_becomes_an_error_that_names_it(status: int, code: str, want: type[errors.PagemillError]) -> None:
    error = mapped(refusal_of(make_reply(status, code, sentence="Because.")), "PUT s3://b/k")

    assert type(error) is want
    assert error.message.startswith(f"PUT s3://b/k: {status} {code or 'without a reason'}")


@pytest.mark.parametrize(
    "body", [b"", b"<html><body>Bad gateway", b"not xml", b"<html></html>", b"\xff\xfe<"], ids=range(5)
)
def test_body_that_is_no_s3_error_is_not_shown(body: bytes) -> None:
    refusal = refusal_of(make_reply(502, body=body))

    assert (refusal.code, refusal.sentence) == ("", "")


def test_error_in_a_namespace_is_read_and_cut() -> None:
    body = b"<Error xmlns='http://s3/'><Code>X</Code><Message>" + b"y" * 5000 + b"</Message></Error>"

    refusal = refusal_of(make_reply(400, body=body))

    assert refusal.code == "X" and len(refusal.sentence) == 300


def test_signature_in_an_error_reply_is_not_shown() -> None:
    body = (
        b"<Error><Code>SignatureDoesNotMatch</Code><Message>No.</Message><StringToSign>planted-1</StringToSign>"
        b"<SignatureProvided>planted-2</SignatureProvided><AWSAccessKeyId>planted-3</AWSAccessKeyId></Error>"
    )

    error = mapped(refusal_of(make_reply(403, body=body)), "GET s3://b/k")

    assert "planted" not in f"{error} {error!r} {error.advice}"


@pytest.mark.parametrize(
    ("header", "want"), [("7", 7.0), ("", None), ("soon", None), ("Fri, 31 Dec 1999 23:59:59 GMT", None), ("²", None)]
)
def test_wish_of_the_server_is_seconds_or_nothing(header: str, want: float | None) -> None:
    reply = Reply(503, http.client.HTTPMessage(), b"")
    reply.headers["Retry-After"] = header

    assert refusal_of(reply).retry_after_s == want
