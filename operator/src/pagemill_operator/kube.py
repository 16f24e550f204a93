"""The real door to the API server: raw JSON over the client's transport, which brings login, TLS and token refresh.

Layer: the operator's border; the only module that imports the Kubernetes client. Its typed models are not used: they
reject what an older or a newer server leaves out.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
from kubernetes.aio import client, config

from pagemill_operator.cluster import Address, ApiError, JsonObject
from pagemill_operator.metrics import Metrics

TIMEOUT_S = 20.0
PAGE = 500
CONNECTIONS = 32
_config: Any = config  # ships no types
_JSON = "application/json"
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """How to reach an API server, for whoever else has to: the watch."""

    server: str
    ca_path: str | None
    token: str | None
    certificate_path: str | None
    key_path: str | None
    verifies: bool


class Kube:
    """A `Cluster` on a real API server. Use as an asynchronous context; safe to share between tasks."""

    def __init__(self, metrics: Metrics, *, kubeconfig: Path | None = None) -> None:
        self._metrics = metrics
        self._kubeconfig = kubeconfig
        self._configuration: Any = None
        self._api: Any = None

    async def __aenter__(self) -> Kube:
        configuration = client.Configuration()
        configuration.connection_pool_maxsize = CONNECTIONS
        configuration.retries = False
        if self._kubeconfig is None:
            _config.load_incluster_config(client_configuration=configuration)
        else:
            await _config.load_kube_config(
                config_file=str(self._kubeconfig), client_configuration=configuration, persist_config=False
            )
        self._configuration = configuration
        self._api = client.ApiClient(configuration)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._api.close()

    async def login(self) -> Login:
        """The credentials of this moment; in a cluster, the token that lies in the file now."""
        if self._kubeconfig is None:  # a rejected token may be younger than the client's minute of trust in it
            _config.load_incluster_config(client_configuration=self._configuration)
        header = await self._configuration.get_api_key_with_prefix("BearerToken")
        return Login(
            server=self._configuration.host,
            ca_path=self._configuration.ssl_ca_cert,
            token=header.split(" ", 1)[1].strip() if header and " " in header else header,
            certificate_path=self._configuration.cert_file,
            key_path=self._configuration.key_file,
            verifies=self._configuration.verify_ssl,
        )

    def cluster_id(self) -> str:
        """A name for this cluster that needs no right to learn: the digest of its certificate authority."""
        path = self._configuration.ssl_ca_cert
        what = Path(path).read_bytes() if path else str(self._configuration.host).encode()
        return hashlib.sha256(what).hexdigest()[:16]

    # -- Cluster ------------------------------------------------------------------------------------------------------

    async def get(self, address: Address) -> JsonObject:
        return await self._call("GET", address)

    async def list(
        self, address: Address, *, selector: str = "", is_recent_enough: bool = False
    ) -> AsyncIterator[JsonObject]:
        query: dict[str, str] = {"resourceVersion": "0"} if is_recent_enough else {"limit": str(PAGE)}
        if selector:
            query["labelSelector"] = selector
        while True:
            page = await self._call("GET", address, query=query)
            for body in page.get("items") or []:
                yield body
            following = (page.get("metadata") or {}).get("continue")
            if not following:
                return
            query["continue"] = following

    async def create(self, address: Address, body: JsonObject) -> JsonObject:
        return await self._call("POST", address, body)

    async def apply(self, address: Address, body: JsonObject, manager: str) -> JsonObject:
        query = {"fieldManager": manager, "force": "true"}
        return await self._call("PATCH", address, body, content_type=_APPLY, query=query)

    async def merge(self, address: Address, body: JsonObject) -> JsonObject:
        return await self._call("PATCH", address, body, content_type=_MERGE, query={"fieldManager": "pagemill"})

    async def delete(self, address: Address, *, uid: str) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        await self._call("DELETE", address, body)

    # -- one request --------------------------------------------------------------------------------------------------

    async def _call(
        self,
        method: str,
        address: Address,
        body: JsonObject | None = None,
        *,
        content_type: str = _JSON,
        query: dict[str, str] | None = None,
    ) -> JsonObject:
        """One request. Raises: ApiError, with status 0 when there was no answer."""
        status, text = 0, b""
        try:
            status, text = await self._send(method, address.path, body, content_type, query or {})
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, OSError) as error:
            raise ApiError(0, "NoAnswer", f"{type(error).__name__}: {error}") from error
        finally:
            self._metrics.api_call(method, status)
        return _parsed(status, text)

    async def _send(
        self, method: str, path: str, body: JsonObject | None, content_type: str, query: dict[str, str]
    ) -> tuple[int, bytes]:
        """Status and body. The package's inner layer, since its outer one does not give raw answers for patches."""
        verb, url, headers, payload, _ = await self._api.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params={"Content-Type": content_type, "Accept": _JSON},
            body=body,
            auth_settings=["BearerToken"],
        )
        answer = (await self._api.call_api(verb, url, headers, payload, _request_timeout=TIMEOUT_S)).response
        async with answer:
            return answer.status, await answer.read()


def _parsed(status: int, text: bytes) -> JsonObject:
    """The body of an answer. Raises: ApiError for an error, and for what is no JSON object."""
    try:
        body = json.loads(text or b"{}")
    except ValueError:
        body = {"message": text[:400].decode("utf-8", "replace")}
    if not isinstance(body, dict):
        body = {"message": "an answer that is no object"}
    if status >= 400 or status == 0:
        raise ApiError(status, str(body.get("reason") or ""), str(body.get("message") or ""))
    return body
