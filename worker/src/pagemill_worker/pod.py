"""One pod's step of a job: plan, work on an index of a wave, or finalize.

Layer: the worker's top, below `main`. Told by a `PodTask`; answers by returning whether it did everything it was asked.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import SecretStr

from pagemill_core.api.load import load_jobs
from pagemill_core.api.workkey import work_key
from pagemill_core.clock import iso
from pagemill_core.errors import IntegrityError, InvalidSpecError, OutputBusyError, RetriableError
from pagemill_core.ids import ulid
from pagemill_core.storage.probe import probe
from pagemill_core.work.conditional import Writer
from pagemill_core.work.finalize import publish_missing, seal_missing, succeed, write_report
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.ledger import Ledger, Owner, WorkRequest
from pagemill_core.work.plan import read_plan
from pagemill_core.work.pod import PodStep, PodTask
from pagemill_core.work.records import PlanPointer, RunReport
from pagemill_core.work.tracker import Tracker
from pagemill_core.work.usage import UsageReader
from pagemill_core.work.waves import read_wave, shards_of_index
from pagemill_worker.environment import JobEnvironment
from pagemill_worker.kinds import JobKind, kind_of
from pagemill_worker.kinds.processes import processes_on_machine
from pagemill_worker.machine import rss_bytes
from pagemill_worker.metrics import WorkerMetrics
from pagemill_worker.plan.job import PlanCaller, plan_job
from pagemill_worker.work.pool import Pool
from pagemill_worker.work.step import MEMORY_SHARE, Listeners, UsageClock, WorkOptions, work_step

LEDGER_EVERY_S = 10.0


@dataclass(frozen=True)
class Pod:
    """One pod. `stopping` is set by SIGTERM, or here when the ledger says that this work is no longer wanted."""

    task: PodTask
    environment: JobEnvironment
    process_environment: Mapping[str, str]
    stopping: threading.Event
    metrics: WorkerMetrics

    def run(self) -> bool:
        """Do the step. Returns: whether all of it is done; False when it was asked to stop first.

        Raises: PagemillError; its exit code tells the Job whether another pod may try.
        """
        steps: Mapping[PodStep, Callable[[], bool]] = {
            PodStep.PLAN: self._plan,
            PodStep.WORK: self._work,
            PodStep.FINALIZE: self._finalize,
        }
        return steps[self.task.step]()

    # -- steps ------------------------------------------------------------------------------------------------------

    def _plan(self) -> bool:
        probe(self.writer.store)
        job = self.environment.job
        request = WorkRequest(
            work_key=work_key(job),
            kind=job.kind,
            incremental=job.spec.effective_incremental,
            replace=job.spec.output.effective_on_conflict == "Replace",
        )
        adoption = self.ledger.adopt(request)
        if adoption.held.run != self.task.run or adoption.held.entry.epoch != self.task.epoch:
            raise OutputBusyError(f"run {self.task.run} is no longer the one to plan; {adoption.held.run} is")
        caller = PlanCaller(self.ledger, adoption.held.entry, adoption.predecessors, self.task.slots)
        plan_job(self.environment, self.kind, self.writer, caller)
        return True

    def _work(self) -> bool:
        pointer = self._pointer()
        wave = read_wave(self.writer, self.layout, self.task.wave)
        if wave is None:
            raise IntegrityError(f"run {self.task.run} has no wave {self.task.wave}")
        shards = shards_of_index(wave.ranges, self.task.completion_index, self.task.completions)
        usage = UsageClock(self.writer, self.layout, self.environment, pod=self._pod_id())
        options = WorkOptions(
            processes=self._processes(),
            worker=self.task.pod_name or self._pod_id(),
            environment=self.process_environment,
            memory_bytes=self._memory_per_process(),
            memory_rung=self.task.memory_rung,
            can_have_more_memory=self.task.can_have_more_memory,
            planned=pointer.fingerprint_fields,
        )
        pool = self.kind.pool_settings(options)
        listeners = Listeners(
            progress=lambda answer: usage.add_api_cost(answer.api_cost),
            should_stop=self.stopping.is_set,
            metrics=self.metrics,
        )
        kind = self.kind.committed(self.writer, pointer, options.processes)
        with _Watch(self._look, usage.write_if_due, self.stopping):
            result = work_step(kind, Pool(pool, listeners.metrics.count_death), shards, options, listeners)
        usage.write()
        if result.failed:
            shard, reason = next(iter(result.failed.items()))
            raise RetriableError(f"{len(result.failed)} shards failed, the first is {shard}: {reason}")
        return not result.stopped

    def _finalize(self) -> bool:
        pointer = self._pointer()
        kind = self.kind.committed(self.writer, pointer, self._processes())
        tracker = Tracker(self.writer, self.layout, pointer.shards)
        totals = tracker.poll()
        if self.task.ending == "Complete":
            if not tracker.is_complete:
                seal_missing(self.writer, self.layout, tracker, kind, self._attempt())
                totals = tracker.poll()
            succeed(self.writer, self.layout, pointer, totals, kind)
        else:
            publish_missing(self.writer, self.layout, pointer.shards, kind)
        entry = self.ledger.read(self.layout.seq).entry
        report = RunReport(
            run=self.task.run,
            kind=pointer.kind,
            outcome=self.task.outcome or "Complete",
            message=self.task.outcome_message,
            totals=totals,
            spent=format(UsageReader(self.writer, self.layout).spent().cost, "f"),
            active_seconds=entry.active_seconds,
            ended_at=iso(self.writer.clock.now()),
        )
        write_report(self.writer, self.layout, self.task.epoch, report)
        return True

    # -- around them ------------------------------------------------------------------------------------------------

    @cached_property
    def kind(self) -> JobKind:
        return kind_of(self.environment)

    @cached_property
    def writer(self) -> Writer:
        return self.environment.writer(self.environment.open_output())

    @property
    def layout(self) -> RunLayout:
        return RunLayout(self.task.run)

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.writer, Owner(self.task.owner, self.environment.job.metadata.name or ""))

    def _look(self) -> None:
        """Stop when the run is somebody else's, is over, or is to pause."""
        entry = self.ledger.read(self.layout.seq).entry
        mine = entry.owner == self.task.owner and entry.epoch == self.task.epoch
        if not mine or entry.is_final or entry.desired != "Run":
            self.stopping.set()

    def _pointer(self) -> PlanPointer:
        pointer = read_plan(self.writer, self.layout)
        if pointer is None:
            raise IntegrityError(f"run {self.task.run} has no plan")
        return pointer

    def _processes(self) -> int:
        return processes_on_machine(self.environment.job, self.process_environment)

    def _memory_per_process(self) -> int | None:
        """What one engine process may use: of what the supervisor leaves, nearly all."""
        limit = self.task.memory_limit_bytes
        left = max(limit // 4, limit - rss_bytes(os.getpid()))
        return int(left * MEMORY_SHARE / self._processes()) if limit else None

    def _attempt(self) -> str:
        return ulid(int(self.writer.clock.now().timestamp() * 1000))

    def _pod_id(self) -> str:
        return self.task.pod_uid or f"{self.task.run}-{self.task.wave}-{self.task.completion_index}"


class _Watch:
    """Looks at the ledger every 10 s, jittered, and lets usage be written, in a thread of its own."""

    def __init__(self, look: Callable[[], None], write_usage: Callable[[], None], stopping: threading.Event) -> None:
        self._look = look
        self._write_usage = write_usage
        self._stopping = stopping
        self._over = threading.Event()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="watch")

    def __enter__(self) -> None:
        self._future = self._executor.submit(self._run)
        self._future.add_done_callback(lambda future: self._stopping.set() if future.exception() else None)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._executor.shutdown()

    def _run(self) -> None:
        while not self._over.wait(LEDGER_EVERY_S * random.uniform(0.8, 1.2)):
            self._look()
            self._write_usage()


def environment_of(task: PodTask) -> JobEnvironment:
    """The environment that a task describes.

    Raises: InvalidSpecError when its files are not as the operator makes them.
    """
    text = _read(task.job_path)
    (job,) = load_jobs(text, origin=str(task.job_path))
    output = job.spec.output.model_copy(update={"uri": task.output_uri})
    return JobEnvironment(
        job=job.model_copy(update={"spec": job.spec.model_copy(update={"output": output})}),
        base=Path("/"),
        s3=task.s3_settings(job.spec.effective_storage),
        api_key=SecretStr(_read(task.api_key_path).strip() if task.api_key_path else ""),
        allowed_hosts=tuple(host.strip() for host in task.allowed_hosts.split(",") if host.strip()),
        pool=task.pool,
        price_per_hour=task.price_per_hour,
        source_uri=task.source_uri,
        plans_for_gpu=task.has_accelerator and task.step is PodStep.PLAN,
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidSpecError(f"{path} cannot be read: {error}") from error
