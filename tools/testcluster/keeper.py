"""The process that starts a cluster's parts, notices when one dies, and takes all of them along when it goes.

Why it exists: a cluster must never outlive the one who looks after it. Parts die with the keeper, by the kernel's hand
if need be; at the node level the keeper is also pid 1 of the cluster's namespaces, which end with it.
Layer: project tooling; run as `python -m testcluster.keeper FOLDER` by `Cluster.up`. It speaks through state.json and
a socket, see `control`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping
from http.client import HTTPException

from testcluster import control, locks, node, parts, processes
from testcluster.api import KubeApi
from testcluster.errors import ClusterError, PartFailedError, tail
from testcluster.layout import Layout
from testcluster.parts import Part, Stage
from testcluster.settings import Settings, State

_POLL_S = 0.05
_LEASE_CHECK_S = 1.0
_STOP_PATIENCE_S = 20.0
_KILL_PATIENCE_S = 5.0


class Keeper:
    """Starts the stages one after another and then waits for commands and deaths. One thread, one instance."""

    def __init__(self, settings: Settings, layout: Layout, pid: int) -> None:
        self._settings = settings
        self._layout = layout
        self._state = State(pid=pid)
        self._parts: dict[str, Part] = {}
        self._pids: dict[int, str] = {}
        self._is_ending = False
        self._lease_checked_at = time.monotonic()

    def run(self, stages: list[Stage], listening: socket.socket) -> None:
        """Start everything, serve until told to end or nobody uses the cluster any more, and take all parts along."""
        listening.settimeout(_POLL_S)
        self._save()  # from here on, who wants to stop us knows our pid
        began = time.monotonic()
        try:
            for stage in stages:
                self._start_stage(stage)
        except (ClusterError, OSError) as error:
            self._fail(str(error))
        else:
            self._state.phase = "ready"
            self._state.ready_after_s = round(time.monotonic() - began, 2)
            self._save()
        while not self._is_ending:
            self._serve_one(listening)
            self._notice_deaths()
            self._check_lease()
        self._stop_everything()
        self._state.phase = "stopped"
        self._save()

    def end(self, *_: object) -> None:
        """Have `run` return soon; a signal handler."""
        self._is_ending = True

    def _stop_everything(self) -> None:
        """Kill all parts; what they wrote is thrown away, so none needs time to say goodbye."""
        for pid, name in self._pids.items():
            self._state.parts[name] = "stopped"
            os.kill(pid, signal.SIGKILL)
        for pid in list(self._pids):
            self._collected(pid, _KILL_PATIENCE_S)

    def _start_stage(self, stage: Stage) -> None:
        if stage.before:
            stage.before()
        for part in stage.parts:
            self._start(part)
        for part in stage.parts:
            self._wait_for(part.name, part.is_ready)
        self._wait_for(stage.last, stage.until)
        self._notice_deaths()
        if self._state.problem:
            raise PartFailedError(self._state.problem)
        for part in stage.parts:
            self._state.parts[part.name] = "running"
        self._save()

    def _start(self, part: Part) -> None:
        self._parts[part.name] = part
        log = self._layout.log(part.name)
        environment = {**_plain_environment(), **part.environment}
        pid = processes.start(part.command, log=log, folder=self._layout.folder, environment=environment, fd=part.fd)
        self._pids[pid] = part.name
        self._state.parts[part.name] = "starting"
        self._state.pids[part.name] = pid
        self._save()

    def _wait_for(self, name: str, check: parts.Check | None) -> None:
        """Raises: PartFailedError when a part dies meanwhile, or the check does not hold in time."""
        deadline = time.monotonic() + parts.READY_PATIENCE_S
        while check is not None and not _holds(check):
            self._notice_deaths()
            if self._state.problem:
                raise PartFailedError(self._state.problem)
            if self._is_ending:
                raise ClusterError("stopped while it started")
            if time.monotonic() > deadline:
                end = tail(self._layout.log(name))
                raise PartFailedError(f"{name} was not ready after {parts.READY_PATIENCE_S:g} s\n{end}")
            time.sleep(_POLL_S)

    def _notice_deaths(self) -> None:
        for ended in processes.collect():
            name = self._pids.pop(ended.pid, "")
            if not name or self._state.parts.get(name) == "stopped":
                continue  # an orphan of a pod, or a part that was told to stop
            self._state.parts[name] = "dead"
            self._fail(f"{name} died with {ended.how}\n{tail(self._layout.log(name))}")

    def _fail(self, problem: str) -> None:
        self._state.phase = "failed"
        self._state.problem = self._state.problem or problem
        self._save()

    def _save(self) -> None:
        self._state.write(self._layout.state)

    def _check_lease(self) -> None:
        """End when the cluster is leased and nobody holds the lease any more."""
        if not self._settings.is_leased or time.monotonic() < self._lease_checked_at + _LEASE_CHECK_S:
            return
        self._lease_checked_at = time.monotonic()
        self._is_ending = not locks.is_held(self._layout.lease)

    def _serve_one(self, listening: socket.socket) -> None:
        try:
            connection, _ = listening.accept()
        except TimeoutError:
            return
        with connection:
            try:
                request = control.read(connection)
                self._do(request["do"], request["part"])
                control.write(connection, {"problem": ""})
            except (ClusterError, OSError, ValueError, KeyError) as error:
                control.write(connection, {"problem": str(error) or type(error).__name__})

    def _do(self, verb: str, name: str) -> None:
        part = self._parts.get(name)
        if part is None:
            raise ClusterError(f"no part is called {name!r}; there are {', '.join(self._parts)}")
        if verb in ("stop", "kill"):
            self._stop(name, signal.SIGKILL if verb == "kill" else signal.SIGTERM)
        elif verb == "start":
            if self._state.parts[name] in ("running", "starting"):
                raise ClusterError(f"{name} runs already")
            self._start(part)
            self._state.problem = ""
            self._wait_for(name, part.is_ready)
            self._state.parts[name] = "running"
            if "dead" not in self._state.parts.values():
                self._state.phase = "ready"
            self._save()
        else:
            raise ClusterError(f"{verb!r} is neither start, stop nor kill")

    def _stop(self, name: str, number: signal.Signals) -> None:
        self._state.parts[name] = "stopped"
        self._save()
        for pid in [pid for pid, other in self._pids.items() if other == name]:
            os.kill(pid, number)
            if not self._collected(pid, _STOP_PATIENCE_S):
                os.kill(pid, signal.SIGKILL)
                self._collected(pid, _KILL_PATIENCE_S)

    def _collected(self, pid: int, timeout_s: float) -> bool:
        """Wait for the end of a part until the kernel has handed it over; only then may a new one take its name."""
        deadline = time.monotonic() + timeout_s
        while pid in self._pids:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
            self._notice_deaths()
        return True


def _holds(check: parts.Check) -> bool:
    try:
        return check()
    except (OSError, ValueError, HTTPException):  # not there yet, or half an answer
        return False


def _plain_environment() -> Mapping[str, str]:
    """The path and the home, and nothing that could change what a part does, such as a proxy or another KUBECONFIG."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH", "LANG") if name in os.environ}


def _main_of_control_plane(settings: Settings, layout: Layout, listening: socket.socket) -> None:
    keeper = Keeper(settings, layout, os.getpid())
    _end_on_signals(keeper)
    api = KubeApi.from_kubeconfig(layout.kubeconfig)
    keeper.run(parts.control_plane(settings, layout, api), listening)


def _main_of_node(settings: Settings, layout: Layout, listening: socket.socket) -> None:
    def inside(pid: int, gateway: socket.socket) -> None:
        keeper = Keeper(settings, layout, pid)
        _end_on_signals(keeper)
        keeper.run(node.stages(settings, layout, gateway), listening)

    node.run_isolated(settings, layout, inside)


def _end_on_signals(keeper: Keeper) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, keeper.end)


def main() -> int:
    layout = Layout(sys.argv[1])
    settings = Settings.read(layout.settings)
    with layout.keeper_lock.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with control.listen(layout.control_socket) as listening:
            if os.fork():  # whoever started us need not collect us; the lock and the socket stay with the child
                os._exit(0)
            (_main_of_node if settings.is_node else _main_of_control_plane)(settings, layout, listening)
        if settings.is_leased:  # nobody is left who would call `down`
            shutil.rmtree(layout.folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
