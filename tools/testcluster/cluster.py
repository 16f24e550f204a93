"""A test cluster by its name: start it, stop it, ask how it is, reach it.

Layer: project tooling; the one interface of both levels, for the command line and for tests.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from testcluster import binaries, cgroups, control, locks, parts, pki, processes, requirements
from testcluster.api import KubeApi
from testcluster.errors import ClusterError, NotRunningError, PartFailedError, tail
from testcluster.layout import Layout, binary
from testcluster.settings import (
    LOOPBACK,
    NODE_ADDRESS,
    SERVICE_ADDRESS,
    Phase,
    Settings,
    State,
)

TOOLS = Path(__file__).resolve().parents[1]
_UP_PATIENCE_S = 200.0
_DOWN_PATIENCE_S = 60.0
_REMOVE_PATIENCE_S = 60.0
_POLL_S = 0.03
# Below the range from which Linux takes ports for outgoing connections, or one of those could take ours.
_PORTS = range(20_000, 30_000)
_SERVER_NAMES = (
    LOOPBACK,
    "localhost",
    NODE_ADDRESS,
    SERVICE_ADDRESS,
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A cluster as it is now. `state` is what its keeper said last; a dead keeper says nothing new."""

    phase: Phase | None
    state: State
    settings: Settings | None

    @property
    def is_ready(self) -> bool:
        return self.phase == "ready"


class Cluster:
    """One cluster by its name, whether it stands or not. Safe to use from several processes."""

    def __init__(self, name: str = "pagemill") -> None:
        self.layout = Layout(name)
        self._api: KubeApi | None = None

    @property
    def name(self) -> str:
        return self.layout.name

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, for programs on this machine."""
        return self.layout.kubeconfig

    def api(self) -> KubeApi:
        """The API server, as the administrator; `close` and `down` end the connections. Raises: NotRunningError."""
        if self._api is None:
            try:
                self._api = KubeApi.from_kubeconfig(self.kubeconfig)
            except FileNotFoundError as error:
                raise NotRunningError(f"no cluster {self.name!r} stands: `up` makes one") from error
        return self._api

    def status(self) -> Status:
        """How the cluster is; phase None when there is none of this name."""
        try:
            state = State.read(self.layout.state)
            settings = Settings.read(self.layout.settings)
        except FileNotFoundError:
            return Status(phase=None, state=State(), settings=None)
        phase: Phase = state.phase if self._has_keeper() else "stopped"
        if phase == "stopped" and not state.problem and state.phase != "stopped":
            state = replace(state, problem=f"the keeper was killed\n{tail(self.layout.log('keeper'))}")
        return Status(phase=phase, state=state, settings=settings)

    def up(self, settings: Settings | None = None) -> float:
        """Start the cluster and wait until it is ready, building programs that are missing. Idempotent.

        Returns: seconds until it was ready, 0 when it was before. Raises: ClusterError; a part that failed is named,
        with the end of its log, and nothing is left running.
        """
        wanted = settings or Settings(name=self.name)
        with self._changing():
            status = self.status()
            if status.is_ready and status.settings:
                if status.settings.level != wanted.level:
                    raise ClusterError(f"{self.name} stands already, at level {status.settings.level}: `down` first")
                return 0.0
            requirements.ensure(wanted.level)
            programs = (*binaries.CONTROL_PLANE, *(binaries.NODE if wanted.is_node else ()))
            binaries.ensure(program.name for program in programs)
            self._remove()
            began = time.monotonic()
            self._start(wanted)
            return time.monotonic() - began

    def down(self) -> None:
        """Stop the cluster and remove all of it. Idempotent. Raises: ClusterError when something is left."""
        with self._changing():
            self._remove()
        locks.remove_if_free(self.layout.change_lock)

    def down_if_unused(self) -> None:
        """Stop and remove a leased cluster unless somebody holds its lease."""
        with self._changing():
            # Within: who takes the lease after this look waits in `up` until the old cluster is gone.
            if locks.remove_if_free(self.layout.lease):
                self._remove()
        locks.remove_if_free(self.layout.change_lock)

    def close(self) -> None:
        """Close this object's connections to the API server; the cluster goes on."""
        if self._api is not None:
            self._api.close()
            self._api = None

    def stop_part(self, part: str, *, kill: bool = False) -> None:
        """Stop one part, as a fault; the others go on."""
        control.ask(self.layout.control_socket, "kill" if kill else "stop", part)

    def start_part(self, part: str) -> None:
        """Start a stopped part again and wait until it is ready."""
        control.ask(self.layout.control_socket, "start", part)

    def require_ready(self) -> None:
        """Raises: NotRunningError, or PartFailedError that names the part which is not well."""
        status = self.status()
        if status.phase is None or status.phase == "stopped":
            raise NotRunningError(status.state.problem or f"no cluster {self.name!r} stands: `up` makes one")
        if not status.is_ready:
            raise PartFailedError(status.state.problem or f"{self.name} is not ready: {status.phase}")

    def kubectl(self, *arguments: str, text: str = "") -> str:
        """Run kubectl against this cluster. Returns: what it printed. Raises: CalledProcessError."""
        cache = self.layout.folder / "kubectl-cache"  # else below the home folder, or here where there is none
        command = [str(binary("kubectl")), f"--kubeconfig={self.kubeconfig}", f"--cache-dir={cache}", *arguments]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command that runs `command` inside the node's namespaces. Node level, root."""
        self.require_ready()
        return ["nsenter", f"--target={self.status().state.pid}", "--mount", "--net", "--pid", "--", *command]

    @contextmanager
    def reachable_from_pods(self, port: int) -> Iterator[str]:
        """Let pods reach a server on this machine's loopback. Yields: the host:port they dial. Node level, root."""
        self.require_ready()
        inside, to = f"--inside={self.status().state.pid}", f"--to={LOOPBACK}:{port}"
        command = [sys.executable, "-m", "testcluster.gateway", inside, f"--listen={NODE_ADDRESS}:0", to]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_environment()) as process:
            try:
                line = process.stdout.readline().strip() if process.stdout else ""
                if not line.isdigit():
                    raise ClusterError(f"the gateway to port {port} did not start")
                yield f"{NODE_ADDRESS}:{line}"
            finally:
                process.kill()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with locks.held(self.layout.change_lock):
            yield

    def _has_keeper(self) -> bool:
        return locks.is_held(self.layout.keeper_lock)

    def _start(self, wanted: Settings) -> None:
        settings = replace(wanted, name=self.name, api_port=free_port(), admin_token=secrets.token_hex(16))
        layout = self.layout
        layout.logs.mkdir(parents=True)
        layout.folder.chmod(0o700)
        pki.write_all(layout.pki, _SERVER_NAMES)
        parts.write_files(settings, layout)
        settings.write(layout.settings)
        State().write(layout.state)
        with layout.log("keeper").open("ab") as log:
            command = [sys.executable, "-m", "testcluster.keeper", self.name]
            began = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                start_new_session=True,
                check=False,
            )
        try:
            if began.returncode != 0:
                raise PartFailedError(f"the keeper did not start\n{tail(layout.log('keeper'))}")
            self._wait_until_ready()
        except ClusterError:
            self._stop_keeper()
            raise

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _UP_PATIENCE_S
        while True:
            has_ended = not self._has_keeper()
            state = State.read(self.layout.state)
            if state.phase == "ready":
                return
            if state.phase == "failed":
                raise PartFailedError(state.problem)
            if has_ended:
                raise PartFailedError(f"the keeper ended early\n{tail(self.layout.log('keeper'))}")
            if time.monotonic() > deadline:
                raise PartFailedError(f"{self.name} was not ready after {_UP_PATIENCE_S:g} s")
            time.sleep(_POLL_S)

    def _stop_keeper(self) -> None:
        """End the keeper if it lives; its parts end with it. Control groups go too."""
        pid = self.status().state.pid if self._has_keeper() else 0
        if pid > 0:  # 0 would be this process's own group
            with contextlib.suppress(ProcessLookupError):
                # pid 1 of a namespace takes everything along at once; the other is asked to.
                os.kill(pid, signal.SIGKILL if self._is_node() else signal.SIGTERM)
        deadline = time.monotonic() + _DOWN_PATIENCE_S
        while self._has_keeper():
            if time.monotonic() > deadline:
                raise ClusterError(f"the keeper of {self.name} does not end")
            time.sleep(_POLL_S)
        if self._is_node() and (left := cgroups.remove(self.layout.cgroup)):
            raise ClusterError(f"these control groups are still busy: {', '.join(map(str, left))}")

    def _is_node(self) -> bool:
        try:
            return Settings.read(self.layout.settings).is_node
        except FileNotFoundError:
            return False

    def _remove(self) -> None:
        self.close()
        self._stop_keeper()
        deadline = time.monotonic() + _REMOVE_PATIENCE_S
        while self.layout.folder.exists():  # a leased cluster that ends by itself removes it too, at the same time
            if time.monotonic() > deadline:
                raise ClusterError(f"{self.layout.folder} could not be removed")
            shutil.rmtree(self.layout.folder, ignore_errors=True)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(TOOLS), "PYTHONUNBUFFERED": "1"}


def free_port() -> int:
    """A port of loopback that is free now and that no outgoing connection will take."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port
    raise ClusterError(f"no port of {_PORTS} is free")


def all_names() -> list[str]:
    """The names of the clusters that have a folder."""
    root = Layout("x").folder.parent
    return sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def processes_of(cluster: Cluster) -> list[int]:
    """The pids, as the machine counts, of processes that belong to a cluster: by its folder in their command."""
    mark = str(cluster.layout.folder).encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if mark in path.read_bytes() and processes.is_alive(int(path.parent.name)):
                found.append(int(path.parent.name))
    return found
