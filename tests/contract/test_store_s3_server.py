"""S3Store against the real server: refusals in our words, credentials that rotate, broken connections, large files."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from pagemill_core.errors import (
    AccessDeniedError,
    InvalidSpecError,
    PagemillError,
    RetriableError,
    StoreUnavailableError,
    ThrottledError,
)
from pagemill_core.storage.probe import probe
from pagemill_core.storage.s3 import S3Store
from pagemill_core.storage.s3_client import Call
from pagemill_core.storage.store import ObjectStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.testing.fault_proxy import FaultProxy, ProxyRates, ProxyRule
from pagemill_core.testing.seaweed import SeaweedServer

pytestmark = pytest.mark.s3

ALWAYS = 1.0
WRITES: dict[str, Callable[[ObjectStore], object]] = {
    "put": lambda store: store.put("k", b"x"),
    "put_if_absent": lambda store: store.put_if_absent("k", b"x"),
    "put_if_match": lambda store: store.put_if_match("k", b"x", "token"),
    "delete": lambda store: store.delete("k"),
}
READS: dict[str, Callable[[ObjectStore], object]] = {
    "get": lambda store: store.get("k"),
    "get_range": lambda store: store.get_range("k", 0, 1),
    "head": lambda store: store.head("k"),
    "list": lambda store: list(store.list("")),
}
EVERY = list((WRITES | READS).values())
EVERY_NAME = list(WRITES | READS)


@pytest.fixture
def proxy(s3_server: SeaweedServer) -> Iterator[FaultProxy]:
    with FaultProxy(s3_server.endpoint) as running:
        yield running


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def proxied(s3_server: SeaweedServer, proxy: FaultProxy, clock: FakeClock) -> Iterator[S3Store]:
    store = s3_server.fresh_store(endpoint=proxy.endpoint, clock=clock)
    yield store
    store.close()


@pytest.mark.parametrize("act", EVERY, ids=EVERY_NAME)
def test_wrong_secret_is_denied_and_not_told(s3_server: SeaweedServer, act: Callable[[ObjectStore], object]) -> None:
    secret = "not-the-secret-at-all"
    settings = s3_server.server.settings().model_copy(update={"secret_key": SecretStr(secret)})
    store = S3Store("bucket", "out", settings)

    with pytest.raises(AccessDeniedError) as caught:
        act(store)
    told = f"{caught.value} {caught.value.advice} {caught.value!r} {settings!r} {store!r}"
    assert secret not in told and "Signature=" not in told
    assert caught.value.advice
    store.close()


@pytest.mark.parametrize("act", EVERY, ids=EVERY_NAME)
def test_unknown_access_key_is_denied(s3_server: SeaweedServer, act: Callable[[ObjectStore], object]) -> None:
    settings = s3_server.server.settings().model_copy(update={"access_key": "nobody"})
    store = S3Store("bucket", "out", settings)

    with pytest.raises(AccessDeniedError):
        act(store)
    store.close()


@pytest.mark.parametrize("name", ["put", "put_if_absent", "get", "get_range", "list"])
def test_missing_bucket_is_a_fault_of_the_spec(s3_server: SeaweedServer, name: str) -> None:
    store = s3_server.store("no-such-bucket")

    with pytest.raises(InvalidSpecError, match=r"s3://no-such-bucket/.*NoSuchBucket") as caught:
        (WRITES | READS)[name](store)
    assert "create the bucket" in caught.value.advice
    assert store.head("k") is None
    store.close()


def test_reader_identity_reads_but_may_not_write(s3_server: SeaweedServer, s3_store: S3Store) -> None:
    s3_store.put("k", b"content")
    _, _, bucket, prefix = s3_store.uri.split("/")
    reader = s3_server.store(bucket, prefix, identity="reader")

    assert reader.get("k").data == b"content"
    assert [found.key for found in reader.list("")] == ["k"]
    for write in (WRITES["put"], WRITES["delete"], lambda store: store.put_if_absent("new", b"")):
        with pytest.raises(AccessDeniedError, match=f"{prefix}/"):
            write(reader)
    with pytest.raises(AccessDeniedError):
        probe(reader)
    reader.close()


def test_endpoint_that_nobody_listens_on_is_unavailable_soon(s3_server: SeaweedServer, clock: FakeClock) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused, and nobody else can have it
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        store = s3_server.store("bucket", endpoint=endpoint, clock=clock)
        for act in EVERY:
            with pytest.raises(StoreUnavailableError, match="127.0.0.1"):
                act(store)
        assert 1 < clock.monotonic_s() < 80  # plain calls were tried for up to 10 s each


def test_host_that_cannot_be_resolved_is_unavailable(s3_server: SeaweedServer, clock: FakeClock) -> None:
    store = s3_server.store("bucket", endpoint="http://no-such-host.invalid:9", clock=clock)

    with pytest.raises(RetriableError, match=r"no-such-host\.invalid"):
        store.put_if_absent("k", b"")


@pytest.mark.parametrize(
    ("rates", "want"),
    [
        (ProxyRates(throttled=ALWAYS), ThrottledError),
        (ProxyRates(slow_down=ALWAYS), ThrottledError),
        (ProxyRates(unavailable=ALWAYS), StoreUnavailableError),
        (ProxyRates(conflict=ALWAYS), StoreUnavailableError),
        (ProxyRates(reset=ALWAYS), StoreUnavailableError),
        (ProxyRates(reply_lost=ALWAYS), StoreUnavailableError),
        (ProxyRates(denied=ALWAYS), AccessDeniedError),
    ],
    ids=["429", "503", "500", "409", "reset", "reply lost", "403"],
)
@pytest.mark.parametrize("act", EVERY, ids=EVERY_NAME)
def test_lasting_fault_ends_in_its_error(
    proxied: S3Store,
    proxy: FaultProxy,
    act: Callable[[ObjectStore], object],
    rates: ProxyRates,
    want: type[PagemillError],
) -> None:
    proxy.set_rules([ProxyRule(rates)])

    with pytest.raises(want):
        act(proxied)


def test_truncated_replies_never_pass_as_whole(proxied: S3Store, proxy: FaultProxy) -> None:
    proxied.put("k", b"0123456789" * 100)
    proxy.set_rules([ProxyRule(ProxyRates(truncated=ALWAYS), frozenset(("GET",)))])

    for act in (READS["get"], READS["list"], lambda store: store.get_range("k", 0, 500)):
        with pytest.raises(StoreUnavailableError):
            act(proxied)


def test_conditional_write_is_sent_once_and_its_fault_told(
    proxied: S3Store, proxy: FaultProxy, clock: FakeClock
) -> None:
    proxy.set_rules([ProxyRule(ProxyRates(slow_down=ALWAYS), conditional=True)])

    with pytest.raises(ThrottledError):
        proxied.put_if_absent("k", b"")
    assert proxy.struck["slow_down"] == 1
    assert clock.sleeps == ()


def test_create_whose_reply_was_lost_is_unknown_or_exists_and_is_written(proxied: S3Store, proxy: FaultProxy) -> None:
    proxy.set_rules([ProxyRule(ProxyRates(reply_lost=ALWAYS), conditional=True)])
    with pytest.raises(StoreUnavailableError):
        proxied.put_if_absent("fresh connection", b"mine")
    proxied.head("k")  # leaves a kept connection, on which a reset is answered by one more try
    with pytest.raises(StoreUnavailableError):
        proxied.put_if_absent("kept connection", b"mine")
    proxy.set_rules([])

    for key in ("fresh connection", "kept connection"):
        assert proxied.get(key).data == b"mine"
        assert proxied.put_if_absent(key, b"mine") is None


def test_store_that_is_down_for_a_minute_is_waited_for(proxied: S3Store, proxy: FaultProxy, clock: FakeClock) -> None:
    proxied.put("k", b"before")
    proxy.set_outage(True)
    rise_at_s = clock.monotonic_s() + 60
    sleep = clock.sleep

    def sleep_until_it_rises(seconds: float) -> None:
        sleep(seconds)
        proxy.set_outage(clock.monotonic_s() < rise_at_s)

    clock.sleep = sleep_until_it_rises  # type: ignore[method-assign]

    assert proxied.get("k").data == b"before"
    assert clock.monotonic_s() >= 60


def test_wish_of_the_server_is_waited_for(proxied: S3Store, proxy: FaultProxy, clock: FakeClock) -> None:
    proxy.set_rules([ProxyRule(ProxyRates(throttled=ALWAYS, retry_after_s=7))])

    with pytest.raises(ThrottledError) as caught:
        proxied.put("k", b"")
    assert caught.value.retry_after_s == 7
    assert set(clock.sleeps) == {7}


def test_secret_folder_that_rotates_is_read_again(s3_server: SeaweedServer, s3_store: S3Store, tmp_path: Path) -> None:
    def rotate(version: str, access_key: str, secret_key: str) -> None:
        """As the kubelet does: a new folder, shown by swapping one link."""
        (tmp_path / version).mkdir()
        (tmp_path / version / "accessKey").write_text(f"{access_key}\n")
        (tmp_path / version / "secretKey").write_text(secret_key)
        (tmp_path / "..new").symlink_to(version)
        (tmp_path / "..new").replace(tmp_path / "..data")

    for name in ("accessKey", "secretKey"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    worker, reader = s3_server.server.settings("worker"), s3_server.server.settings("reader")
    settings = worker.model_copy(update={"access_key": "", "secret_key": SecretStr(""), "secret_path": tmp_path})
    _, _, bucket, prefix = s3_store.uri.split("/")
    store, clock = S3Store(bucket, prefix, settings, clock=FakeClock()), FakeClock()
    store = S3Store(bucket, prefix, settings, clock=clock)

    rotate("v1", "gone", "wrong")
    with pytest.raises(AccessDeniedError):
        store.put("k", b"1")
    rotate("v2", worker.access_key, worker.secret_key.get_secret_value())
    store.put("k", b"2")  # at once: a refusal makes it look again
    rotate("v3", reader.access_key, reader.secret_key.get_secret_value())
    clock.advance(3)
    with pytest.raises(AccessDeniedError):
        store.put("k", b"3")
    assert store.get("k").data == b"2"
    store.close()


def test_secret_folder_without_keys_is_denied_with_advice(s3_server: SeaweedServer, tmp_path: Path) -> None:
    settings = s3_server.server.settings().model_copy(update={"access_key": "", "secret_path": tmp_path})

    with pytest.raises(AccessDeniedError) as caught:
        S3Store("bucket", "", settings).get("k")
    assert "accessKey" in caught.value.advice


def test_default_chain_finds_environment_and_refuses_without(
    s3_server: SeaweedServer, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = s3_server.server.settings("worker")
    settings = worker.model_copy(update={"access_key": "", "secret_key": SecretStr("")})
    _, _, bucket, prefix = s3_store.uri.split("/")
    with pytest.raises(AccessDeniedError, match="no credentials"):
        S3Store(bucket, prefix, settings).get("k")

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", worker.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", worker.secret_key.get_secret_value())
    store = S3Store(bucket, prefix, settings)
    store.put("k", b"1")
    assert s3_store.get("k").data == b"1"
    store.close()


def test_file_above_the_multipart_size_arrives_whole(s3_store: S3Store, tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    path.write_bytes(os.urandom(1 << 20) * 65)

    token = s3_store.put_file("large", path, meta={"seq": "1"})

    info = s3_store.head("large")
    assert info is not None
    assert (info.size, info.token, dict(info.meta)) == (65 << 20, token, {"seq": "1"})
    assert s3_store.get("large").data == path.read_bytes()


def test_multipart_upload_that_fails_leaves_nothing(proxied: S3Store, proxy: FaultProxy, tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(65 << 20))
    proxy.set_rules([ProxyRule(ProxyRates(denied=ALWAYS), frozenset(("PUT",)), "partNumber=3")])

    with pytest.raises(AccessDeniedError):
        proxied.put_file("large", path)

    assert proxied.head("large") is None
    uploads = proxied._client.send(Call("GET", "", {"uploads": ""})).body
    assert b"<UploadId>" not in uploads


def test_connections_that_died_while_idle_are_not_noticed_above(proxied: S3Store, proxy: FaultProxy) -> None:
    proxied.put("k", b"1")
    for _ in range(3):
        proxy.set_outage(True)  # closes them
        proxy.set_outage(False)
        assert proxied.put_if_absent("k", b"2") is None


def test_server_killed_and_restarted_keeps_what_it_acknowledged() -> None:
    with SeaweedServer() as server:
        store = server.fresh_store()
        tokens = {f"k/{number}": store.put(f"k/{number}", b"%d" % number) for number in range(50)}
        endpoint = server.endpoint
        server.kill_and_restart()

        assert server.endpoint == endpoint
        assert {found.key: found.token for found in store.list("")} == tokens
        store.close()


def test_bucket_root_reads_everything_in_the_bucket(s3_server: SeaweedServer, s3_store: S3Store) -> None:
    s3_store.put("a/b", b"1")
    _, _, bucket, prefix = s3_store.uri.split("/")
    root = s3_server.store(bucket)

    assert root.uri == f"s3://{bucket}/"
    assert root.get(f"{prefix}/a/b").data == b"1"
    assert [found.key for found in root.list(f"{prefix}/a")] == [f"{prefix}/a/b"]
    root.close()


def test_hundred_small_operations_take_little_time(s3_store: S3Store) -> None:
    """Guards against a 40 ms wait for a delayed acknowledgement in every request, not against a slow machine."""
    started_s = time.monotonic()
    for number in range(100):
        s3_store.put(f"k/{number}", b"x" * 500)

    assert time.monotonic() - started_s < 2.5
