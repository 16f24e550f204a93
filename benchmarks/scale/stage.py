"""The stage: control plane and pretended nodes, an S3 server, the operator's process, the player of its pods.

Layer: `benchmarks.scale`. The operator is the real process with a service account's rights and its usual settings.
"""

from __future__ import annotations

import http.client
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import yaml
from testcluster.api import KubeApi
from testcluster.cluster import TOOLS, Cluster, free_port
from testcluster.lease import leased
from testcluster.pytest_plugin import install_crds
from testcluster.settings import Settings

from benchmarks.harness.place import Place
from benchmarks.harness.processes import BenchmarkError
from benchmarks.scale.follow import Follower
from benchmarks.scale.jobs import Where
from benchmarks.scale.player import PlayerWork
from benchmarks.scale.stories import Stories
from pagemill_core.testing.seaweed import SeaweedServer
from pagemill_operator.cluster import PLURALS, Address
from pagemill_operator.settings import Config, read_config
from pagemill_operator.testing.played_stage import PlayedStage
from pagemill_worker.environment import reveal

NODES = 4
NAMESPACE = "bench"
ACCOUNT = "operator"
REGION = "us-east-1"
PATIENCE_S = 60.0
LOOK_EVERY_S = 0.02
_FINISHING = "pod-of-a-job-succeeds"  # kwok's stage that ends pods by itself: here the player ends them
_WRITES = ("POST", "PATCH", "PUT", "DELETE")


@dataclass(frozen=True, slots=True)
class Operator:
    """A running operator process."""

    process: subprocess.Popen[bytes]
    port: int
    started_s: float

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of what its port answers; status 0 when nothing does yet."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def memory_mib(self, field: str) -> float:
        """A figure of the process's memory: VmRSS now, VmHWM the most so far."""
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
        return int(found[1]) / 1024 if found else 0.0

    def writes(self) -> int:
        """Requests so far that change something in the cluster, whatever was answered."""
        found = re.findall(
            r'pagemill_operator_api_calls_total\{code="\d+",verb="(\w+)"\} (\d+)', self.get("/metrics")[1]
        )
        return sum(int(count) for verb, count in found if verb in _WRITES)


class Stage(PlayedStage):
    """The stage while it stands. Jobs live in one namespace; `stories` tells what became of them."""

    def __init__(self, cluster: Cluster, server: SeaweedServer, folder: Path) -> None:
        super().__init__(cluster.api(), cluster.kubeconfig, NAMESPACE, server, folder)
        self.cluster = cluster
        self.kube: KubeApi = cluster.api()
        self.where = Where(namespace=NAMESPACE, bucket=self.bucket, endpoint=server.endpoint)
        self.stories = Stories()
        self.journal = folder / "commits.txt"
        self._follower = Follower(self.kube, Address(PLURALS["OcrJob"], NAMESPACE).path, self.stories.hear)
        self._player: subprocess.Popen[bytes] | None = None
        self.configure(
            pools=[{"name": "cpu", "cpu": "10m", "memory": "16Mi", "ephemeralStorage": "1Mi", "pricePerHour": "0.04"}],
            stores=[{"endpoint": server.endpoint, "region": REGION, "secretPath": str(folder / "store")}],
        )

    @property
    def config(self) -> Config:
        return read_config(self.folder / "operator.yaml")

    def raise_curtain(self) -> None:
        """Start the watch of the jobs and the player of the pods."""
        self._follower.start()
        self._follower.listed.wait(PATIENCE_S)
        work = PlayerWork(
            kubeconfig=self.cluster.kubeconfig,
            namespace=NAMESPACE,
            journal=self.journal,
            settings=reveal(self.store_settings),
        )
        command = [sys.executable, "-m", "benchmarks.scale.player"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(TOOLS), str(TOOLS.parent)))}
        with (self.folder / "player.log").open("ab") as log:
            self._player = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment
            )
        if self._player.stdin is None or self._player.stdout is None:
            raise BenchmarkError("the player has no pipes")
        self._player.stdin.write(work.model_dump_json().encode())
        self._player.stdin.close()
        if self._player.stdout.readline() != b"ready\n":
            raise BenchmarkError(f"the player did not start: {(self.folder / 'player.log').read_text()[-2000:]}")

    def close(self) -> None:
        self._follower.stop()
        self.kill()
        if self._player is not None:
            self._player.kill()
            self._player.wait()

    def start_operator(self) -> Operator:
        """Start the operator with its usual settings, the served namespace aside."""
        port = free_port()
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PAGEMILL_")},
            "KUBECONFIG": str(self.folder / "kubeconfig"),
            "PAGEMILL_CONFIG_PATH": str(self.folder / "operator.yaml"),
            "PAGEMILL_NAMESPACES": NAMESPACE,
            "PAGEMILL_PORT": str(port),
        }
        command = [sys.executable, "-m", "pagemill_operator.main"]
        with (self.folder / "operator.log").open("ab") as log:
            started_s = time.monotonic()
            self._process = subprocess.Popen(command, env=environment, stderr=log)
        return Operator(self._process, port, started_s)

    def await_ready(self, operator: Operator) -> float:
        """Returns: seconds from its start until it said that it is ready."""
        while operator.get("/readyz")[0] != 200:
            if operator.process.poll() is not None or time.monotonic() - operator.started_s > PATIENCE_S:
                raise BenchmarkError(f"the operator is not ready: {(self.folder / 'operator.log').read_text()[-2000:]}")
            time.sleep(LOOK_EVERY_S)
        return time.monotonic() - operator.started_s

    def cpu_s(self) -> Mapping[str, float]:
        """CPU seconds so far of everything that takes part."""
        pids: dict[str, int] = dict(self.cluster.status().state.pids)
        pids |= {"operator": self._process.pid} if self._process else {}
        pids |= {"player": self._player.pid} if self._player else {}
        pids |= {"measuring": os.getpid()}
        found = {name: _cpu_of(pid) for name, pid in pids.items()}
        return {**found, "S3 server": sum(_cpu_of(one.pid) for one in _weeds())}

    def api_writes(self) -> float:
        """Writes that the API server has done so far for anybody."""
        text = self.kube.call("GET", "/metrics")
        lines = re.findall(r'^apiserver_request_total\{[^}]*verb="(\w+)"[^}]*\} (\S+)$', str(text), re.MULTILINE)
        return sum(float(count) for verb, count in lines if verb in (*_WRITES, "APPLY"))

    def audited_writes(self) -> int:
        """The operator's writes so far by the API server's audit log."""
        user = f'"username":"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"'
        verbs = tuple(f'"verb":"{verb}"' for verb in ("create", "patch", "update", "delete"))
        with (self.cluster.layout.logs / "audit.jsonl").open(encoding="utf-8") as lines:
            return sum(1 for line in lines if user in line and any(verb in line for verb in verbs))


@contextmanager
def raised(place: Place) -> Iterator[Stage]:
    """A stage on a cluster of its own, gone afterwards."""
    folder = place.folder("operator")
    stages = _stages_file(folder)
    settings = Settings(name=f"bench-{secrets.token_hex(3)}", kwok_nodes=NODES, kwok_config=str(stages))
    with ExitStack() as stack:
        cluster = stack.enter_context(leased(settings))
        server = stack.enter_context(SeaweedServer())
        api = cluster.api()
        install_crds(api)
        api.call("POST", "/api/v1/namespaces", {"kind": "Namespace", "metadata": {"name": NAMESPACE}})
        stage = Stage(cluster, server, folder)
        stack.callback(stage.close)
        stage.raise_curtain()
        yield stage


def _stages_file(folder: Path) -> Path:
    """kwok's stages as the tests have them, without the one that ends pods."""
    documents: list[Any] = list(yaml.safe_load_all((TOOLS / "testcluster" / "kwok-stages.yaml").read_text()))
    path = folder / "stages.yaml"
    path.write_text(yaml.safe_dump_all([one for one in documents if one["metadata"]["name"] != _FINISHING]))
    return path


def _cpu_of(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _weeds() -> list[psutil.Process]:
    """The S3 server: this process's child, in a session of its own."""
    return [child for child in psutil.Process().children() if child.name() == "weed"]
