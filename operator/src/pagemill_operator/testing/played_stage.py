"""The operator's own process against a real API server and Job controller, in a namespace whose pods are played.

Layer: `operator.testing`. The process is the real one, with a service account that has exactly the rights it documents;
it works on a real object store and may be killed at will. Only kubelet and worker image are missing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from pagemill_core.api.v1alpha1 import API_VERSION, JobStatus
from pagemill_core.clock import SystemClock
from pagemill_core.storage.open import open_store
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.testing.seaweed import SeaweedServer
from pagemill_operator.cluster import JOBS, PLURALS, WORKLOADS, Address
from pagemill_operator.testing.fake_pods import FakePods
from pagemill_operator.testing.played_pods import MERGE_PATCH, Json, PlainApi, PlayedPods

# What the operator does, and nothing else; the chart's Role says the same.
RULES: list[Json] = [
    {"apiGroups": ["pagemill.dev"], "resources": ["ocrjobs", "embeddingjobs"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": ["pagemill.dev"], "resources": ["ocrjobs", "embeddingjobs"], "verbs": ["delete"]},
    {"apiGroups": ["pagemill.dev"], "resources": ["ocrjobs/status", "embeddingjobs/status"], "verbs": ["patch"]},
    {
        "apiGroups": ["batch"],
        "resources": ["jobs"],
        "verbs": ["get", "list", "watch", "create", "patch", "delete"],
    },
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
]
QUEUE_RULES: list[Json] = [
    {"apiGroups": ["kueue.x-k8s.io"], "resources": [WORKLOADS.rpartition("/")[2]], "verbs": ["list", "patch"]}
]
_RBAC = "rbac.authorization.k8s.io/v1"
_ACCOUNTS = "v1/serviceaccounts"


class PlayedStage:
    """One namespace with an operator process, its S3 server and its pods. `name` is the job that most methods mean."""

    def __init__(self, api: PlainApi, kubeconfig: Path, namespace: str, server: SeaweedServer, folder: Path) -> None:
        self.api = api
        self.namespace = namespace
        self.folder = folder
        self.name = "comics"
        self.bucket = server.fresh_bucket()
        self.endpoint = server.endpoint
        self.store_settings: S3Settings = server.server.settings("worker")
        self._administrator = kubeconfig
        self._process: subprocess.Popen[bytes] | None = None
        self.script = FakePods(lambda uri: open_store(uri, self.store_settings), SystemClock())
        self.pods = PlayedPods(api, namespace, self.script)
        self._write_store_secret()
        self.configure()
        self.write_kubeconfig(folder / "kubeconfig", "operator", RULES)

    # -- the operator -------------------------------------------------------------------------------------------------

    def configure(self, **settings: Any) -> None:
        """Write the operator's settings, those given over the usual ones; a process reads them when it starts."""
        given = {
            "pools": [{"name": "cpu", "pricePerHour": "3600"}],
            "images": {"default": "worker@sha256:1"},
            "outputs": {"*": [f"s3://{self.bucket}/"]},
            "allowedEndpoints": [self.endpoint],
            "stores": [{"endpoint": self.endpoint, "secretPath": str(self.folder / "store")}],
            **settings,
        }
        (self.folder / "operator.yaml").write_text(yaml.safe_dump(given))

    def start(self) -> None:
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.folder / "kubeconfig"),
            "PAGEMILL_CONFIG_PATH": str(self.folder / "operator.yaml"),
            "PAGEMILL_NAMESPACES": self.namespace,
            "PAGEMILL_PORT": "0",
            "PAGEMILL_RESYNC_EVERY_S": "5",
        }
        with (self.folder / "operator.log").open("ab") as log:
            command = [sys.executable, "-m", "pagemill_operator.main"]
            self._process = subprocess.Popen(command, env=environment, stderr=log)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def terminate(self) -> int:
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(20)

    def send(self, number: int) -> None:
        """Send the process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, most_s: float) -> int:
        """The exit status of a process that ends by itself. Raises: subprocess.TimeoutExpired."""
        assert self._process is not None
        return self._process.wait(most_s)

    def log(self) -> list[Json]:
        return [json.loads(line) for line in (self.folder / "operator.log").read_text().splitlines()]

    def get(self, path: str) -> str:
        """What the operator's own port serves."""
        port = next(line["port"] for line in reversed(self.log()) if line["message"] == "Started")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    # -- a person -----------------------------------------------------------------------------------------------------

    def address(self, kind: str = "OcrJob", subresource: str = "") -> str:
        """The path of the job."""
        return Address(PLURALS[kind], self.namespace, self.name, subresource).path

    def job(self, **spec: Any) -> Json:
        """An OcrJob that is right, with these parts of its spec."""
        return {
            "apiVersion": API_VERSION,
            "kind": "OcrJob",
            "metadata": {"name": self.name},
            "spec": {
                "source": {"manifest": {"uri": "s3://library/manifest.csv"}},
                "output": {"uri": f"s3://{self.bucket}/out"},
                "storage": {"endpoint": self.endpoint},
                "workers": {"parallelism": 2},
                **spec,
            },
        }

    def apply(self, **spec: Any) -> None:
        place = Address(PLURALS["OcrJob"], self.namespace).path
        self.api.call("POST", place, self.job(**spec), fieldValidation="Strict")

    def patch(self, spec: Json, subresource: str = "") -> None:
        self.api.call("PATCH", self.address(subresource=subresource), {"spec": spec}, content_type=MERGE_PATCH)

    def delete(self) -> None:
        self.api.call("DELETE", self.address())

    def status(self, kind: str = "OcrJob") -> JobStatus:
        job = self.api.read_or_none(self.address(kind))
        return JobStatus.model_validate((job or {}).get("status") or {})

    def jobs(self) -> list[Json]:
        found: list[Json] = self.api.call("GET", Address(JOBS, self.namespace).path)["items"]
        return found

    def until(self, holds: Callable[[JobStatus], bool], most_s: float = 60.0, kind: str = "OcrJob") -> float:
        started = time.monotonic()
        while not holds(self.status(kind)):
            if time.monotonic() - started > most_s:
                told = f"{self.status(kind)}; {self.log()[-5:]}; {self.pods.errors}"
                raise AssertionError(f"after {most_s} s: {told}")
            time.sleep(0.1)
        return time.monotonic() - started

    def until_phase(self, phase: str, most_s: float = 60.0) -> float:
        return self.until(lambda status: status.phase == phase, most_s)

    # -- rights -------------------------------------------------------------------------------------------------------

    def write_kubeconfig(self, path: Path, account: str, rules: Sequence[Json]) -> Path:
        """Credentials of a service account of the namespace that may do what `rules` say, and nothing else.

        Made again, it has these rules instead.
        """
        subject = {"kind": "ServiceAccount", "name": account, "namespace": self.namespace}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account}
        self._put(_ACCOUNTS, account, {"kind": "ServiceAccount"})
        self._put(f"{_RBAC}/roles", account, {"kind": "Role", "rules": list(rules)})
        self._put(f"{_RBAC}/rolebindings", account, {"kind": "RoleBinding", "roleRef": role, "subjects": [subject]})
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        place = Address(_ACCOUNTS, self.namespace, account, "token").path
        token = self.api.call("POST", place, request)["status"]["token"]
        config = yaml.safe_load(self._administrator.read_text(encoding="utf-8"))
        for user in config["users"]:
            user["user"] = {"token": token}
        for context in config["contexts"]:
            context["context"]["namespace"] = self.namespace
        path.write_text(yaml.safe_dump(config))
        return path

    def _put(self, resource: str, name: str, body: Json) -> None:
        whole = {"apiVersion": resource.rpartition("/")[0], "metadata": {"name": name}, **body}
        place = Address(resource, self.namespace, name).path
        query = {"fieldManager": "stage", "force": True}
        self.api.call("PATCH", place, whole, content_type="application/apply-patch+yaml", **query)

    def _write_store_secret(self) -> None:
        secret = self.folder / "store"
        secret.mkdir()
        (secret / "accessKey").write_text(self.store_settings.access_key)
        (secret / "secretKey").write_text(self.store_settings.secret_key.get_secret_value())
