"""Our signatures against botocore's own signer, byte for byte."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping
from unittest import mock

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest

from pagemill_core.storage.s3_sign import EMPTY_SHA256, Keys, Signer, Unsigned, quote_path, quote_query

AT = dt.datetime(2026, 2, 3, 4, 5, 6, tzinfo=dt.UTC)


def botocore_authorization(request: Unsigned, keys: Keys, body: bytes) -> str:
    url = f"http://{request.host}{request.path}" + (f"?{request.query}" if request.query else "")
    outgoing = botocore.awsrequest.AWSRequest(request.method, url, headers=dict(request.headers), data=body)
    credentials = botocore.credentials.Credentials(keys.access_key, keys.secret_key, keys.session_token or None)
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=AT):
        botocore.auth.S3SigV4Auth(credentials, "s3", "eu-west-1").add_auth(outgoing)
    return str(outgoing.headers["Authorization"])


@pytest.mark.parametrize(
    ("method", "key", "parameters", "headers", "token"),
    [
        ("GET", "/bucket/plain.json", {}, {}, ""),
        ("GET", "/bucket/a b/ê#%+日本~_.-'()*!.json", {}, {"range": "bytes=0-9", "if-match": '"abc"'}, ""),
        ("PUT", "/bucket/x", {}, {"if-none-match": "*", "x-amz-meta-seq": "1 2", "content-md5": "eA=="}, "session"),
        ("GET", "/bucket/", {"list-type": "2", "prefix": "a b/ê&=", "continuation-token": "x+/="}, {}, ""),
        ("POST", "/bucket/x", {"uploads": ""}, {}, ""),
    ],
    ids=["plain", "odd key", "conditional put", "listing", "multipart"],
)
def test_signature_equals_botocores(
    method: str, key: str, parameters: Mapping[str, str], headers: Mapping[str, str], token: str
) -> None:
    keys = Keys("AKIDEXAMPLE", "a secret/of+mine", token)
    body = b"the body" if method == "PUT" else b""
    sha256 = hashlib.sha256(body).hexdigest()
    request = Unsigned(method, "host:9000", quote_path(key), quote_query(parameters), headers, sha256)

    signed = Signer("eu-west-1").sign(request, keys, AT.timestamp())

    assert signed["authorization"] == botocore_authorization(request, keys, body)


def test_signing_key_is_made_anew_for_another_day_or_secret() -> None:
    signer = Signer("eu-west-1")
    request = Unsigned("GET", "h", "/b/k", "", {}, EMPTY_SHA256)

    signatures = {
        signer.sign(request, Keys("a", secret), AT.timestamp() + day * 86_400)["authorization"]
        for secret in ("one", "two")
        for day in (0, 1)
    }

    assert len(signatures) == 4


def test_secrets_stay_out_of_the_representation_of_keys() -> None:
    assert "hidden" not in repr(Keys("a", "hidden-secret", "hidden-token"))
