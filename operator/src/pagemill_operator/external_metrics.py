"""Serves jobs' backlogs as external metrics, on which a HorizontalPodAutoscaler can set a job's parallelism.

Layer: the operator; reads the cache alone. An aggregated API (external.metrics.k8s.io): the API server authenticates
and authorizes callers, and this server takes connections from nobody else, by its client certificate. Off by default.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from pathlib import Path

from aiohttp import web

from pagemill_core.api.v1alpha1 import JobStatus
from pagemill_core.clock import Clock
from pagemill_core.errors import ClusterUnsuitableError
from pagemill_operator.cache import Cache
from pagemill_operator.cluster import Address, Cluster, JsonObject
from pagemill_operator.objects import Custom

GROUP_VERSION = "external.metrics.k8s.io/v1beta1"
ITEMS = "pagemill-backlog-items"
SHARDS = "pagemill-backlog-shards"
AUTHENTICATION = Address("v1/configmaps", "kube-system", "extension-apiserver-authentication")
_AT_WORK = ("Queued", "Running")
_REQUIREMENT = re.compile(r"\s*([\w./-]+)\s*==?\s*([\w.-]+)\s*")


class SelectorError(ValueError):
    """A label selector that is more than equalities."""


def backlog(metric: str, status: JobStatus) -> int | None:
    """What is left to do, None for a metric that does not exist. A job that is not at work needs no pods: 0."""
    if metric not in (ITEMS, SHARDS):
        return None
    if status.phase not in _AT_WORK:
        return 0
    items, shards = status.items, status.shards
    if metric == ITEMS:
        done = 0 if items is None else items.succeeded + items.failed + items.skipped
        return 0 if items is None else max(0, items.total - done)
    return 0 if shards is None else max(0, shards.total - shards.succeeded - shards.failed)


def parse_selector(text: str) -> dict[str, str]:
    """`job=comics,kind=OcrJob` as a mapping. Raises: SelectorError for anything but equalities."""
    wanted: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        found = _REQUIREMENT.fullmatch(part)
        if found is None:
            raise SelectorError(f"selectors are equalities such as job=comics, not {part!r}")
        wanted[found[1]] = found[2]
    return wanted


class ExternalMetrics:
    """The API server's questions, and answers from the cache. Metrics have the labels `job` and `kind`."""

    def __init__(self, cache: Cache, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock
        self._runner: web.AppRunner | None = None

    async def start(self, port: int, context: ssl.SSLContext) -> None:
        """Listen to the API server."""
        app = web.Application()
        app.router.add_get(f"/apis/{GROUP_VERSION}", self._discover)
        app.router.add_get(f"/apis/{GROUP_VERSION}/namespaces/{{namespace}}/{{metric}}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, None, port, ssl_context=context).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def values(self, namespace: str, metric: str, selector: str) -> list[JsonObject]:
        """The metric's values in a namespace. Raises: SelectorError."""
        wanted = parse_selector(selector)
        now = self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        found = []
        for custom in self._customs(namespace):
            labels = {"job": custom.key.name, "kind": custom.key.kind}
            value = backlog(metric, custom.status)
            if value is not None and wanted.items() <= labels.items():
                found.append({"metricName": metric, "metricLabels": labels, "timestamp": now, "value": str(value)})
        return found

    def _customs(self, namespace: str) -> Iterator[Custom]:
        known = self._cache.keys()
        customs = (self._cache.custom(key) for key in known if key.namespace == namespace)
        return (custom for custom in customs if custom is not None)

    async def _discover(self, _: web.Request) -> web.Response:
        resource = {"singularName": "", "namespaced": True, "kind": "ExternalMetricValueList", "verbs": ["get"]}
        resources = [{"name": name, **resource} for name in (ITEMS, SHARDS)]
        listing = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": GROUP_VERSION, "resources": resources}
        return web.json_response(listing)

    async def _answer(self, request: web.Request) -> web.Response:
        place = request.match_info
        try:
            found = self.values(place["namespace"], place["metric"], request.query.get("labelSelector", ""))
        except SelectorError as error:
            problem = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 400, "message": str(error)}
            return web.json_response(problem, status=400)
        body = {"kind": "ExternalMetricValueList", "apiVersion": GROUP_VERSION, "metadata": {}, "items": found}
        return web.json_response(body)


async def api_server_only(cluster: Cluster, folder: Path) -> ssl.SSLContext:
    """TLS with the certificate of `folder` (tls.crt, tls.key) that takes the API server's connections and no others.

    Raises: ApiError without the right to read that certificate's authority; ClusterUnsuitableError.
    """
    known = (await cluster.get(AUTHENTICATION)).get("data") or {}
    authority = known.get("requestheader-client-ca-file")
    if not authority:
        raise ClusterUnsuitableError(
            "the API server says nothing of its proxy's certificate, so it serves no aggregated APIs",
            advice="enable aggregation in the API server, or turn externalMetrics off",
        )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=authority)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context
