"""The operator's own process against a real API server and a real Job controller; pods are played by this test.

It runs as a service account with exactly the rights it documents, against a real S3 server, and is killed at will.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from testcluster.api import MERGE_PATCH, Json, KubeApi, object_path
from testcluster.pytest_plugin import Kubernetes

from pagemill_core.api.v1alpha1 import JobStatus
from pagemill_core.clock import SystemClock
from pagemill_core.errors import SourceError
from pagemill_core.storage.open import open_store
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.testing.seaweed import SeaweedServer
from pagemill_core.work.pod import MANAGED_BY, MANAGED_BY_LABEL
from pagemill_operator.testing.fake_jobs import job_json_of, task_of
from pagemill_operator.testing.fake_pods import FakePods, Habits

pytestmark = [pytest.mark.cluster, pytest.mark.s3]

API_VERSION = "pagemill.dev/v1alpha1"
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


class Pods(threading.Thread):
    """Plays the kubelet and the worker image for one namespace: takes each pod on, steps it, reports how it ended."""

    def __init__(self, api: KubeApi, namespace: str, script: FakePods) -> None:
        super().__init__(daemon=True)
        self._api = api
        self._namespace = namespace
        self._script = script
        self._over = threading.Event()
        self.errors: list[str] = []

    def run(self) -> None:
        while not self._over.wait(0.2):
            query = {"labelSelector": f"{MANAGED_BY_LABEL}={MANAGED_BY}"}
            for pod in self._api.call("GET", object_path("v1", "pods", self._namespace), **query)["items"]:
                if pod["status"].get("phase") in ("Pending", "Running") and "deletionTimestamp" not in pod["metadata"]:
                    self._step(pod)

    def stop(self) -> None:
        self._over.set()
        self.join()

    def _step(self, pod: Json) -> None:
        name = pod["metadata"]["name"]
        if pod["status"]["phase"] == "Pending":
            self._report(name, "Running", {"running": {}})
            return
        index = int(pod["metadata"].get("annotations", {}).get("batch.kubernetes.io/job-completion-index", "0"))
        ended = self._script.step(name, task_of(pod, index, name), job_json_of(pod))
        if ended is not None:
            state = {"terminated": {"exitCode": ended.code, "message": ended.words}}
            self._report(name, "Failed" if ended.code else "Succeeded", state)

    def _report(self, name: str, phase: str, state: Json) -> None:
        container = {"name": "worker", "image": "x", "imageID": "x", "restartCount": 0, "state": state}
        is_ready = phase == "Running"
        status = {
            "phase": phase,
            "conditions": [{"type": "Ready", "status": str(is_ready)}],
            "containerStatuses": [{**container, "ready": is_ready}],
        }
        place = object_path("v1", "pods", self._namespace, name, "status")
        answer = self._api.ask("PATCH", place, {"status": status}, content_type=MERGE_PATCH)
        if answer.is_error and answer.status != 404:
            self.errors.append(answer.message)


class Stage:
    """One namespace with an operator, its S3 server and its pods."""

    def __init__(self, kubernetes: Kubernetes, namespace: str, server: SeaweedServer, folder: Path) -> None:
        self.api = kubernetes.api
        self.namespace = namespace
        self.folder = folder
        self.bucket = server.fresh_bucket()
        self.endpoint = server.endpoint
        self._settings: S3Settings = server.server.settings("worker")
        self._process: subprocess.Popen[bytes] | None = None
        self.script = FakePods(lambda uri: open_store(uri, self._settings), SystemClock())
        self.pods = Pods(self.api, namespace, self.script)
        self._write_settings()
        self._write_kubeconfig(kubernetes.kubeconfig)

    # -- the operator -------------------------------------------------------------------------------------------------

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

    def log(self) -> list[Json]:
        return [json.loads(line) for line in (self.folder / "operator.log").read_text().splitlines()]

    def get(self, path: str) -> str:
        """What the operator's own port serves."""
        port = next(line["port"] for line in reversed(self.log()) if line["message"] == "Started")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    # -- a person -----------------------------------------------------------------------------------------------------

    def apply(self, **spec: Any) -> None:
        job = {
            "apiVersion": API_VERSION,
            "kind": "OcrJob",
            "metadata": {"name": "comics"},
            "spec": {
                "source": {"manifest": {"uri": "s3://library/manifest.csv"}},
                "output": {"uri": f"s3://{self.bucket}/out"},
                "storage": {"endpoint": self.endpoint},
                "workers": {"parallelism": 2},
                **spec,
            },
        }
        self.api.call("POST", object_path(API_VERSION, "ocrjobs", self.namespace), job, fieldValidation="Strict")

    def patch(self, spec: Json, subresource: str = "") -> None:
        place = object_path(API_VERSION, "ocrjobs", self.namespace, "comics", subresource)
        self.api.call("PATCH", place, {"spec": spec}, content_type=MERGE_PATCH)

    def delete(self) -> None:
        self.api.call("DELETE", object_path(API_VERSION, "ocrjobs", self.namespace, "comics"))

    def status(self) -> JobStatus:
        job = self.api.read_or_none(object_path(API_VERSION, "ocrjobs", self.namespace, "comics"))
        return JobStatus.model_validate((job or {}).get("status") or {})

    def jobs(self) -> list[Json]:
        found: list[Json] = self.api.call("GET", object_path("batch/v1", "jobs", self.namespace))["items"]
        return found

    def until(self, holds: Callable[[JobStatus], bool], most_s: float = 60.0) -> float:
        started = time.monotonic()
        while not holds(self.status()):
            if time.monotonic() - started > most_s:
                raise AssertionError(f"after {most_s} s: {self.status()}; {self.log()[-5:]}; {self.pods.errors}")
            time.sleep(0.1)
        return time.monotonic() - started

    def until_phase(self, phase: str, most_s: float = 60.0) -> float:
        return self.until(lambda status: status.phase == phase, most_s)

    # -- setting up ---------------------------------------------------------------------------------------------------

    def _write_settings(self) -> None:
        secret = self.folder / "store"
        secret.mkdir()
        (secret / "accessKey").write_text(self._settings.access_key)
        (secret / "secretKey").write_text(self._settings.secret_key.get_secret_value())
        given = {
            "pools": [{"name": "cpu", "pricePerHour": "3600"}],
            "images": {"default": "worker@sha256:1"},
            "outputs": {"*": [f"s3://{self.bucket}/"]},
            "allowedEndpoints": [self.endpoint],
            "stores": [{"endpoint": self.endpoint, "secretPath": str(secret)}],
        }
        (self.folder / "operator.yaml").write_text(yaml.safe_dump(given))

    def _write_kubeconfig(self, administrator: Path) -> None:
        """Credentials of a service account that may do what RULES say."""
        for version, plural, body in (
            ("v1", "serviceaccounts", {"kind": "ServiceAccount"}),
            ("rbac.authorization.k8s.io/v1", "roles", {"kind": "Role", "rules": RULES}),
            (
                "rbac.authorization.k8s.io/v1",
                "rolebindings",
                {
                    "kind": "RoleBinding",
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator"},
                    "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": self.namespace}],
                },
            ),
        ):
            place = object_path(version, plural, self.namespace)
            self.api.call("POST", place, {"apiVersion": version, "metadata": {"name": "operator"}, **body})
        place = object_path("v1", "serviceaccounts", self.namespace, "operator", "token")
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        token = self.api.call("POST", place, request)["status"]["token"]
        config = yaml.safe_load(administrator.read_text(encoding="utf-8"))
        for user in config["users"]:
            user["user"] = {"token": token}
        (self.folder / "kubeconfig").write_text(yaml.safe_dump(config))


@pytest.fixture(scope="module")
def s3_server() -> Iterator[SeaweedServer]:
    with SeaweedServer() as server:
        yield server


@pytest.fixture
def stage(kubernetes: Kubernetes, namespace: str, s3_server: SeaweedServer, tmp_path: Path) -> Iterator[Stage]:
    found = Stage(kubernetes, namespace, s3_server, tmp_path)
    found.pods.start()
    yield found
    found.kill()
    found.pods.stop()
    assert found.pods.errors == []


def check_every_shard_once(stage: Stage) -> None:
    counts = stage.script.commits
    assert {shard for _, shard in counts} == set(range(stage.script.habits.shards))
    assert set(counts.values()) == {1}


def test_job_applied_completes_with_the_documented_rights(stage: Stage) -> None:
    stage.script.habits = Habits(items=80, bad_shards={3: 1})
    stage.start()
    stage.apply()

    stage.until_phase("Succeeded", 120)

    check_every_shard_once(stage)
    status = stage.status()
    assert status.done == "80/80"
    assert [condition.type for condition in status.conditions][:2] == ["Accepted", "Planned"]
    assert sorted(job["metadata"]["name"][-2:] for job in stage.jobs()) == ["-f", "-p", "w1", "w2"]
    assert 'pagemill_operator_jobs{kind="OcrJob",phase="Succeeded"} 1' in stage.get("/metrics")
    assert stage.get("/readyz") == "ok\n"
    assert stage.terminate() == 0
    errors = [line for line in stage.log() if line["level"] in ("WARNING", "ERROR")]
    assert errors == []


def test_finished_job_is_not_touched_by_a_new_operator(stage: Stage) -> None:
    stage.start()
    stage.apply()
    stage.until_phase("Succeeded", 120)
    place = object_path(API_VERSION, "ocrjobs", stage.namespace, "comics")
    before = stage.api.call("GET", place)["metadata"]["resourceVersion"]
    stage.kill()

    stage.start()
    time.sleep(8)

    assert stage.api.call("GET", place)["metadata"]["resourceVersion"] == before


def test_operator_killed_suspended_scaled_and_applied_again_converges(stage: Stage) -> None:
    stage.script.habits = Habits(items=600, bad_shards={5: 1})
    rng = random.Random(5)
    stage.start()
    stage.apply(workers={"parallelism": 3})
    stage.until_phase("Running", 60)

    def strike() -> None:
        time.sleep(rng.uniform(0.2, 4.0))
        stage.kill()
        stage.start()

    strike()
    stage.patch({"suspend": True})
    strike()
    stage.until_phase("Suspended", 30)
    stage.patch({"suspend": False})
    strike()
    stage.patch({"replicas": 6}, "scale")
    work = next(job["metadata"]["name"] for job in stage.jobs() if "-w" in job["metadata"]["name"])
    stage.api.call("DELETE", object_path("batch/v1", "jobs", stage.namespace, work), propagationPolicy="Background")
    strike()
    stage.delete()
    stage.apply(workers={"parallelism": 3})
    strike()
    took_s = stage.until(lambda status: status.planned_at is not None, 30)

    stage.until_phase("Succeeded", 200)
    check_every_shard_once(stage)
    assert stage.script.plans == 1
    assert took_s < 30


def test_plan_error_is_told_and_an_edit_tries_again(stage: Stage) -> None:
    stage.script.habits.plan_error = SourceError("manifest.csv, line 7: 3 fields, 4 expected", advice="mend the line")
    stage.start()
    stage.apply()

    stage.until_phase("Failed", 60)

    status = stage.status()
    failed = status.condition("Failed")
    assert failed is not None
    assert (failed.reason, status.message) == ("Source", "manifest.csv, line 7: 3 fields, 4 expected; mend the line")
    stage.script.habits.plan_error = None
    stage.patch({"maxItems": 30})
    stage.until_phase("Succeeded", 120)


def test_spec_that_is_no_pod_is_told(stage: Stage) -> None:
    stage.start()
    stage.apply(workers={"resources": {"requests": {"cpu": "4"}, "limits": {"cpu": "1"}}})

    stage.until_phase("Failed", 60)

    failed = stage.status().condition("Failed")
    assert failed is not None
    assert failed.reason == "InvalidSpec"
    assert "must be less than or equal to cpu limit" in failed.message
