"""`pagemill run`: do what is missing of a job, on this machine.

Layer: `cli.commands`.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pagemill_cli.job_file import Job, environment_of, read_jobs
from pagemill_cli.local.run import EXIT_BY_REASON, RunOptions, RunResult, run_job
from pagemill_cli.settings import CliSettings
from pagemill_cli.show import Progress, duration
from pagemill_core.errors import EXIT_INTERRUPTED, InvalidSpecError
from pagemill_core.storage.open import join_uri
from pagemill_worker.environment import JobEnvironment
from pagemill_worker.finalize.extras import REPORT_KEY, summary_key
from pagemill_worker.work.step import Listeners, default_processes

OutputFormat = Literal["text", "json"]


def run(
    file: Annotated[
        str, typer.Argument(help="The job's YAML file, the same one Kubernetes takes; - for standard input.")
    ],
    processes: Annotated[
        int | None, typer.Option("--processes", "-p", min=1, help="Engine processes. Default: this machine's cores.")
    ] = None,
    output: Annotated[OutputFormat, typer.Option("--output", "-o", help="How the result is printed.")] = "text",
    api_key: Annotated[
        str, typer.Option(help="API key of a remote engine; better: OPENROUTER_API_KEY in the environment.")
    ] = "",
    log: Annotated[Path | None, typer.Option(help="File for what engine processes print. Default: nowhere.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")] = False,
) -> None:
    """Do what is missing of a job and show how it goes. Run it again at any time: only what is missing is done.

    Ctrl-C stops cleanly; the same command goes on. Exit status: 0 complete, 3 more failures than allowed, 4 budget
    spent, 5 deadline passed, 130 interrupted; 65 to 78 say what is wrong with the file, the source or the store.
    """
    console = Console(stderr=True)
    jobs, warnings, base = read_jobs(file)
    for warning in warnings:
        console.print(f"[yellow]Warning:[/] {escape(warning)}", highlight=False)
    settings = CliSettings()
    results = []
    status = 0
    for job in in_order(jobs):
        environment = environment_of(job, base, settings, api_key)
        result = _run_one(environment, processes or _processes(job), log, console, quiet=quiet)
        results.append(_as_json(environment, result))
        status = EXIT_BY_REASON[result.outcome.reason]
        if output == "text":
            _summary(Console(), environment, result, file)
        if status:
            break
    if output == "json":
        typer.echo(json.dumps(results if len(results) != 1 else results[0], indent=2, ensure_ascii=False))
    raise typer.Exit(status)


def in_order(jobs: Sequence[Job]) -> list[Job]:
    """Jobs of one file so that each comes after those it depends on. Raises: InvalidSpecError for a cycle."""
    left = list(jobs)
    names = {(job.kind, job.metadata.name) for job in jobs}
    done: set[tuple[str, str | None]] = set()
    ordered: list[Job] = []
    while left:
        ready = next((job for job in left if _needs(job) & names <= done), None)
        if ready is None:
            circle = ", ".join(f"{job.kind}/{job.metadata.name}" for job in left)
            raise InvalidSpecError(f"dependsOn: these jobs wait for one another: {circle}")
        left.remove(ready)
        done.add((ready.kind, ready.metadata.name))
        ordered.append(ready)
    return ordered


def _needs(job: Job) -> set[tuple[str, str | None]]:
    return {(dependency.kind, dependency.name) for dependency in job.spec.all_dependencies}


def _processes(job: Job) -> int:
    wanted = job.spec.workers.effective_processes_per_pod
    return wanted if isinstance(wanted, int) else default_processes()


def _run_one(
    environment: JobEnvironment, processes: int, log: Path | None, console: Console, *, quiet: bool
) -> RunResult:
    interrupted = threading.Event()
    name = f"{environment.job.kind} {environment.job.metadata.name or ''}".strip()
    with (
        _open_log(log) as stderr,
        _catching_signals(interrupted, console),
        Progress(console, name, quiet=quiet) as progress,
    ):
        options = RunOptions(
            processes=processes,
            environment=dict(os.environ),
            stderr=stderr,
            interrupted=interrupted,
            show=progress.scene,
            planning=progress.planning,
            listeners=Listeners(progress=progress.answer),
        )
        return run_job(environment, options)


@contextmanager
def _open_log(path: Path | None) -> Iterator[Any]:
    with (path or Path(os.devnull)).open("ab") as file:
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
    grid.add_row("Results", escape(join_uri(result.output_uri, environment.job.spec.output.effective_prefix)))
    if not reason or reason == "TooManyFailures":
        grid.add_row("Report", escape(join_uri(result.output_uri, REPORT_KEY)))
    for warning in result.warnings:
        grid.add_row("Note", escape(warning))
    console.print(grid)
    _next_steps(console, result, file)


def _next_steps(console: Console, result: RunResult, file: str) -> None:
    if result.outcome.reason in ("Interrupted", "BudgetExceeded", "DeadlineExceeded", "ShardsExhausted"):
        console.print(f"[dim]Go on with:[/] pagemill run {escape(file)}", highlight=False)
    elif result.outcome.totals.items.failed:
        console.print(f"[dim]Try the failed items again:[/] pagemill retry --failed {escape(file)}", highlight=False)
