"""`pagemill logs` where pods are real: a shell stands in for the worker and says what workers say."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from testcluster.api import MERGE_PATCH, KubeApi, object_path
from testcluster.cluster import Cluster
from testcluster.pytest_plugin import BUSYBOX_IMAGE

from pagemill_cli.testing.command import Told, run_command
from pagemill_core.api.v1alpha1 import API_VERSION
from pagemill_core.work.pod import KIND_LABEL, STEP_LABEL, UID_LABEL, WAVE_LABEL

pytestmark = [pytest.mark.cluster, pytest.mark.node]


def said(message: str, **fields: Any) -> str:
    """The shell's command for a line of a worker's log."""
    return f"echo '{json.dumps({'time': '2026-11-22T12:00:01Z', 'level': 'INFO', 'message': message, **fields})}'"


class Job:
    """A job in a namespace of its own, and pods with the labels that the operator gives."""

    def __init__(self, cluster: Cluster, api: KubeApi, namespace: str) -> None:
        self._cluster = cluster
        self._api = api
        self._namespace = namespace
        spec = {"source": {"images": {"uri": "s3://library/pages/"}}, "output": {"uri": "s3://library/out"}}
        body = {"apiVersion": API_VERSION, "kind": "OcrJob", "metadata": {"name": "comics"}, "spec": spec}
        self._uid = api.call("POST", object_path(API_VERSION, "ocrjobs", namespace), body)["metadata"]["uid"]

    def run(self, name: str, step: str, script: str, wave: int = 0) -> None:
        """Start a pod of this step and wait until it has said its first line or is over."""
        labels = {UID_LABEL: self._uid, KIND_LABEL: "OcrJob", STEP_LABEL: step}
        worker = {"name": "worker", "image": BUSYBOX_IMAGE, "imagePullPolicy": "Never", "args": [script]}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {**labels, **({WAVE_LABEL: str(wave)} if wave else {})}},
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 1,
                "containers": [{**worker, "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}],
                "volumes": [{"name": "tmp", "emptyDir": {}}],
            },
        }
        self._api.call("POST", object_path("v1", "pods", self._namespace), pod)
        place = object_path("v1", "pods", self._namespace, name)
        self._api.wait_for(place, lambda found: found["status"]["phase"] not in ("Pending", "Unknown"), timeout_s=60)

    def end(self, reason: str = "Completed") -> None:
        condition = {"type": "Complete", "status": "True", "reason": reason}
        status = {"observedGeneration": 1, "phase": "Succeeded", "conditions": [condition]}
        place = object_path(API_VERSION, "ocrjobs", self._namespace, "comics", "status")
        self._api.call("PATCH", place, {"status": status}, content_type=MERGE_PATCH)

    def logs(self, *words: object) -> Told:
        environment = {"KUBECONFIG": str(self._cluster.kubeconfig)}
        return run_command("logs", "comics", "-n", self._namespace, *words, environment=environment)


@pytest.fixture
def job(node_cluster: Cluster) -> Iterator[Job]:
    api = node_cluster.api()
    name = f"pagemill-test-{secrets.token_hex(4)}"
    api.call("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    api.wait_for(object_path("v1", "serviceaccounts", name, "default"), lambda found: found is not None)
    yield Job(node_cluster, api, name)
    api.call("DELETE", f"/api/v1/namespaces/{name}")


def test_logs_name_their_pods_and_can_be_narrowed(job: Job) -> None:
    job.run("comics-p", "plan", said("Planned", items=40))
    lines = (said("Committed shard", shardIndex=3), "echo Traceback", said("Committed shard", shardIndex=13))
    job.run("comics-w1", "work", "; ".join(lines), wave=1)
    time.sleep(1)  # the kubelet needs a moment from a container's end to the last of its log

    everything, one_shard = job.logs(), job.logs("--shard", 3)
    one_step, for_programs = job.logs("--step", "plan"), job.logs("-o", "json", "--wave", 1)

    assert everything.out.splitlines() == [
        "comics-p 12:00:01 INFO Planned items=40",
        "comics-w1 12:00:01 INFO Committed shard shardIndex=3",
        "comics-w1 Traceback",
        "comics-w1 12:00:01 INFO Committed shard shardIndex=13",
    ], everything.all
    assert one_shard.out.splitlines() == ["comics-w1 12:00:01 INFO Committed shard shardIndex=3"]
    assert one_step.out.splitlines() == ["comics-p 12:00:01 INFO Planned items=40"]
    found = [json.loads(line) for line in for_programs.out.splitlines()]
    assert [(one["pod"], one["message"]) for one in found] == [
        ("comics-w1", "Committed shard"),
        ("comics-w1", "Traceback"),
        ("comics-w1", "Committed shard"),
    ]


def test_followed_logs_go_on_with_later_pods_until_the_job_ends(job: Job) -> None:
    job.run("comics-p", "plan", f"{said('Planned')}; busybox sleep 3; {said('Done planning')}")

    def later() -> None:
        job.run("comics-w1", "work", f"{said('Committed shard', shardIndex=0)}; busybox sleep 3; {said('Left')}", 1)
        job.end()

    thread = threading.Thread(target=later)
    thread.start()
    told = job.logs("--follow")
    thread.join()

    assert told.status == 0, told.all
    assert [line.split(" INFO ")[1] for line in told.out.splitlines() if line.startswith("comics-p")] == [
        "Planned",
        "Done planning",
    ]
    assert [line.split(" INFO ")[1] for line in told.out.splitlines() if line.startswith("comics-w1")] == [
        "Committed shard shardIndex=0",
        "Left",
    ]


def test_logs_of_a_job_without_pods_say_so(job: Job) -> None:
    told = job.logs()

    assert told.status == 75, told.all
    assert "ocrjob/comics has no pods now: nobody has looked at it yet" in told.err
