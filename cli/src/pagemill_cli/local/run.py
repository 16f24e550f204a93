"""Running one job on this machine: adopt its run, bind its steps, drive, say how it ended.

Layer: `cli.local`, its top. Prints nothing; whoever shows progress listens.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO

from pagemill_cli.local.driver import Driver, Outcome, Scene, Steps
from pagemill_cli.local.engines import EnginesAhead
from pagemill_cli.local.heartbeat import Heartbeat
from pagemill_core.api.v1alpha1 import Job
from pagemill_core.api.workkey import work_key
from pagemill_core.errors import (
    IntegrityError,
    OutputBusyError,
    PagemillError,
    RetriableError,
    StoreUnavailableError,
)
from pagemill_core.ids import ulid
from pagemill_core.storage.probe import probe
from pagemill_core.work.conditional import Writer
from pagemill_core.work.finalize import read_success
from pagemill_core.work.layout import RUNS_PREFIX, RunLayout
from pagemill_core.work.ledger import Adoption, Ledger, Owner, Standing, WorkRequest
from pagemill_core.work.lifecycle import Limits, too_many_failures
from pagemill_core.work.plan import read_plan
from pagemill_core.work.records import Holder, PlanPointer, RunEntry
from pagemill_core.work.usage import UsageReader
from pagemill_worker.environment import JobEnvironment
from pagemill_worker.finalize.committed import CommittedRun
from pagemill_worker.kinds import JobKind, kind_of
from pagemill_worker.machine import boot_id, process_started
from pagemill_worker.plan.job import PlanCaller, plan_job
from pagemill_worker.work.pool import Pool
from pagemill_worker.work.step import Listeners, UsageClock, WorkOptions, work_step

ASK_AGAIN_S = 2.0


@dataclass(frozen=True)
class RunOptions:
    """What the command line decides. `stderr` takes what engine processes print; `environment` is the process's.

    `waiting` hears, every few seconds, why an output is not free; None: do not wait for it.
    """

    processes: int
    environment: Mapping[str, str]
    stderr: IO[bytes] | None = None
    interrupted: threading.Event = dataclasses.field(default_factory=threading.Event)
    show: Callable[[Scene], None] = lambda _: None
    planning: Callable[[int], None] = lambda _: None
    listeners: Listeners = Listeners()
    waiting: Callable[[OutputBusyError], None] | None = None


@dataclass(frozen=True, slots=True)
class RunResult:
    """How it ended, and where the results are. `worked` is false when everything was already done."""

    outcome: Outcome
    run: str
    output_uri: str
    worked: bool
    warnings: tuple[str, ...] = ()


def this_process() -> Holder:
    """This process as an entry's holder, so that another one on this machine can see whether it still lives."""
    pid = os.getpid()
    return Holder(host=platform.node(), boot_id=boot_id(), pid=pid, started=process_started(pid))


def is_gone(holder: Holder) -> bool:
    """Whether an entry's holder was a process of this machine that no longer exists."""
    if not holder.host or holder.host != platform.node():
        return False
    return holder.boot_id != boot_id() or process_started(holder.pid) != holder.started


def limits_of(job: Job) -> Limits:
    """The job's limits as the rule book wants them."""
    spec = job.spec
    return Limits(
        waves=spec.effective_retries.effective_waves,
        max_failed=spec.effective_retries.failure_limit,
        max_cost=spec.budget.max_cost_amount if spec.budget else None,
        deadline_s=spec.deadline_seconds,
    )


def open_ledger(writer: Writer, name: str) -> Ledger:
    """The ledger of the output, in the name of this very invocation."""
    holder = this_process()
    owner = Owner(ulid(int(writer.clock.now().timestamp() * 1000)), f"{name} on {holder.host}", holder)
    return Ledger(writer, owner, is_gone)


def run_job(environment: JobEnvironment, options: RunOptions) -> RunResult:
    """Do what is missing of the job. Raises: PagemillError; what is committed stays."""
    job = environment.job
    kind = kind_of(environment)
    kind.check()
    store = environment.open_output()
    # Once work is under way an outage is waited for; at the start a wrong address is more likely, and a person waits.
    next(iter(store.list(RUNS_PREFIX, limit=1)), None)
    writer = environment.writer(store)
    ledger = open_ledger(writer, job.metadata.name or "pagemill run")
    request = WorkRequest(
        work_key=work_key(job),
        kind=job.kind,
        incremental=job.spec.effective_incremental,
        replace=job.spec.output.effective_on_conflict == "Replace",
    )
    adoption = _adopt(ledger, request, options)
    if adoption.standing is Standing.COMPLETE:
        return _already_complete(writer, adoption, limits_of(job))
    return _OpenRun(environment, kind, options, writer, ledger, adoption).drive()


def _adopt(ledger: Ledger, request: WorkRequest, options: RunOptions) -> Adoption:
    """Find or claim the run; with `waiting`, as long as it takes. Raises: OutputBusyError."""
    while True:
        try:
            return ledger.adopt(request)
        except OutputBusyError as error:
            if options.waiting is None:
                raise
            options.waiting(error)
            if options.interrupted.wait(ASK_AGAIN_S):
                raise


def _already_complete(writer: Writer, adoption: Adoption, limits: Limits) -> RunResult:
    """A finished run, its verdict taken anew from its totals and today's limits."""
    layout = RunLayout(adoption.held.run)
    success = read_success(writer, layout)
    if success is None:
        raise IntegrityError(f"run {layout.run} is Finished, but {layout.success} is gone")
    message = too_many_failures(success.totals, success.totals.items.planned, limits)
    outcome = Outcome(
        "TooManyFailures" if message else "", message, success.totals, UsageReader(writer, layout).spent()
    )
    return RunResult(outcome, layout.run, writer.store.uri, worked=False)


@dataclass(frozen=True)
class _OpenRun:
    """An adopted run with everything bound to it."""

    environment: JobEnvironment
    kind: JobKind
    options: RunOptions
    writer: Writer
    ledger: Ledger
    adoption: Adoption

    @property
    def layout(self) -> RunLayout:
        return RunLayout(self.adoption.held.run)

    @property
    def entry(self) -> RunEntry:
        return self.adoption.held.entry

    def drive(self) -> RunResult:
        with (
            ThreadPoolExecutor(1, thread_name_prefix="probe") as executor,
            EnginesAhead(self._make_pool) as engines,
            Heartbeat(self.ledger, self.adoption.held, self.environment.clock) as heart,
        ):
            # Beside planning, since it takes seconds on a slow store; nothing is committed before it has passed.
            probing = executor.submit(probe, self.writer.store)
            steps = Steps(
                read_plan=lambda: read_plan(self.writer, self.layout),
                plan=lambda: self._plan(engines),
                kind=self._kind,
                work=lambda kind, shards, listeners: (
                    bool(probing.result()) and self._work(engines, kind, shards, listeners)
                ),
            )
            driver = Driver(
                writer=self.writer,
                layout=self.layout,
                heart=heart,
                steps=steps,
                limits=limits_of(self.environment.job),
                usage=UsageClock(self.writer, self.layout, self.environment, pod=self.entry.owner),
                listeners=self.options.listeners,
                interrupted=self.options.interrupted,
                show=self.options.show,
            )
            try:
                outcome = driver.drive()
            except PagemillError as error:
                self._let_go(heart, error)
                raise
        plan = read_plan(self.writer, self.layout)
        return RunResult(
            outcome, self.layout.run, self.writer.store.uri, worked=True, warnings=tuple(plan.warnings) if plan else ()
        )

    def _let_go(self, heart: Heartbeat, error: PagemillError) -> None:
        """Release the entry, so that the next command need not wait; a run without a plan is of no use to anyone."""
        if heart.lost or isinstance(error, StoreUnavailableError):
            return  # a store that just used up all patience would use it up once more; a dead holder is noticed anyway
        with contextlib.suppress(RetriableError):  # `error` is what counts
            if read_plan(self.writer, self.layout) is None:
                heart.update(state="GivenUp", reason=error.reason, owner="")
            else:
                heart.update(owner="", reason=error.reason)

    def _plan(self, engines: EnginesAhead) -> PlanPointer:
        engines.start()
        caller = PlanCaller(
            self.ledger, self.entry, self.adoption.predecessors, self.options.processes, self.options.planning
        )
        return plan_job(self.environment, self.kind, self.writer, caller)

    def _kind(self, pointer: PlanPointer) -> CommittedRun:
        return self.kind.committed(self.writer, pointer, self.options.processes)

    def _work(self, engines: EnginesAhead, kind: CommittedRun, shards: Iterator[int], listeners: Listeners) -> bool:
        return work_step(kind, engines.take(), shards, self._work_options(), listeners).stopped

    def _work_options(self) -> WorkOptions:
        return WorkOptions(
            processes=self.options.processes,
            worker=f"{platform.node()}/{os.getpid()}",
            environment=self.options.environment,
            stderr=self.options.stderr,
        )

    def _make_pool(self) -> Pool:
        return Pool(self.kind.pool_settings(self._work_options()), self.options.listeners.metrics.count_death)


EXIT_BY_REASON: Mapping[str, int] = {
    "": 0,
    "TooManyFailures": 3,
    "BudgetExceeded": 4,
    "DeadlineExceeded": 5,
    "EngineBroken": 69,
    "ShardsExhausted": 75,
    "Suspended": 75,
    "Cancelled": 130,
    "Interrupted": 130,
}
"""The exit status for each reason a run of the command can end with; documented in docs/operations/errors.md."""
