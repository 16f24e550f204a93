"""What a person does with jobs on a cluster: submit, look, pause, delete, and find their pods.

Layer: `cli.cluster`, above the door. Every refusal leaves as an error that says what to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pagemill_cli.cluster.api import APPLY, MERGE, Api, ApiRefusalError, JsonObject, Request, object_path
from pagemill_cli.cluster.kinds import JobRef, job_path
from pagemill_cli.cluster.refusals import Asked, conflicting_managers, explained
from pagemill_cli.cluster.views import JobView, PodView, pod_selector, read_job, read_pod
from pagemill_core.api.crd.generate import PLURALS
from pagemill_core.api.v1alpha1 import API_VERSION, Job
from pagemill_core.errors import InvalidSpecError, ObjectNotFoundError
from pagemill_core.storage.open import is_local

MANAGER = "pagemill-cli"
_GIVEN_METADATA = {"name", "generate_name", "labels", "annotations"}


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job that the cluster has taken. `is_new`: it was not there before."""

    job: JobView
    is_new: bool


class Jobs:
    """The jobs of one namespace."""

    def __init__(self, api: Api) -> None:
        self._api = api

    @property
    def namespace(self) -> str:
        return self._api.namespace

    @property
    def context(self) -> str:
        return self._api.context

    def submit(self, job: Job, *, dry_run: bool, force: bool) -> Submitted:
        """Create the job, or bring it up to the file: server-side apply under this command's own name. Idempotent.

        What `suspend` and `resume` have set is this command's own, so a file that says otherwise wins. Raises:
        InvalidSpecError, also for a changed field that is fixed; PreconditionFailedError when somebody else has set a
        field otherwise and `force` is not given; ClusterUnsuitableError; AccessDeniedError; ClusterUnavailableError.
        """
        check_for_cluster(job, self.namespace)
        body, name = manifest(job, self.namespace), job.metadata.name or ""
        query = {"fieldManager": MANAGER, "fieldValidation": "Strict", **({"dryRun": "All"} if dry_run else {})}
        verbs = "create" if not name else "get, create and patch"
        with self._explaining(JobRef(job.kind, name or f"{job.metadata.generate_name}…"), verbs):
            if not name:
                made = Request(method="POST", path=job_path(job.kind, self.namespace), body=body, query=query)
                return Submitted(read_job(self._api.call(made)[1], job.kind), True)
            path = job_path(job.kind, self.namespace, name)
            try:
                return self._apply(path, body, {**query, "force": str(force).lower()}, job.kind)
            except ApiRefusalError as refusal:
                managers = conflicting_managers(refusal)
                if not managers or set(managers) != {MANAGER}:
                    raise
            return self._apply(path, body, {**query, "force": "true"}, job.kind)

    def _apply(self, path: str, body: JsonObject, query: dict[str, str], kind: str) -> Submitted:
        request = Request(method="PATCH", path=path, body=body, content_type=APPLY, query=query)
        status, answer = self._api.call(request)
        return Submitted(read_job(answer, kind), status == 201)

    def find(self, ref: JobRef) -> JobView:
        """The job of this name. Raises: ObjectNotFoundError; InvalidSpecError when there is one of each kind."""
        found: list[JobView] = []
        with self._explaining(ref, "get"):
            for kind in ref.kinds:
                try:
                    path = job_path(kind, self.namespace, ref.name)
                    found.append(read_job(self._api.call(Request(method="GET", path=path))[1], kind))
                except ApiRefusalError as refusal:
                    if refusal.status != 404 or len(ref.kinds) == 1 or not refusal.reason or not refusal.kind:
                        raise
        if not found:
            raise ObjectNotFoundError(
                f"there is no job {ref.name} in namespace {self.namespace}",
                advice="`kubectl get pagemill --all-namespaces` lists what there is; --namespace chooses another",
            )
        if len(found) > 1:
            names = " and ".join(map(str, found))
            raise InvalidSpecError(f"{ref.name} may be {names}", advice=f"write {found[0]} or {found[1]}")
        return found[0]

    def set_suspend(self, job: JobView, suspend: bool) -> JobView:
        """Pause the job, or let it go on. Idempotent."""
        request = Request(
            method="PATCH",
            path=job_path(job.kind, job.namespace, job.name),
            body={"metadata": {"uid": job.uid}, "spec": {"suspend": suspend}},
            content_type=MERGE,
            query={"fieldManager": MANAGER},
        )
        with self._explaining(JobRef(job.kind, job.name), "patch"):
            return read_job(self._api.call(request)[1], job.kind)

    def delete(self, job: JobView) -> None:
        """Delete this very job, and with it, in the background, its child Jobs and pods; results stay. Idempotent."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": job.uid},
        }
        request = Request(method="DELETE", path=job_path(job.kind, job.namespace, job.name), body=body)
        with self._explaining(JobRef(job.kind, job.name), "delete"):
            try:
                self._api.call(request)
            except ApiRefusalError as refusal:
                if refusal.status not in (404, 409):  # 409: another job has this name by now
                    raise

    def pods(self, job: JobView, step: str = "", wave: int = 0) -> list[PodView]:
        """The job's pods that are still there, the oldest first."""
        request = Request(
            method="GET",
            path=object_path("v1", "pods", job.namespace),
            query={"labelSelector": pod_selector(job, step, wave)},
        )
        with self._explaining(JobRef(job.kind, job.name), "read pods and pods/log beside the jobs"):
            found = [read_pod(body) for body in self._api.call(request)[1].get("items") or ()]
        return sorted(found, key=lambda pod: (pod.created_at, pod.wave, pod.index, pod.name))

    def log_lines(self, job: JobView, pod: PodView, *, follow: bool) -> Iterator[str]:
        """The lines of a pod's log as they come; none of a pod that is gone or has not started."""
        query = {"container": "worker", **({"follow": "true"} if follow else {})}
        path = object_path("v1", "pods", job.namespace, pod.name, "log")
        with self._explaining(JobRef(job.kind, job.name), "read pods and pods/log beside the jobs"):
            try:
                for line in self._api.lines(Request(method="GET", path=path, query=query)):
                    yield line.decode("utf-8", "replace")
            except ApiRefusalError as refusal:
                if refusal.status not in (400, 404):
                    raise

    @contextmanager
    def _explaining(self, ref: JobRef, verbs: str) -> Iterator[None]:
        try:
            yield
        except ApiRefusalError as refusal:
            plurals = " and ".join(PLURALS[kind] for kind in ref.kinds)
            asked = Asked(what=str(ref), verbs=f"{verbs} {plurals}", namespace=self.namespace, context=self.context)
            raise explained(refusal, asked) from refusal


def manifest(job: Job, namespace: str) -> JsonObject:
    """The job as the API server takes it: what its file says, in this namespace."""
    spec = job.spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
    metadata = job.metadata.model_dump(mode="json", by_alias=True, exclude_none=True, include=_GIVEN_METADATA)
    return {
        "apiVersion": API_VERSION,
        "kind": job.kind,
        "metadata": {**metadata, "namespace": namespace},
        "spec": spec,
    }


def check_for_cluster(job: Job, namespace: str) -> None:
    """Raises: InvalidSpecError for what is right on a laptop and can never be on a cluster."""
    if job.metadata.namespace and job.metadata.namespace != namespace:
        raise InvalidSpecError(
            f"metadata.namespace: the file says {job.metadata.namespace}, and {namespace} was asked for",
            advice="leave one of them out",
        )
    uri = job.spec.output.uri
    if is_local(uri):
        raise InvalidSpecError(
            f"spec.output.uri: {uri} is a folder of this machine; a cluster writes to s3://bucket/prefix",
            advice="`pagemill run` does this file here",
        )
