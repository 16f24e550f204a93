"""Pods on a real API server that nobody runs: this plays kubelet and worker image for one namespace.

Layer: `operator.testing`. A script does what workers do, such as `FakePods`; here it is reported as a kubelet would.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from pagemill_core.work.pod import MANAGED_BY, MANAGED_BY_LABEL, PodTask
from pagemill_operator.cluster import PODS, Address
from pagemill_operator.testing.fake_jobs import job_json_of, task_of

Json = Any
MERGE_PATCH = "application/merge-patch+json"
STEP_EVERY_S = 0.2


class Answer(Protocol):
    """What a server said to one request."""

    @property
    def status(self) -> int: ...

    @property
    def is_error(self) -> bool: ...

    @property
    def message(self) -> str: ...


class PlainApi(Protocol):
    """An API server in plain requests, such as the test cluster's `KubeApi`."""

    def ask(self, method: str, path: str, body: Json = None, *, content_type: str = ..., **query: object) -> Answer: ...

    def call(self, method: str, path: str, body: Json = None, *, content_type: str = ..., **query: object) -> Json: ...

    def read_or_none(self, path: str) -> Json | None: ...


class Ended(Protocol):
    """How a pod's container ended."""

    @property
    def code(self) -> int: ...

    @property
    def words(self) -> str: ...


class Script(Protocol):
    """What containers do."""

    def step(self, pod: str, task: PodTask, job_json: str) -> Ended | None:
        """Let a pod work for a moment. Returns: how it ended, None while it goes on."""


class PlayedPods(threading.Thread):
    """Takes each pod of the namespace on, steps it, and reports how it ended. `errors` are the server's refusals.

    `gone` hears of each pod that was deleted: no node runs these pods, so the server removes them at once.
    """

    def __init__(
        self, api: PlainApi, namespace: str, script: Script, gone: Callable[[str], None] = lambda _: None
    ) -> None:
        super().__init__(daemon=True)
        self._api = api
        self._namespace = namespace
        self._script = script
        self._gone = gone
        self._known: set[str] = set()
        self._over = threading.Event()
        self.errors: list[str] = []

    def run(self) -> None:
        while not self._over.wait(STEP_EVERY_S):
            query = {"labelSelector": f"{MANAGED_BY_LABEL}={MANAGED_BY}"}
            found = self._api.call("GET", Address(PODS, self._namespace).path, **query)["items"]
            names = {pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]}
            for name in self._known - names:
                self._gone(name)
            self._known = names
            for pod in found:
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
        place = Address(PODS, self._namespace, name, "status").path
        answer = self._api.ask("PATCH", place, {"status": status}, content_type=MERGE_PATCH)
        if answer.is_error and answer.status != 404:
            self.errors.append(answer.message)
