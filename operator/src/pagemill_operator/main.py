"""The operator's process: reads settings, starts everything, and ends when any of it does.

Layer: the operator's top; the only module that reads the process's environment, and the only one that may catch
everything: a bug met in one job's pass must not end the passes of all others.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Coroutine
from http import HTTPStatus
from pathlib import Path
from typing import Any

import kopf

from pagemill_core.clock import Clock, SystemClock
from pagemill_core.errors import EXIT_BUG, ClusterUnsuitableError, InvalidSpecError, PagemillError
from pagemill_operator import logs
from pagemill_operator.assembly import Parts, Surroundings, ThreadRunner, assemble
from pagemill_operator.cluster import PLURALS, Address, ApiError
from pagemill_operator.external_metrics import ExternalMetrics, api_server_only
from pagemill_operator.health import HealthServer
from pagemill_operator.kube import Kube
from pagemill_operator.metrics import Metrics
from pagemill_operator.next_run import read_settings, read_template
from pagemill_operator.next_run import run as run_next
from pagemill_operator.settings import Config, OperatorSettings, read_config
from pagemill_operator.watch import SELECTOR, make_registry, watch_settings

log = logging.getLogger("pagemill.operator")
HEARTBEAT_EVERY_S = 2.0
EXIT_CLUSTER = 75


def kubeconfig(environment: dict[str, str]) -> Path | None:
    """The kubeconfig to use, None inside a cluster."""
    if environment.get("KUBECONFIG"):
        return Path(environment["KUBECONFIG"].split(os.pathsep)[0])
    return None if environment.get("KUBERNETES_SERVICE_HOST") else Path("~/.kube/config").expanduser()


class Process:
    """Everything that runs side by side in this process."""

    def __init__(self, settings: OperatorSettings, config: Config, kube: Kube, metrics: Metrics) -> None:
        self._settings = settings
        self._kube = kube
        self._metrics = metrics
        self._clock: Clock = SystemClock()
        self._wake = asyncio.Event()
        self._crash: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._runner = ThreadRunner(settings.store_threads, self._crashed)
        self._parts: Parts = assemble(
            Surroundings(
                settings=settings,
                config=config,
                cluster=kube,
                cluster_id=kube.cluster_id(),
                clock=self._clock,
                metrics=metrics,
                runner=self._runner,
                wake=self._wake.set,
            )
        )
        self._server = HealthServer(self._parts.health, metrics)
        self._external = ExternalMetrics(self._parts.cache, self._clock)

    async def run(self) -> None:
        """Serve until told to stop. Raises: whatever ended any part of it."""
        port = await self._server.start(self._settings.port)
        log.info("Started", extra={"port": port, "namespaces": self._settings.namespaces or "all"})
        await self._check_kinds()
        await self._resync()
        await self._serve_external_metrics()
        works = [self._work() for _ in range(self._settings.workers)]
        tasks = [self._task(body) for body in (*works, self._resync_forever(), self._beat(), self._await_crash())]
        watching = self._task(self._watch())
        try:
            ended, _ = await asyncio.wait([watching, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            for task in (*tasks, watching):
                task.cancel()
            await asyncio.gather(*tasks, watching, return_exceptions=True)
            self._runner.close()
            await self._external.stop()
            await self._server.stop()
            log.info("Stopped")

    @staticmethod
    def _task(body: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.create_task(body)

    async def _serve_external_metrics(self) -> None:
        if self._settings.external_metrics_port:
            context = await api_server_only(self._kube, self._settings.tls_path)
            await self._external.start(self._settings.external_metrics_port, context)

    async def _check_kinds(self) -> None:
        """Both kinds must be served: with one of them missing, the watch would sit there in silence.

        Raises: ClusterUnsuitableError, ApiError.
        """
        scope = (self._settings.served_namespaces or ("",))[0]
        for resource in PLURALS.values():
            try:
                async for _ in self._kube.list(Address(resource, scope)):
                    break
            except ApiError as error:
                if error.status != HTTPStatus.NOT_FOUND:
                    raise
                advice = "apply the definitions in crds/, or install the chart; then the operator starts"
                raise ClusterUnsuitableError(f"the cluster does not know {resource}", advice=advice) from error

    async def _watch(self) -> None:
        registry = make_registry(
            self._parts.controller.hear_custom, self._parts.controller.hear_child, self._kube.login
        )
        namespaces = self._settings.served_namespaces
        await kopf.operator(
            registry=registry,
            settings=watch_settings(),
            clusterwide=not namespaces,
            namespaces=namespaces,
            standalone=True,
        )

    async def _work(self) -> None:
        queue = self._parts.queue
        while True:
            taken = queue.take(self._clock.monotonic_s())
            if taken is None:
                await self._await_work()
                continue
            try:
                await self._parts.controller.make_pass(taken)
            except Exception:
                log.exception("A pass met a bug", extra={"job": str(taken.key)})
                self._metrics.pass_over("bug", 0.0)
                queue.retry(taken.key, self._clock.monotonic_s())

    async def _await_work(self) -> None:
        """Sleep until something is added or due."""
        self._wake.clear()
        due_s = self._parts.queue.next_due_s()
        try:
            async with asyncio.timeout(None if due_s is None else max(0.0, due_s - self._clock.monotonic_s())):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _resync(self) -> None:
        await self._parts.controller.resync(self._settings.served_namespaces, SELECTOR)
        self._parts.health.resynced()

    async def _resync_forever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.resync_every_s)
            try:
                await self._resync()
            except ApiError as error:  # health ends the process when it stays so
                log.warning("The resync failed", extra={"error": str(error)})

    async def _beat(self) -> None:
        while True:
            self._parts.health.beat()
            await asyncio.sleep(HEARTBEAT_EVERY_S)

    async def _await_crash(self) -> None:
        await self._crash

    def _crashed(self, error: BaseException) -> None:
        if not self._crash.done():
            self._crash.set_exception(error)


async def serve(settings: OperatorSettings, config: Config, path: Path | None) -> None:
    """Run the operator until it is told to stop."""
    metrics = Metrics()
    async with Kube(metrics, kubeconfig=path) as kube:
        await Process(settings, config, kube, metrics).run()


async def tick(path: Path | None) -> None:
    """Do what a recurring run's pod is for. Raises: PagemillError."""
    settings = read_settings()
    template = read_template(settings.job_path)
    async with Kube(Metrics(), kubeconfig=path) as kube:
        await run_next(settings, template, kube)


def main() -> None:
    """Run and exit: 0 when told to stop, else non-zero, to be started again.

    Without an argument, be the operator; with `next-run`, do one tick of a series.
    """
    settings = OperatorSettings()
    logs.set_up(settings.log_level)
    path = kubeconfig(dict(os.environ))
    try:
        match sys.argv[1:]:
            case []:
                asyncio.run(serve(settings, read_config(settings.config_path), path))
            case ["next-run"]:
                asyncio.run(tick(path))
            case others:
                raise InvalidSpecError(f"there is no {' '.join(others)!r}", advice="give no argument, or next-run")
    except PagemillError as error:
        fields = {"reason": error.reason, "problem": error.message, "advice": error.advice}
        log.error("Cannot do what was asked", extra=fields)  # noqa: TRY400
        sys.exit(error.exit_code)
    except ApiError as error:
        log.error("The API server ended the operator", extra={"error": str(error)})  # noqa: TRY400
        sys.exit(EXIT_CLUSTER)
    except KeyboardInterrupt:
        sys.exit(0)
    except Exception:
        log.exception("The operator ended by a bug")
        sys.exit(EXIT_BUG)


if __name__ == "__main__":
    main()
