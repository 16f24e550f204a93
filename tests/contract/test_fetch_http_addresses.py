"""Where fetching may connect to, whom it tells what, and whose certificate it believes."""

from __future__ import annotations

import base64
import datetime as dt
import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pagemill_core.errors import FetchFailed, ForbiddenAddress
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.testing.web_server import answer, serving
from pagemill_worker.fetch.addresses import AddressPolicy
from pagemill_worker.fetch.http import HttpFetcher, HttpPolicy
from pagemill_worker.testing.http_fetching import LOOPBACK, fetching

PICTURE = b"\x89PNG" + bytes(range(256)) * 40
LIMIT = 1 << 20


def test_fetch_redirect_circle_ends_after_five() -> None:
    with (
        serving({"/p": answer(302, Location="/p")}) as (port, seen),
        fetching() as fetcher,
        pytest.raises(FetchFailed, match="more than 5 redirects"),
    ):
        fetcher.fetch(f"http://127.0.0.1:{port}/p", max_bytes=LIMIT)
    assert len(seen.requests) == 6


@pytest.mark.parametrize(
    "place", ["file:///etc/passwd", "ftp://127.0.0.1/p", "http://h:0/", "http://[::1", "gopher://x/"]
)
def test_fetch_redirect_to_no_web_address_fails(place: str) -> None:
    with (
        serving({"/p": answer(302, Location=place)}) as (port, _),
        fetching() as fetcher,
        pytest.raises(FetchFailed, match="redirected to something"),
    ):
        fetcher.fetch(f"http://127.0.0.1:{port}/p", max_bytes=LIMIT)


@pytest.mark.parametrize(
    "place", ["http://169.254.169.254/latest/meta-data/", "http://internal.test/", "http://[::ffff:10.0.0.1]/x"]
)
def test_fetch_redirect_to_a_private_address_is_forbidden(place: str) -> None:
    names = {"internal.test": ["10.1.2.3"], "::ffff:10.0.0.1": ["::ffff:10.0.0.1"]}
    with (
        serving({"/p": answer(302, Location=place)}) as (port, _),
        fetching(names=names) as fetcher,
        pytest.raises(ForbiddenAddress) as caught,
    ):
        fetcher.fetch(f"http://127.0.0.1:{port}/p", max_bytes=LIMIT)
    assert caught.value.message.startswith(f"http://127.0.0.1:{port}/p: ")
    assert "10.1.2.3" not in caught.value.message


def test_fetch_loopback_without_permission_is_forbidden_and_not_even_connected_to() -> None:
    with (
        serving({"/p": answer(200, PICTURE)}) as (port, seen),
        fetching(HttpPolicy()) as fetcher,
        pytest.raises(ForbiddenAddress),
    ):
        fetcher.fetch(f"http://127.0.0.1:{port}/p", max_bytes=LIMIT)
    assert seen.requests == []


def test_fetch_name_with_one_private_address_among_public_ones_is_forbidden() -> None:
    with (
        fetching(names={"rebind.test": ["93.184.216.34", "127.0.0.1"]}, policy=HttpPolicy()) as fetcher,
        pytest.raises(ForbiddenAddress, match=r"rebind\.test leads to"),
    ):
        fetcher.fetch("http://rebind.test/p", max_bytes=LIMIT)


def test_fetch_unknown_name_fails_at_once_and_a_busy_resolver_is_asked_again() -> None:
    clock = FakeClock()
    with fetching(clock=clock) as fetcher, pytest.raises(FetchFailed, match="the host's name is not known"):
        fetcher.fetch("http://nowhere.test/p", max_bytes=LIMIT)
    assert clock.sleeps == ()

    def busy(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    fetcher = HttpFetcher(HttpPolicy(), clock, resolve=busy)
    with pytest.raises(FetchFailed, match="after 4 attempts"):
        fetcher.fetch("http://nowhere.test/p", max_bytes=LIMIT)
    fetcher.close()
    assert len(clock.sleeps) == 3


def test_fetch_name_is_resolved_once_and_connected_to_what_was_checked() -> None:
    answers = iter([["127.0.0.1"], ["10.0.0.1"], ["10.0.0.1"]])
    asked = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    with serving({"/p": answer(200, PICTURE)}) as (port, seen):
        fetcher = HttpFetcher(HttpPolicy(addresses=LOOPBACK), FakeClock(), resolve=resolve)
        fetcher.fetch(f"http://img.test:{port}/p", max_bytes=LIMIT)
        fetcher.close()
    assert asked == ["img.test"]
    assert seen.requests[0][1]["Host"] == f"img.test:{port}"


def test_fetch_second_address_is_tried_when_the_first_refuses() -> None:
    names = {"two.test": ["127.0.0.2", "127.0.0.1"]}
    policy = HttpPolicy(addresses=AddressPolicy.allowing(["two.test"]))
    with serving({"/p": answer(200, PICTURE)}) as (port, _), fetching(policy, names=names) as fetcher:
        assert fetcher.fetch(f"http://two.test:{port}/p", max_bytes=LIMIT).data == PICTURE


def test_fetch_credentials_go_to_their_own_host_only_and_never_into_messages() -> None:
    with serving({"/p": answer(403)}) as (other_port, other), fetching(names={"b.test": ["127.0.0.1"]}) as fetcher:
        routes = {"/p": answer(302, Location=f"http://b.test:{other_port}/p?token=t0psecret")}
        with serving(routes) as (port, seen), pytest.raises(FetchFailed) as caught:
            fetcher.fetch(f"http://ann:pa%3Ass@127.0.0.1:{port}/p?X-Signature=abc123#f", max_bytes=LIMIT)
    assert seen.requests[0][1]["Authorization"] == "Basic " + base64.b64encode(b"ann:pa:ss").decode()
    assert seen.paths == ["/p?X-Signature=abc123"]
    assert "Authorization" not in other.requests[0][1]
    for secret in ("ann", "pa:ss", "pa%3A", "abc123", "t0psecret"):
        assert secret not in caught.value.message


@pytest.mark.parametrize(
    "uri", ["http://", "http://:80/x", "https://exa mple/ü?k=s3cr3t", "http://h:99999999/?k=s3cr3t"]
)
def test_fetch_unusable_url_fails_without_quoting_its_query(uri: str) -> None:
    with fetching() as fetcher, pytest.raises(FetchFailed) as caught:
        fetcher.fetch(uri, max_bytes=LIMIT)
    assert "s3cr3t" not in caught.value.message


def test_fetch_set_cookie_is_never_sent_back() -> None:
    routes = {"/p": answer(200, PICTURE, Set_Cookie="id=7")}
    with serving(routes) as (port, seen), fetching() as fetcher:
        for _ in range(2):
            fetcher.fetch(f"http://127.0.0.1:{port}/p", max_bytes=LIMIT)
    assert all("Cookie" not in headers for _, headers in seen.requests)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for img.test with its key, one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "img.test")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("img.test")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "img.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


def test_fetch_https_keeps_the_server_name_although_the_address_is_pinned(certificate: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    asked: list[str | None] = []
    tls.sni_callback = lambda connection, name, context: asked.append(name)
    names = {"img.test": ["127.0.0.1"], "other.test": ["127.0.0.1"]}
    policy = HttpPolicy(addresses=LOOPBACK, ca_file=str(certificate))
    with serving({"/p": answer(200, PICTURE)}, tls) as (port, _), fetching(policy, names=names) as fetcher:
        assert fetcher.fetch(f"https://img.test:{port}/p", max_bytes=LIMIT).data == PICTURE
        with pytest.raises(FetchFailed, match="certificate is not trusted"):
            fetcher.fetch(f"https://other.test:{port}/p", max_bytes=LIMIT)
    assert asked == ["img.test", "other.test"]


def test_fetch_https_with_an_unknown_authority_fails_at_once(certificate: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    clock = FakeClock()
    with (
        serving({"/p": answer(200, PICTURE)}, tls) as (port, _),
        fetching(clock=clock, names={"img.test": ["127.0.0.1"]}) as fetcher,
        pytest.raises(FetchFailed, match="certificate is not trusted"),
    ):
        fetcher.fetch(f"https://img.test:{port}/p", max_bytes=LIMIT)
    assert clock.sleeps == ()
