"""The API server as the command sees it: requests in raw JSON, refusals as one exception, and where objects are.

Layer: `cli.cluster`, its bottom; imports no client. `kube.py` is the real door. What comes through is parsed at once by
`views`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol
from urllib.parse import quote

JsonObject = dict[str, Any]
Method = Literal["GET", "POST", "PATCH", "DELETE"]

JSON = "application/json"
APPLY = "application/apply-patch+yaml"  # JSON is YAML
MERGE = "application/merge-patch+json"


@dataclass(frozen=True, slots=True)
class Cause:
    """One of the reasons that a refusal gives. `field` is a path such as `spec.engine`, "" when it names none."""

    field: str
    reason: str
    message: str


class ApiRefusalError(Exception):
    """The API server answered with an error. Never leaves `cli.cluster`: `refusals` says it to people."""

    def __init__(
        self, status: int, *, reason: str = "", message: str = "", kind: str = "", causes: tuple[Cause, ...] = ()
    ) -> None:
        super().__init__(f"{status} {reason}: {message[:400]}")
        self.status = status
        self.reason = reason
        self.message = message
        self.kind = kind
        self.causes = causes


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request; `path` is below the server's root, parts quoted (`object_path`)."""

    method: Method
    path: str
    body: JsonObject | None = None
    content_type: str = JSON
    query: dict[str, str] = field(default_factory=dict)


class Api(Protocol):
    """An API server, as one user of it.

    Every method raises ApiRefusalError for an error that was answered, and ClusterUnavailableError without an answer.
    """

    @property
    def context(self) -> str:
        """The kubeconfig's context, or the words `in-cluster`; for people."""

    @property
    def server(self) -> str:
        """The server's address; for people."""

    @property
    def namespace(self) -> str:
        """The namespace meant where nobody names one."""

    def call(self, request: Request) -> tuple[int, JsonObject]:
        """Send one request. Returns: the status, below 400, and the answer."""

    def lines(self, request: Request) -> Iterator[bytes]:
        """Send one request for text, and give its lines as they come, without their ends."""


def object_path(api_version: str, plural: str, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """The path of an object or, without a name, of its collection."""
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    parts = [*(["namespaces", namespace] if namespace else []), plural, name, subresource]
    return "/".join([root, *(quote(part, safe="") for part in parts if part)])
