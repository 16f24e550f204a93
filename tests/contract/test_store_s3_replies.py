"""S3Store against a server that says what the test tells it: answers that the real server at hand never gives."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import http.server
import ipaddress
import queue
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from pagemill_core.errors import (
    AccessDeniedError,
    InvalidSpecError,
    ObjectNotFoundError,
    PreconditionFailedError,
    StoreUnavailableError,
    StoreUnsuitableError,
)
from pagemill_core.storage import s3_http
from pagemill_core.storage.s3 import S3Store
from pagemill_core.storage.s3_client import Call, Place, S3Client, Surroundings
from pagemill_core.storage.s3_http import HttpOptions
from pagemill_core.storage.s3_keys import StaticKeys
from pagemill_core.storage.s3_multipart import put_parts
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.testing.fake_clock import FakeClock

ETAG = {"ETag": '"token"'}


@dataclass(frozen=True)
class Seen:
    """A request as it came in."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    port: int


@dataclass
class ScriptedServer:
    """Gives the queued replies one after another; `seen` are the requests."""

    replies: queue.SimpleQueue[tuple[int, dict[str, str], bytes]] = field(default_factory=queue.SimpleQueue)
    seen: list[Seen] = field(default_factory=list)
    origin: str = ""

    def reply(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.replies.put((status, headers or {}, body))

    def refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self.reply(status, headers, f"<Error><Code>{code}</Code></Error>".encode())


@contextlib.contextmanager
def serving(server: ScriptedServer, context: ssl.SSLContext | None = None) -> Iterator[None]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            server.seen.append(Seen(self.command, self.path, headers, body, self.client_address[1]))
            status, reply_headers, content = server.replies.get(timeout=5)
            self.send_response_only(status)
            for name, value in reply_headers.items():
                self.send_header(name, value)
            if "Transfer-Encoding" not in reply_headers and "Content-Length" not in reply_headers:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        if context is not None:
            running.socket = context.wrap_socket(running.socket, server_side=True)
        server.origin = f"{'https' if context else 'http'}://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield
        finally:
            running.shutdown()
            thread.join()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    scripted = ScriptedServer()
    with serving(scripted):
        yield scripted


def make_settings(endpoint: str, **others: object) -> S3Settings:
    return S3Settings(endpoint=endpoint, region="r", access_key="a", secret_key=SecretStr("s")).model_copy(
        update=others
    )


@pytest.fixture
def store(server: ScriptedServer) -> Iterator[S3Store]:
    made = S3Store("b", "p", make_settings(server.origin), clock=FakeClock())
    yield made
    made.close()


@pytest.fixture
def client(server: ScriptedServer) -> Iterator[S3Client]:
    """A client as for AWS, whose every region is the scripted server."""
    clock = FakeClock()
    around = Surroundings(
        StaticKeys(make_settings("")),
        lambda region: Place(server.origin, "/b", region or "first"),
        lambda _: HttpOptions(5, 5),
        clock,
        lambda: clock.now().timestamp(),
    )
    made = S3Client("b", S3Settings(), around)
    yield made
    made.close()


def test_put_carries_checksum_meta_and_precondition_signed(server: ScriptedServer, store: S3Store) -> None:
    server.reply(200, ETAG)

    assert store.put_if_absent("k ê", b"body", meta={"seq": "1"}) == "token"

    (request,) = server.seen
    assert (request.method, request.target, request.body) == ("PUT", "/b/p/k%20%C3%AA", b"body")
    assert base64.b64decode(request.headers["content-md5"]) == hashlib.md5(b"body", usedforsecurity=False).digest()
    assert request.headers["if-none-match"] == "*" and request.headers["x-amz-meta-seq"] == "1"
    for name in ("content-md5", "if-none-match", "x-amz-meta-seq", "x-amz-content-sha256", "host"):
        assert name in request.headers["authorization"]


@pytest.mark.parametrize(
    ("sse", "want"),
    [
        ("", {}),
        ("AES256", {"x-amz-server-side-encryption": "AES256"}),
        ("aws:kms", {"x-amz-server-side-encryption": "aws:kms"}),
        (
            "aws:kms:arn:aws:kms:x:1:key/2",
            {
                "x-amz-server-side-encryption": "aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id": "arn:aws:kms:x:1:key/2",
            },
        ),
    ],
)
def test_encryption_is_asked_for_on_every_write(server: ScriptedServer, sse: str, want: dict[str, str]) -> None:
    store = S3Store("b", "p", make_settings(server.origin, sse=sse))
    server.reply(200, ETAG)
    store.put("k", b"")
    store.close()

    sent = {name: value for name, value in server.seen[0].headers.items() if "encryption" in name}
    assert sent == want


def test_bucket_in_another_region_is_found_there(server: ScriptedServer, client: S3Client) -> None:
    server.refuse(301, "PermanentRedirect", {"x-amz-bucket-region": "second"})
    server.reply(200, ETAG)
    server.reply(200, ETAG)

    client.send(Call("GET", "k"))
    client.send(Call("GET", "k"))

    regions = [request.headers["authorization"].split("/")[2] for request in server.seen]
    assert regions == ["first", "second", "second"]


def test_clock_that_is_wrong_is_set_by_the_servers(server: ScriptedServer, client: S3Client) -> None:
    server.refuse(403, "RequestTimeTooSkewed", {"Date": "Sun, 01 Mar 2026 10:00:00 GMT"})
    server.reply(200, ETAG)

    client.send(Call("PUT", "k", body=b"x", is_retried=False))

    assert [request.headers["x-amz-date"] for request in server.seen] == ["20260101T000000Z", "20260301T100000Z"]


def test_clock_that_cannot_be_set_is_told_with_advice(server: ScriptedServer, client: S3Client) -> None:
    server.refuse(403, "RequestTimeTooSkewed", {"Date": "soon"})

    with pytest.raises(AccessDeniedError) as caught:
        client.send(Call("GET", "k"))
    assert "clock" in caught.value.advice


def test_damaged_upload_is_sent_again(server: ScriptedServer, store: S3Store) -> None:
    server.refuse(400, "BadDigest")
    server.reply(200, ETAG)

    assert store.put("k", b"body") == "token"
    assert [request.body for request in server.seen] == [b"body", b"body"]


def test_gateways_page_of_html_is_retried_and_not_shown(server: ScriptedServer, store: S3Store) -> None:
    for _ in range(2):
        server.reply(502, {"Content-Type": "text/html"}, b"<html>planted</html>")
    server.reply(200, ETAG, b"content")
    assert store.get("k").data == b"content"

    server.reply(502, {}, b"<html>planted</html>")
    with pytest.raises(StoreUnavailableError) as caught:
        store.put_if_absent("k", b"")
    assert "planted" not in str(caught.value)


def test_swap_where_nothing_is_answers_changed_as_aws_says_it(server: ScriptedServer, store: S3Store) -> None:
    server.refuse(404, "NoSuchKey")

    assert store.put_if_match("k", b"", "token") is None


def test_range_that_the_server_ignores_is_cut_here(server: ScriptedServer, store: S3Store) -> None:
    server.reply(200, ETAG, b"0123456789")

    assert store.get_range("k", 2, 3) == b"234"
    assert server.seen[0].headers["range"] == "bytes=2-4"


def test_range_past_the_end_of_a_changed_object_is_told(server: ScriptedServer, store: S3Store) -> None:
    for _ in range(2):
        server.refuse(416, "InvalidRange")
        server.reply(200, ETAG)

    assert store.get_range("k", 20, 3, if_match="token") == b""
    with pytest.raises(PreconditionFailedError):
        store.get_range("k", 20, 3, if_match="older")


def test_reply_in_chunks_is_read_whole(server: ScriptedServer, store: S3Store) -> None:
    server.reply(200, ETAG | {"Transfer-Encoding": "chunked"}, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")

    assert store.get("k").data == b"abcde"


def test_reply_without_an_etag_is_unsuitable(server: ScriptedServer, store: S3Store) -> None:
    server.reply(200)

    with pytest.raises(StoreUnsuitableError, match="ETag"):
        store.put("k", b"")


@pytest.mark.parametrize(
    ("body", "want"),
    [
        (b"<ListBucketResult><Contents>", StoreUnavailableError),
        (b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>", StoreUnsuitableError),
    ],
    ids=["no document", "no continuation"],
)
def test_listing_that_cannot_be_whole_is_refused(
    server: ScriptedServer, store: S3Store, body: bytes, want: type[Exception]
) -> None:
    server.reply(200, {}, body)

    with pytest.raises(want):
        list(store.list(""))


@pytest.mark.parametrize("space", ["", ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'], ids=["plain", "namespace"])
@pytest.mark.parametrize(("encoding", "key"), [("url", "p/a%2Bb+c%25"), ("", "p/a+b c%")], ids=["quoted", "verbatim"])
def test_listed_key_is_read_as_the_server_says_it_wrote_it(
    server: ScriptedServer, store: S3Store, space: str, encoding: str, key: str
) -> None:
    entry = f'<Contents><Key>{key}</Key><Size>3</Size><ETag>"e"</ETag></Contents>'
    body = f"<ListBucketResult{space}><EncodingType>{encoding}</EncodingType>{entry}</ListBucketResult>"
    server.reply(200, {}, body.encode())

    (found,) = store.list("a")
    assert (found.key, found.size, found.token) == ("a+b c%", 3, "e")


def reply_to_upload(server: ScriptedServer) -> None:
    server.reply(200, {}, b"<InitiateMultipartUploadResult><UploadId>u+1</UploadId></InitiateMultipartUploadResult>")
    server.reply(200, {"ETag": '"part"'})


def test_upload_that_fails_inside_a_good_answer_is_aborted(
    server: ScriptedServer, client: S3Client, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"content")
    reply_to_upload(server)
    server.reply(200, {}, b"<Error><Code>InternalError</Code></Error>")
    server.reply(204)

    with pytest.raises(StoreUnavailableError):
        put_parts(client, "k", tmp_path / "file", {})

    assert [(request.method, request.target) for request in server.seen] == [
        ("POST", "/b/k?uploads="),
        ("PUT", "/b/k?partNumber=1&uploadId=u%2B1"),
        ("POST", "/b/k?uploadId=u%2B1"),
        ("DELETE", "/b/k?uploadId=u%2B1"),
    ]


def test_upload_completed_by_a_try_whose_reply_was_lost_is_recognised(
    server: ScriptedServer, client: S3Client, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"content")
    reply_to_upload(server)
    server.refuse(500, "InternalError")
    server.refuse(404, "NoSuchUpload")
    server.reply(200, {"ETag": '"whole-1"'})

    assert put_parts(client, "k", tmp_path / "file", {}) == "whole-1"


def test_upload_that_somebody_else_aborted_is_an_error(
    server: ScriptedServer, client: S3Client, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"content")
    reply_to_upload(server)
    server.refuse(404, "NoSuchUpload")
    server.reply(200, {"ETag": '"another object"'})
    server.reply(404)

    with pytest.raises(ObjectNotFoundError):
        put_parts(client, "k", tmp_path / "file", {})


def test_proxy_of_the_environment_is_used_and_its_exceptions_kept(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.origin)
    monkeypatch.setenv("no_proxy", "direct.invalid")
    for _ in range(2):
        server.reply(200, ETAG, b"by proxy")
    store = S3Store("b", "", make_settings("http://s3.invalid:9000"), clock=FakeClock())

    assert store.get("k").data == b"by proxy"
    assert server.seen[0].target == "http://s3.invalid:9000/b/k"
    assert server.seen[0].headers["host"] == "s3.invalid:9000"
    store.close()
    with pytest.raises(StoreUnavailableError, match=r"direct\.invalid"):
        S3Store("b", "", make_settings("http://direct.invalid"), clock=FakeClock()).get("k")


def test_connections_are_not_shared_with_a_forked_child(
    server: ScriptedServer, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        server.reply(200, ETAG)
    store.get("k")
    store.get("k")
    monkeypatch.setattr(s3_http.os, "getpid", lambda: -1)  # what a child sees after a fork; forking here would warn
    store.get("k")
    store.get("k")

    ports = [request.port for request in server.seen]
    assert ports[0] == ports[1] != ports[2] == ports[3]


def test_certificate_of_an_own_authority_is_trusted_once_named(tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, tmp_path / "key.pem")
    server = ScriptedServer()
    with serving(server, context):
        server.reply(200, ETAG, b"content")
        trusting = S3Store("b", "", make_settings(server.origin, ca_path=certificate), clock=FakeClock())
        assert trusting.get("k").data == b"content"
        trusting.close()

        with pytest.raises(InvalidSpecError, match="not trusted") as caught:
            S3Store("b", "", make_settings(server.origin), clock=FakeClock()).get("k")
        assert "ca_path" in caught.value.advice


def test_file_that_holds_no_certificates_is_a_fault_of_the_spec(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    for path in (tmp_path / "ca.pem", tmp_path / "missing.pem"):
        with pytest.raises(InvalidSpecError, match="no readable certificates"):
            S3Store("b", "", make_settings("https://127.0.0.1:9", ca_path=path)).get("k")


def write_certificate(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Pagemill test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return folder / "ca.pem"
