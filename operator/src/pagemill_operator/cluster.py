"""The cluster as the operator sees it: one raw-JSON door, its errors, and the addresses behind it.

Layer: the operator's border; imports no client. `kube.py` is the real door, `testing.fake_kube` the one for tests.
Objects that come through are parsed at once by `objects`; what goes out was built by pure functions.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

JsonObject = dict[str, Any]

JOBS = "batch/v1/jobs"
PODS = "v1/pods"
SECRETS = "v1/secrets"
EVENTS = "v1/events"
WORKLOADS = "kueue.x-k8s.io/v1beta2/workloads"
WORKLOADS_BEFORE = "kueue.x-k8s.io/v1beta1/workloads"  # of releases that do not serve the one above
PLURALS: Mapping[str, str] = {
    "OcrJob": "pagemill.dev/v1alpha1/ocrjobs",
    "EmbeddingJob": "pagemill.dev/v1alpha1/embeddingjobs",
}
CHILD_MANAGER = "pagemill"
STATUS_MANAGER = "pagemill-status"

_NEVER_FITS = "failed to create typed patch object"
_TERMINAL = (400, 413, 415, 422)


class ApiError(Exception):
    """An answer of the API server that is an error, or no answer (status 0)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message[:400]}")
        self.status = status
        self.reason = reason
        self.message = message

    @property
    def is_terminal(self) -> bool:
        """Whether the same request can never succeed.

        A body that does not fit the schema is answered by server-side apply with 500 and no reason.
        """
        return self.status in _TERMINAL or (self.status == 500 and _NEVER_FITS in self.message)

    @property
    def is_absent(self) -> bool:
        return self.status in (404, 410)

    @property
    def is_conflict(self) -> bool:
        return self.status == 409


@dataclass(frozen=True, slots=True)
class Address:
    """An object or, without a name, a collection; without a namespace that of the whole cluster."""

    resource: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def path(self) -> str:
        """The path below the API server's root."""
        group_version, _, plural = self.resource.rpartition("/")
        root = f"/apis/{group_version}" if "/" in group_version else f"/api/{group_version}"
        namespace = f"/namespaces/{self.namespace}" if self.namespace else ""
        name = f"/{self.name}" if self.name else ""
        subresource = f"/{self.subresource}" if self.subresource else ""
        return f"{root}{namespace}/{plural}{name}{subresource}"


class Cluster(Protocol):
    """What the operator asks of an API server. Every method raises ApiError."""

    async def get(self, address: Address) -> JsonObject:
        """Read one object."""

    def list(
        self, address: Address, *, selector: str = "", is_recent_enough: bool = False
    ) -> AsyncIterator[JsonObject]:
        """Every object of a collection, page by page.

        `is_recent_enough`: what the server has in memory will do, all at once; it then waits for nothing.
        """

    async def create(self, address: Address, body: JsonObject) -> JsonObject:
        """Create an object in a collection."""

    async def apply(self, address: Address, body: JsonObject, manager: str) -> JsonObject:
        """Server-side apply, forced: what the manager left out and had set before is removed."""

    async def merge(self, address: Address, body: JsonObject) -> JsonObject:
        """JSON merge patch of an object that must exist."""

    async def delete(self, address: Address, *, uid: str) -> None:
        """Delete the object with this uid, its dependents in the background."""
