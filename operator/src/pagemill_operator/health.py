"""Whether the operator lives and is ready, from facts of its own, and its metrics: one small HTTP server.

Layer: the operator. What the watch library says of itself proves nothing: it is ready before any list, and silent
when it serves nobody.
"""

from __future__ import annotations

from aiohttp import web

from pagemill_core.clock import Clock
from pagemill_operator.metrics import Metrics

RESYNCS_MISSED = 3
HEARTBEAT_MISSED_S = 30.0


class Health:
    """Facts that the loop reports. Times are monotonic seconds."""

    def __init__(self, clock: Clock, resync_every_s: float) -> None:
        self._clock = clock
        self._resync_every_s = resync_every_s
        self._started_s = clock.monotonic_s()
        self._beat_s = self._started_s
        self._resynced_s: float | None = None

    def beat(self) -> None:
        """The loop goes round."""
        self._beat_s = self._clock.monotonic_s()

    def resynced(self) -> None:
        """Both kinds and their Jobs were listed completely."""
        self._resynced_s = self._clock.monotonic_s()

    @property
    def resync_age_s(self) -> float:
        """Seconds since the last complete list, or since the start."""
        return self._clock.monotonic_s() - (self._started_s if self._resynced_s is None else self._resynced_s)

    def trouble(self) -> str:
        """Why the process should be restarted, "" when it should not."""
        silent_s = self._clock.monotonic_s() - self._beat_s
        if silent_s > HEARTBEAT_MISSED_S:
            return f"the loop has not gone round for {silent_s:.0f} s"
        # An outage of the API server of two minutes is lived through; a watch that is dead for longer is not.
        most_s = max(RESYNCS_MISSED * self._resync_every_s, 180.0)
        if self.resync_age_s > most_s:
            return f"no complete list for {self.resync_age_s:.0f} s"
        return ""

    def unready(self) -> str:
        """Why the operator does not serve yet or any more, "" when it does."""
        if self._resynced_s is None:
            return "jobs were not listed yet"
        if self.resync_age_s > RESYNCS_MISSED * self._resync_every_s:
            return f"no complete list for {self.resync_age_s:.0f} s"
        return ""


class HealthServer:
    """Serves /healthz, /readyz and /metrics."""

    def __init__(self, health: Health, metrics: Metrics) -> None:
        self._health = health
        self._metrics = metrics
        self._runner: web.AppRunner | None = None

    async def start(self, port: int, host: str = "0.0.0.0") -> int:  # noqa: S104
        """Listen. Returns: the port, which was any free one for 0."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._serve_metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return _answer(self._health.trouble())

    async def _readyz(self, _: web.Request) -> web.Response:
        return _answer(self._health.unready() or self._health.trouble())

    async def _serve_metrics(self, _: web.Request) -> web.Response:
        text = self._metrics.render().encode()
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def _answer(problem: str) -> web.Response:
    return web.Response(status=503 if problem else 200, text=f"{problem or 'ok'}\n")
