"""Pools with an accelerator: their work pods go to the nodes that offer it, and nothing else does."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
from collections.abc import Iterator

import pytest
from testcluster.api import MERGE_PATCH, Json, KubeApi
from testcluster.settings import NODE_NAME
from testcluster.stage import Stage

from pagemill_core.testing import ocr_pages

pytestmark = [pytest.mark.cluster, pytest.mark.node, pytest.mark.s3, pytest.mark.timeout(600)]

GPU = "nvidia.com/gpu"
LABEL = "pagemill-test/pool"
GPU_NODE = "gpu-0"
POOL = {
    "name": "gpu",
    "nodeSelector": {LABEL: "gpu"},
    "tolerations": [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}],
    "accelerator": {"resource": GPU, "count": 1},
    "cpu": "500m",
    "memory": "512Mi",
    "pricePerHour": "2.50",
}


@pytest.fixture
def gpu_stage(empty_stage: Stage) -> Stage:
    """An operator that offers a pool `gpu` beside `cpu`, and four pages to read."""
    values = empty_stage.values()
    values["config"]["pools"].append(POOL)
    empty_stage.install(values)
    empty_stage.put_pages({f"page_{number}.png": ocr_pages.note(number).as_bytes() for number in range(4)})
    return empty_stage


def job(stage: Stage, name: str, pool: str) -> Json:
    workers = {"parallelism": 1, "pool": pool}
    engine = {"name": "tesseract", "languages": ["en"]}
    return stage.job(name, workers=workers, engine=engine, sharding={"itemsPerShard": 4})


def pods_of(stage: Stage, step: str, name: str) -> list[Json]:
    return stage.pods(f"pagemill.dev/job={name},pagemill.dev/step={step}")


def asks_for_gpu(pod: Json) -> bool:
    return GPU in pod["spec"]["containers"][0]["resources"]["limits"]


@contextlib.contextmanager
def pretended_node(api: KubeApi) -> Iterator[None]:
    """A node with a GPU and a taint, kept Ready by its lease. No kubelet is behind it: its pods never start."""
    room = {"cpu": "4", "memory": "8Gi", "pods": "20", "ephemeral-storage": "20Gi", GPU: "1"}
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": GPU_NODE, "labels": {LABEL: "gpu"}},
        "spec": {"taints": [{"key": GPU, "effect": "NoSchedule"}]},
    }
    api.call("POST", "/api/v1/nodes", node)
    over = threading.Event()

    def keep_alive() -> None:
        while True:
            now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            ready = {"type": "Ready", "status": "True", "reason": "Pretended", "lastHeartbeatTime": now}
            status = {"capacity": room, "allocatable": room, "conditions": [ready]}
            api.call("PATCH", f"/api/v1/nodes/{GPU_NODE}/status", {"status": status}, content_type=MERGE_PATCH)
            if over.wait(5.0):
                return

    keeper = threading.Thread(target=keep_alive)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
        api.call("DELETE", f"/api/v1/nodes/{GPU_NODE}")


def test_node_with_a_gpu_gets_the_work_of_its_pool_and_only_that(gpu_stage: Stage) -> None:
    stage = gpu_stage
    with pretended_node(stage.api):
        stage.apply(job(stage, "fast", "gpu"))
        stage.apply(job(stage, "plain", "cpu"))
        stage.until_phase("Succeeded", name="plain", most_s=200)
        stage.until(lambda _: any(pod["spec"].get("nodeName") for pod in pods_of(stage, "work", "fast")), name="fast")

        (work,) = pods_of(stage, "work", "fast")
        others = [pod for pod in stage.pods() if pod["metadata"]["name"] != work["metadata"]["name"]]
    assert work["spec"]["nodeName"] == GPU_NODE
    assert asks_for_gpu(work)
    assert {pod["spec"]["nodeName"] for pod in others} == {NODE_NAME}
    assert not any(asks_for_gpu(pod) for pod in others)


def test_job_of_a_gpu_pool_waits_for_a_node_and_runs_once_there_is_one(gpu_stage: Stage) -> None:
    stage = gpu_stage
    stage.apply(job(stage, "fast", "gpu"))
    stage.until(lambda status: "Unschedulable" in status.model_dump_json(), name="fast")

    node, offered = f"/api/v1/nodes/{NODE_NAME}", {GPU: "1"}
    stage.api.call("PATCH", node, {"metadata": {"labels": {LABEL: "gpu"}}}, content_type=MERGE_PATCH)
    try:
        status = {"status": {"capacity": offered, "allocatable": offered}}
        stage.api.call("PATCH", f"{node}/status", status, content_type=MERGE_PATCH)
        stage.until_phase("Succeeded", name="fast", most_s=200)
    finally:
        stage.api.call("PATCH", node, {"metadata": {"labels": {LABEL: None}}}, content_type=MERGE_PATCH)
    assert stage.status("fast").done == "4/4"
