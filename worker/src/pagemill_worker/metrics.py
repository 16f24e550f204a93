"""What a worker tells Prometheus: items by outcome, seconds by stage, queues, bytes, deaths.

Layer: the worker's bottom. Labels are outcomes, stages and causes, never items, shards or jobs, so their number is
bounded; counters never fall. Off unless a port is given. docs/reference/metrics.md lists every series, and a test
compares.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from pagemill_worker.items import ItemResult
from pagemill_worker.work.usage import PoolUsage

STAGES = ("fetch", "decode", "list", "recognise", "encode", "infer", "classify")
PREPARING = ("fetch", "decode", "list")
SECONDS_BUCKETS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
COMMIT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30)


class WorkerMetrics:
    """One process's series. `stage` is one of STAGES or a stage of the job's own; anything else counts as infer."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._stages = set(STAGES)
        self._cpu_by_pid: dict[int, float] = {}
        self.items = self._counter("items", "Items ended, by outcome: succeeded, failed, skipped.", ("outcome",))
        self.item_seconds = Histogram(
            "pagemill_item_stage_seconds",
            "Seconds one item spent in a stage.",
            ("stage",),
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self.read_bytes = self._counter("read_bytes", "Bytes of items' inputs that were read.")
        self.shards = self._counter(
            "shards", "Shards ended here: committed, lost (another attempt won), failed.", ("outcome",)
        )
        self.commit_seconds = Histogram(
            "pagemill_shard_commit_seconds",
            "Seconds from a shard's last item to its marker and views being in the store.",
            buckets=COMMIT_BUCKETS,
            registry=self.registry,
        )
        self.deaths = self._counter(
            "engine_deaths", "Engine processes that died at work: timeout, memory, crash.", ("cause",)
        )
        self.queue = self._gauge("queue_items", "Items handed to the pool and not answered yet.")
        self.open_shards = self._gauge("open_shards", "Shards begun and not committed yet.")
        self.processes = self._gauge("engine_processes", "Engine processes alive.")
        self.stage_threads = self._gauge(
            "stage_threads", "Threads that could work on a stage at once; stages of one side share them.", ("stage",)
        )
        self.stage_queue = self._gauge(
            "stage_queue_items", "Items that wait for a stage: fetch, model (prepared), write (ended).", ("stage",)
        )
        self.cpu_seconds = self._counter("engine_cpu_seconds", "Processor time of engine processes.")
        self.resident_bytes = self._gauge("engine_resident_bytes", "Memory of engine processes.")
        self.gpu_bytes = self._gauge("engine_gpu_memory_bytes", "Memory of GPUs that engine processes hold.")
        self.api_cost = self._counter("api_cost", "Money paid to remote APIs, in the unit they charge.")

    def name_stages(self, names: Iterable[str]) -> None:
        """Take the stages of the job at work as labels; a job has at most 16 of its own."""
        self._stages |= set(names)

    def measure_pool(self, usage: PoolUsage, ended: int) -> None:
        """Show what the pool's processes use; `ended` items wait to be written. Processor time only ever grows."""
        for stage in self._stages:
            threads = usage.prepare_threads if stage in PREPARING else usage.model_threads
            self.stage_threads.labels(stage).set(threads)
        for stage, count in (("fetch", usage.waiting), ("model", usage.prepared), ("write", ended)):
            self.stage_queue.labels(stage).set(count)
        self.resident_bytes.set(usage.resident_bytes)
        self.gpu_bytes.set(usage.gpu_bytes)
        now = usage.cpu_by_pid or {}
        grown = {pid: seconds - self._cpu_by_pid.get(pid, 0.0) for pid, seconds in now.items()}
        self.cpu_seconds.inc(sum(seconds for seconds in grown.values() if seconds > 0))
        self._cpu_by_pid = dict(now)

    def count_item(self, result: ItemResult, size_bytes: int, api_cost: float) -> None:
        """Count one item's end."""
        self.items.labels(result.status).inc()
        for stage, seconds in result.seconds.items():
            self.item_seconds.labels(stage if stage in self._stages else "infer").observe(seconds)
        self.read_bytes.inc(size_bytes)
        self.api_cost.inc(api_cost)

    def count_shard(self, seconds: float, *, won: bool) -> None:
        """Count one shard's end."""
        self.shards.labels("committed" if won else "lost").inc()
        if won:
            self.commit_seconds.observe(seconds)

    def count_death(self, cause: str) -> None:
        """Count one engine process that died at work."""
        self.deaths.labels(cause).inc()

    def serve(self, port: int) -> int:
        """Answer /metrics on `port` of every address (0: a free one) until `close`. Returns: the port."""
        self._server, self._thread = start_http_server(port, registry=self.registry)
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"pagemill_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(f"pagemill_{name}", text, labels, registry=self.registry)
