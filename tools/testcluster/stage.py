"""A namespace of a real node with Pagemill installed from its chart, and a real S3 server that its pods reach.

Why it exists: the tests that count run the project's own images in real pods. Layer: project tooling, for tests; it
drives Helm, the API server and the object store as a person would, and looks at the outcome.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pagemill_core.api.v1alpha1 import JobStatus
from pagemill_core.clock import SystemClock
from pagemill_core.storage.embedded_s3 import Identity
from pagemill_core.storage.s3 import S3Store
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.testing.seaweed import SeaweedServer
from pagemill_core.work.conditional import Writer
from testcluster import images, locks
from testcluster.api import MERGE_PATCH, Answer, Json, KubeApi, object_path
from testcluster.cluster import Cluster
from testcluster.layout import binary

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "pagemill"
API_VERSION = "pagemill.dev/v1alpha1"
OPERATOR_IMAGE = "localhost/pagemill/operator"
WORKER_IMAGE = "localhost/pagemill/worker"
TAG = "test"
RELEASE = "pagemill"
OPERATOR_SECRET = "pagemill-operator-store"
JOB_SECRET = "pagemill-library"
_POLL_S = 0.2
_INSTALL_PATIENCE = "120s"


def build_images() -> None:
    """Build both images; nothing to do when nothing changed. Raises: BuildError."""
    for name, image in (("operator", OPERATOR_IMAGE), ("worker", WORKER_IMAGE)):
        images.build_image(ROOT / f"Dockerfile.{name}", f"{image}:{TAG}", context=ROOT)


def load_images(cluster: Cluster) -> None:
    """Load both images into a node, once for all processes that share it. Raises: BuildError."""
    done = cluster.layout.folder / "images-loaded"
    with locks.held(cluster.layout.folder / "images.lock"):
        if not done.exists():
            for image in (OPERATOR_IMAGE, WORKER_IMAGE):
                images.load_image(cluster, f"{image}:{TAG}")
            done.touch()


@dataclass(frozen=True)
class PodS3:
    """An S3 server of the test's: `server` as the test reaches it, `endpoint` as pods do."""

    server: SeaweedServer
    endpoint: str

    def credentials(self, identity: Identity) -> dict[str, str]:
        """What a Secret with an identity's credentials holds."""
        settings = self.server.server.settings(identity)
        return {"accessKey": settings.access_key, "secretKey": settings.secret_key.get_secret_value()}


@contextmanager
def s3_for_pods(cluster: Cluster) -> Iterator[PodS3]:
    """An S3 server that the cluster's pods reach."""
    with SeaweedServer() as server:
        port = int(server.endpoint.rpartition(":")[2])
        with cluster.reachable_from_pods(port) as address:
            yield PodS3(server, f"http://{address}")


@dataclass
class Stage:
    """One namespace with an operator of its own. What it holds goes away with the namespace."""

    cluster: Cluster
    namespace: str
    s3: PodS3
    bucket: str = ""
    api: KubeApi = field(init=False)
    _stores: dict[tuple[str, str], S3Store] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.api = self.cluster.api()
        self.bucket = self.bucket or self.s3.server.fresh_bucket()

    # -- installing ---------------------------------------------------------------------------------------------------

    def secret(self, name: str, values: Mapping[str, str]) -> None:
        """Write a Secret, whatever was in it."""
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}
        self.api.apply(object_path("v1", "secrets", self.namespace, name), body)

    def values(self) -> Json:
        """The chart's values for this stage."""
        local = {"tag": TAG, "pullPolicy": "Never"}
        return {
            "image": {"repository": OPERATOR_IMAGE, **local},
            "worker": {"image": {"repository": WORKER_IMAGE, "tag": TAG}},
            "stores": [{"endpoint": self.s3.endpoint, "region": "us-east-1", "secretName": OPERATOR_SECRET}],
            "config": {
                "pools": [{"name": "cpu", "cpu": "1", "memory": "1Gi", "pricePerHour": "0.10"}],
                "images": {"pullPolicy": "Never"},
                "outputs": {"*": [f"s3://{self.bucket}/"]},
            },
        }

    def install(self, values: Json | None = None) -> None:
        """`helm upgrade --install` and wait until the operator is ready. Raises: AssertionError with Helm's words."""
        self.secret(OPERATOR_SECRET, self.s3.credentials("worker"))
        self.secret(JOB_SECRET, self.s3.credentials("worker"))
        given = json.dumps(values or self.values())
        options = ["--namespace", self.namespace, "--skip-crds", "--wait", "--timeout", _INSTALL_PATIENCE]
        try:
            self.helm("upgrade", "--install", RELEASE, str(CHART), *options, "--values", "-", text=given)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.report()}") from None

    def helm(self, *words: str, text: str = "") -> str:
        """Run Helm against this cluster. Returns: what it printed. Raises: AssertionError with its complaint."""
        folder = self.cluster.layout.folder / "helm"
        places = {f"HELM_{name}_HOME": str(folder / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        command = [str(binary("helm")), f"--kubeconfig={self.cluster.kubeconfig}", *words]
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, check=False, env={**os.environ, **places}
        )
        assert done.returncode == 0, f"helm {words[0]}: {done.stderr}"
        return done.stdout

    # -- a person -----------------------------------------------------------------------------------------------------

    def job(self, name: str = "comics", **spec: Json) -> Json:
        """An OcrJob over `s3://<bucket>/pages`, with members of its spec given or replaced."""
        base = {
            "source": {"images": {"uri": f"s3://{self.bucket}/pages"}},
            "engine": {"name": "rapidocr", "languages": ["en"]},
            "output": {"uri": f"s3://{self.bucket}/out/{name}"},
            "storage": {"endpoint": self.s3.endpoint, "region": "us-east-1", "secretRef": {"name": JOB_SECRET}},
            # Little is asked for, so that pods need not wait for each other's reservations on a small machine.
            "workers": {"parallelism": 1, "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}}},
        }
        return {
            "apiVersion": API_VERSION,
            "kind": "OcrJob",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {**base, **spec},
        }

    def apply(self, job: Json) -> None:
        """`kubectl apply`, strictly."""
        self.kubectl("apply", "--validate=strict", "-f", "-", text=json.dumps(job))

    def kubectl(self, *words: str, text: str = "") -> str:
        """Run kubectl in this namespace. Returns: what it printed. Raises: AssertionError with its complaint."""
        try:
            return self.cluster.kubectl("--namespace", self.namespace, *words, text=text)
        except subprocess.CalledProcessError as error:
            raise AssertionError(f"kubectl {' '.join(words)}: {error.stderr}") from None

    def kubectl_command(self) -> list[str]:
        """How a test runs kubectl in this namespace itself."""
        cache = self.cluster.layout.folder / "kubectl-cache"
        to = [f"--kubeconfig={self.cluster.kubeconfig}", f"--cache-dir={cache}", f"--namespace={self.namespace}"]
        return [str(binary("kubectl")), *to]

    def patch(self, name: str, spec: Json, subresource: str = "") -> None:
        place = object_path(API_VERSION, "ocrjobs", self.namespace, name, subresource)
        self.api.call("PATCH", place, {"spec": spec}, content_type=MERGE_PATCH)

    def delete(self, name: str = "comics") -> None:
        """Delete a job and see it go."""
        self.kubectl("delete", "ocrjob", name, "--wait=true", "--timeout=60s")

    # -- looking ------------------------------------------------------------------------------------------------------

    def read(self, name: str = "comics") -> Json | None:
        """A job as the API server has it, None when there is none."""
        return self.api.read_or_none(object_path(API_VERSION, "ocrjobs", self.namespace, name))

    def status(self, name: str = "comics") -> JobStatus:
        """A job's status; empty while there is no such job."""
        return JobStatus.model_validate((self.read(name) or {}).get("status") or {})

    def jobs(self) -> list[Json]:
        """The child Jobs, oldest first."""
        found: list[Json] = self.api.call("GET", object_path("batch/v1", "jobs", self.namespace))["items"]
        return sorted(found, key=lambda job: str(job["metadata"]["creationTimestamp"]))

    def pods(self, selector: str = "pagemill.dev/job") -> list[Json]:
        found: list[Json] = self.api.call("GET", object_path("v1", "pods", self.namespace), labelSelector=selector)[
            "items"
        ]
        return found

    def log(self, pod: str, *, previous: bool = False) -> str:
        answer: Answer = self.api.ask(
            "GET", object_path("v1", "pods", self.namespace, pod, "log"), previous=previous, tailLines=60
        )
        return answer.body if isinstance(answer.body, str) else answer.message

    def wait(self, holds: Callable[[], bool], what: str, *, most_s: float = 60.0) -> float:
        """Wait for anything. Returns: how many seconds. Raises: AssertionError with all there is to know."""
        started = time.monotonic()
        while not holds():
            if time.monotonic() - started > most_s:
                raise AssertionError(f"{what}: not after {most_s:g} s; {self.status()}\n{self.report()}")
            time.sleep(_POLL_S)
        return time.monotonic() - started

    def until(self, holds: Callable[[JobStatus], bool], *, name: str = "comics", most_s: float = 120.0) -> float:
        """Wait for a job's status, as `wait` does."""
        return self.wait(lambda: holds(self.status(name)), f"the status of {name}", most_s=most_s)

    def until_phase(self, *phases: str, name: str = "comics", most_s: float = 120.0) -> float:
        return self.until(lambda status: status.phase in phases, name=name, most_s=most_s)

    def report(self) -> str:
        """What a person would look at when something is wrong: events, pods, and the ends of their logs."""
        parts = [self.kubectl("get", "ocrjobs,jobs,pods", "-o", "wide")]
        parts.append(self.kubectl("get", "events", "--sort-by=.lastTimestamp"))
        for pod in [*self.pods("app.kubernetes.io/component=operator"), *self.pods()]:
            name = pod["metadata"]["name"]
            parts.append(f"--- {name}\n{self.log(name)[-6000:]}")
        return "\n".join(parts)

    # -- the store ----------------------------------------------------------------------------------------------------

    def store(self, prefix: str = "") -> S3Store:
        """A store below a prefix of the stage's bucket; `close` ends its connections."""
        key = (prefix, self.s3.credentials("worker")["accessKey"])
        if key not in self._stores:
            self._stores[key] = self.s3.server.store(self.bucket, prefix)
        return self._stores[key]

    def close(self) -> None:
        """End the connections to the store."""
        for store in self._stores.values():
            store.close()
        self._stores.clear()

    def put_pages(self, pages: Mapping[str, bytes], prefix: str = "pages") -> None:
        """Write files into the bucket; a server that has just begun may want to be asked again."""
        writer = Writer(self.store(prefix), SystemClock(), deadline_s=60.0)
        for key, data in pages.items():
            writer.put(key, data)

    def settings_inside(self) -> S3Settings:
        """Settings with which a process in the cluster's network reaches the store as pods do."""
        return self.s3.server.server.settings("worker").model_copy(update={"endpoint": self.s3.endpoint})

    def run_locally(self, job: Json, *, timeout_s: float = 240.0) -> None:
        """`pagemill run` of the same file on this machine, in the cluster's network, where the endpoint is reached.

        Raises: AssertionError with what it printed.
        """
        settings = self.settings_inside()
        environment = {
            **os.environ,
            "PAGEMILL_S3_ENDPOINT": settings.endpoint,
            "PAGEMILL_S3_ACCESS_KEY": settings.access_key,
            "PAGEMILL_S3_SECRET_KEY": settings.secret_key.get_secret_value(),
            "PAGEMILL_S3_REGION": settings.region,
        }
        path = self.cluster.layout.folder / f"{self.namespace}-{job['metadata']['name']}.json"
        path.write_text(json.dumps(job), encoding="utf-8")
        network = ["nsenter", f"--target={self.cluster.status().state.pid}", "--net", "--"]
        command = [*network, sys.executable, "-m", "pagemill_cli.main", "run", str(path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)
        path.unlink()
        assert done.returncode == 0, f"pagemill run: {done.returncode}\n{done.stdout}\n{done.stderr}"


def with_output(job: Json, uri: str) -> Json:
    """The same job for another output."""
    return {**job, "spec": {**job["spec"], "output": {**job["spec"]["output"], "uri": uri}}}
