"""Running jobs for a person: signals, progress, the summary at the end. Shared by `run` and `retry`.

Layer: `cli.commands`, below the commands themselves.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pagemill_cli.commands.arguments import OutputFormat, out, print_json
from pagemill_cli.local.run import EXIT_BY_REASON, RunOptions, RunResult, run_job
from pagemill_cli.show import Progress, duration
from pagemill_core.api.v1alpha1 import Job, OcrJob
from pagemill_core.errors import EXIT_INTERRUPTED, InvalidSpecError, OutputBusyError
from pagemill_core.storage.open import join_uri
from pagemill_worker.environment import JobEnvironment
from pagemill_worker.finalize.run_files import REPORT_KEY, summary_key
from pagemill_worker.kinds.processes import processes_on_machine
from pagemill_worker.work.step import Listeners


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What the command line says about running. `file` is what the user typed, for advice."""

    file: str
    processes: int | None = None
    log: Path | None = None
    quiet: bool = False
    wait: bool = False
    output: OutputFormat = "text"


def run_and_print(environments: Sequence[JobEnvironment], request: RunRequest) -> int:
    """Run jobs in order until one does not complete. Returns: the exit status. Raises: PagemillError."""
    results: list[dict[str, Any]] = []
    status = 0
    try:
        for environment in environments:
            status, result = _run_and_tell(environment, request)
            results.append(result)
            if status:
                break
    finally:  # what was done before an error is told too
        if request.output == "json" and results:
            print_json(results[0] if len(environments) == 1 else results)
    return status


def _run_and_tell(environment: JobEnvironment, request: RunRequest) -> tuple[int, dict[str, Any]]:
    job = environment.job
    if job.spec.effective_suspend:
        message = "spec.suspend is true: nothing was done"
        if request.output == "text":
            console = out()
            console.print(f"[bold yellow]Suspended[/] {_name(environment)}: {message}", highlight=False)
            console.print(f"[dim]→[/] set it to false, then: pagemill run {escape(request.file)}", highlight=False)
        told = {"kind": job.kind, "name": job.metadata.name, "outcome": "Suspended", "message": message}
        return EXIT_BY_REASON["Suspended"], told
    result = _run_one(environment, request)
    if request.output == "text":
        _summary(out(), environment, result, request.file)
    return EXIT_BY_REASON[result.outcome.reason], _as_json(environment, result)


def _name(environment: JobEnvironment) -> str:
    return f"{environment.job.kind} {environment.job.metadata.name or ''}".strip()


def processes_of(job: Job) -> int:
    """Processes for the job on this machine, as its file says. Raises: InvalidSpecError."""
    return processes_on_machine(job, os.environ)


def _run_one(environment: JobEnvironment, request: RunRequest) -> RunResult:
    console = Console(stderr=True)
    interrupted = threading.Event()

    def waiting(error: OutputBusyError) -> None:
        if not told:
            told.append(error)
            console.print(f"Waiting: {escape(error.message)}", highlight=False, soft_wrap=True)

    told: list[OutputBusyError] = []
    with (
        _open_log(request.log) as stderr,
        _catching_signals(interrupted, console),
        Progress(console, _name(environment), quiet=request.quiet) as progress,
    ):
        options = RunOptions(
            processes=request.processes or processes_of(environment.job),
            environment=dict(os.environ),
            stderr=stderr,
            interrupted=interrupted,
            show=progress.scene,
            planning=progress.planning,
            listeners=Listeners(progress=progress.answer),
            waiting=waiting if request.wait else None,
        )
        return run_job(environment, options)


@contextmanager
def _open_log(path: Path | None) -> Iterator[Any]:
    try:
        file = (path or Path(os.devnull)).open("ab")
    except OSError as error:
        raise InvalidSpecError(f"--log: {path} cannot be written: {error.strerror}") from error
    with file:
        yield file


@contextmanager
def _catching_signals(interrupted: threading.Event, console: Console) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM asks for a clean stop, the second one ends at once."""

    def stop(number: int, _: FrameType | None) -> None:
        if interrupted.is_set():
            os._exit(EXIT_INTERRUPTED)
        interrupted.set()
        console.print("Stopping: pages at hand are finished; Ctrl-C again to leave at once.")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _as_json(environment: JobEnvironment, result: RunResult) -> dict[str, Any]:
    totals = result.outcome.totals
    return {
        "kind": environment.job.kind,
        "name": environment.job.metadata.name,
        "run": result.run,
        "outcome": result.outcome.reason or "Complete",
        "message": result.outcome.message,
        "worked": result.worked,
        "items": totals.items.model_dump(by_alias=True),
        "failedByClass": totals.failure_classes,
        "shards": {"total": totals.shards, "done": totals.shards_done},
        "spent": format(result.outcome.spent.cost, "f"),
        "seconds": result.outcome.spent.seconds,
        "output": result.output_uri,
        "report": join_uri(result.output_uri, REPORT_KEY),
        "summary": join_uri(result.output_uri, summary_key(int(result.run[:8]))),
        "warnings": list(result.warnings),
    }


def _summary(console: Console, environment: JobEnvironment, result: RunResult, file: str) -> None:
    totals, reason = result.outcome.totals, result.outcome.reason
    items = totals.items
    style, word = ("green", "Complete") if not reason else ("yellow", reason)
    if not reason and not result.worked:
        word = "Complete: already done, 0 items to do"
    elif not reason and items.failed:
        word = "Complete with failures"
    console.print(f"[bold {style}]{word}[/] {escape(result.outcome.message)}", highlight=False)
    grid = Table.grid(padding=(0, 2))
    grid.add_row("Items", f"{items.succeeded:,} succeeded, {items.failed:,} failed, {items.skipped:,} skipped")
    for name, count in totals.failure_classes.items():
        grid.add_row("", f"{count:,} × {escape(name)}")
    if result.worked and result.outcome.spent.seconds:
        grid.add_row("Time", duration(result.outcome.spent.seconds))
    if result.outcome.spent.cost:
        grid.add_row("Cost", f"{result.outcome.spent.cost:.4f}")
    grid.add_row("Results", escape(_results(environment, result)))
    if not reason or reason == "TooManyFailures":
        grid.add_row("Report", escape(join_uri(result.output_uri, REPORT_KEY)))
    for warning in result.warnings:
        grid.add_row("Note", escape(warning))
    console.print(grid)
    _next_steps(console, result, file)


def _results(environment: JobEnvironment, result: RunResult) -> str:
    """Where the results are: an OcrJob's below its prefix, an EmbeddingJob's at the output itself."""
    job = environment.job
    if isinstance(job, OcrJob):
        return join_uri(result.output_uri, job.spec.output.effective_prefix)
    return result.output_uri


def _next_steps(console: Console, result: RunResult, file: str) -> None:
    if result.outcome.reason in ("Interrupted", "BudgetExceeded", "DeadlineExceeded", "ShardsExhausted"):
        console.print(f"[dim]Go on with:[/] pagemill run {escape(file)}", highlight=False)
    elif result.outcome.totals.items.failed:
        console.print(f"[dim]Try the failed items again:[/] pagemill retry --failed {escape(file)}", highlight=False)
