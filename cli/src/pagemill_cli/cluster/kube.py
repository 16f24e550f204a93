"""The real door to an API server: the official client's handling of logins and certificates, and raw JSON above it.

Layer: `cli.cluster`; the only module of the command that imports the Kubernetes client, and only once a command asks
for a cluster, because it takes a second to load. Prints nothing; no credential ever stands in an error.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from pagemill_cli.cluster.api import ApiRefusalError, Cause, JsonObject, Request
from pagemill_core.errors import ClusterUnavailableError, ClusterUnsuitableError, InvalidSpecError

CONNECT_S = 10.0
ANSWER_S = 60.0
DEFAULT_NAMESPACE = "default"
IN_CLUSTER = "in-cluster"
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_OBJECT = re.compile(r"^<?[\w.]+\([^()]*\)>?: |^<[^<>]*>: ")  # how urllib3 begins: with the connection's repr
# What the client's reader does with a file that is no kubeconfig, besides its own exception.
_UNREADABLE = (OSError, ValueError, TypeError, AttributeError, KeyError, yaml.YAMLError)
_Client = Any  # its types differ from release to release


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterChoice:
    """Which cluster, and which namespace of it; empty for the usual one. `kubeconfig` may be several paths with ':'."""

    kubeconfig: str = ""
    context: str = ""
    namespace: str = ""


class Kube:
    """An `Api` on a real API server. Close it, or use it in a `with`."""

    def __init__(self, configuration: _Client, *, context: str, namespace: str) -> None:
        from kubernetes.client.rest import RESTClientObject

        self._configuration = configuration
        self._pool = RESTClientObject(configuration).pool_manager
        self._context = context
        self._namespace = namespace

    @property
    def context(self) -> str:
        return self._context

    @property
    def server(self) -> str:
        return str(self._configuration.host)

    @property
    def namespace(self) -> str:
        return self._namespace

    def close(self) -> None:
        self._pool.clear()

    def __enter__(self) -> Kube:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, request: Request) -> tuple[int, JsonObject]:
        with self._sent(request, answer_s=ANSWER_S) as answer:
            return answer.status, _object(answer.read())

    def lines(self, request: Request) -> Iterator[bytes]:
        with self._sent(request, answer_s=None) as answer:
            rest = b""
            for part in answer.stream(4096, decode_content=True):
                *whole, rest = (rest + part).split(b"\n")
                yield from whole
            if rest:
                yield rest

    @contextmanager
    def _sent(self, request: Request, *, answer_s: float | None) -> Iterator[_Client]:
        """The answer to a request, its body unread. Raises: ApiRefusalError, ClusterUnavailableError."""
        import urllib3

        body = None if request.body is None else json.dumps(request.body).encode()
        words = f"?{urlencode(request.query)}" if request.query else ""
        answer: _Client = None
        try:
            answer = self._pool.request(
                request.method,
                f"{self.server}{request.path}{words}",
                body=body,
                headers=self._headers(request),
                timeout=urllib3.Timeout(connect=CONNECT_S, read=answer_s),
                retries=False,
                preload_content=False,
            )
            if answer.status >= 400:
                raise refusal(answer.status, answer.read())
            yield answer
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ClusterUnavailableError(
                f"the API server {self.server} of context {self.context} does not answer: {_in_short(error)}",
                advice="check --context, KUBECONFIG and the network; `kubectl cluster-info` asks the same server",
            ) from error
        finally:
            if answer is not None:
                answer.release_conn()

    def _headers(self, request: Request) -> dict[str, str]:
        headers = {"Accept": "application/json, */*", "User-Agent": "pagemill", "Content-Type": request.content_type}
        token = self._configuration.auth_settings().get("BearerToken", {}).get("value")
        if token:
            headers["Authorization"] = token
        return headers


def connect(choice: ClusterChoice) -> Kube:
    """Log in where the choice says: KUBECONFIG or its default file, else the pod's own service account.

    Asks the server nothing yet. Raises: ClusterUnsuitableError without the client's package, InvalidSpecError when the
    kubeconfig cannot be used.
    """
    try:
        from kubernetes.client import Configuration
    except ImportError as error:
        raise ClusterUnsuitableError(
            "the Kubernetes client is not installed here", advice="pip install 'pagemill[cluster]'"
        ) from error

    config = _config()
    configuration = Configuration()
    path = choice.kubeconfig or str(Path.home() / ".kube" / "config")
    if any(Path(part).expanduser().is_file() for part in path.split(os.pathsep)):
        try:
            config.load_kube_config(path, choice.context or None, configuration, persist_config=False)
            contexts, active = config.list_kube_config_contexts(path)
        except (config.ConfigException, *_UNREADABLE) as error:
            raise InvalidSpecError(f"kubeconfig {path}: {_unreadable(error)}", advice=_known_contexts(path)) from None
        found = next((one for one in contexts if one["name"] == choice.context), active)
        namespace = choice.namespace or found["context"].get("namespace") or DEFAULT_NAMESPACE
        return Kube(configuration, context=found["name"], namespace=namespace)
    if choice.kubeconfig or choice.context:
        raise InvalidSpecError(f"there is no kubeconfig at {path}", advice="set KUBECONFIG or write --kubeconfig FILE")
    try:
        config.load_incluster_config(configuration)
    except config.ConfigException as error:
        raise InvalidSpecError(
            f"no cluster is known here: there is no {path}, and this is no pod",
            advice="set KUBECONFIG or write --kubeconfig FILE",
        ) from error
    own = _OWN_NAMESPACE.read_text(encoding="utf-8").strip() if _OWN_NAMESPACE.is_file() else DEFAULT_NAMESPACE
    return Kube(configuration, context=IN_CLUSTER, namespace=choice.namespace or own)


def refusal(status: int, body: bytes) -> ApiRefusalError:
    """The exception for an error that the server answered: a Status object, or any text."""
    try:
        given = json.loads(body or b"{}")
    except ValueError:
        given = {"message": body[:400].decode("utf-8", "replace")}
    told: JsonObject = given if isinstance(given, dict) else {}
    details: JsonObject = told.get("details") or {}
    causes = tuple(
        Cause(str(one.get("field") or ""), str(one.get("reason") or ""), str(one.get("message") or ""))
        for one in details.get("causes") or ()
    )
    return ApiRefusalError(
        status,
        reason=str(told.get("reason") or ""),
        message=str(told.get("message") or ""),
        kind=str(details.get("kind") or ""),
        causes=causes,
    )


def _object(body: bytes) -> JsonObject:
    given = json.loads(body or b"{}")
    return given if isinstance(given, dict) else {}


def _config() -> _Client:
    """The client's reader of kubeconfigs, which ships no types."""
    from kubernetes import config

    return config


def _known_contexts(path: str) -> str:
    """The contexts there are, for advice, as far as the file can be read at all."""
    config = _config()
    try:
        contexts, _ = config.list_kube_config_contexts(path)
    except (config.ConfigException, *_UNREADABLE):
        return "`kubectl config view` shows what kubectl makes of it"
    return f"its contexts are: {', '.join(sorted(str(one['name']) for one in contexts))}"


def _unreadable(error: BaseException) -> str:
    """What is wrong with a kubeconfig, without its text, which holds credentials."""
    if isinstance(error, yaml.MarkedYAMLError):
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        return f"is not YAML{line}"
    if isinstance(error, (AttributeError, KeyError, TypeError)):
        return "is no kubeconfig"
    return _in_short(error)


def _in_short(error: BaseException) -> str:
    """The innermost cause on one line, without the addresses of Python objects."""
    text = str(getattr(error, "reason", None) or error)
    text = " ".join(text.split()).rpartition("Failed to establish a new connection: ")[2]
    return _OBJECT.sub("", text)[:300]
