"""A job on a cluster as a person, or a program, sees it: one picture, or one after another until it comes to rest.

Layer: `cli.commands`, below `status` and `submit`.
"""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Callable
from typing import Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pagemill_cli.cluster.ending import Ending, ending_of, next_steps
from pagemill_cli.cluster.views import JobView, age
from pagemill_cli.commands.arguments import printable
from pagemill_cli.show import duration

MAX_FAILURES_SHOWN = 5
STYLES = {"Succeeded": "green", "Failed": "red", "Suspended": "yellow", "Waiting": "yellow", "Queued": "yellow"}
_MARKS = {"True": "[green]✓[/]", "False": "[dim]·[/]", "Unknown": "[yellow]?[/]"}
_BAD_WHEN_TRUE = "Failed"


def as_json(job: JobView) -> dict[str, Any]:
    """The job's status for programs, as the cluster has it, with what it means."""
    ended = ending_of(job)
    return {
        "kind": job.kind,
        "namespace": job.namespace,
        "name": job.name,
        "uid": job.uid,
        "output": job.output_uri,
        "isOver": ended is not None,
        "exitStatus": None if ended is None else ended.exit_status,
        "status": job.status_json,
        "next": next_steps(job),
    }


def picture(job: JobView, now: dt.datetime) -> RenderableType:
    """The job for people, with what to do next."""
    grid = Table.grid(padding=(0, 2))
    grid.add_row("Job", f"[bold]{escape(str(job))}[/] in namespace {escape(job.namespace)}")
    _add_phase(grid, job)
    _add_counts(grid, job, now)
    _add_conditions(grid, job)
    for sample in job.status.failures[:MAX_FAILURES_SHOWN]:
        grid.add_row("Failed", f"{escape(sample.item)}: {escape(sample.class_)}: {escape(sample.message)}")
    grid.add_row("Output", escape(job.output_uri))
    if job.status.results is not None and job.status.results.report:
        grid.add_row("Report", escape(job.status.results.report))
    if job.note:
        grid.add_row("Note", escape(job.note))
    steps = [Text.from_markup(f"[dim]→[/] {escape(step)}") for step in next_steps(job)]
    return Group(grid, *steps)


def _add_phase(grid: Table, job: JobView) -> None:
    phase = "Deleting" if job.is_deleting else job.status.phase or "Pending"
    style = STYLES.get(phase, "cyan")
    ended = ending_of(job)
    reason = ended.reason if ended else ""
    grid.add_row("Phase", f"[bold {style}]{phase}[/] {escape(reason)}")
    if job.status.message:
        grid.add_row("", escape(job.status.message))


def _add_counts(grid: Table, job: JobView, now: dt.datetime) -> None:
    status = job.status
    if status.items is not None:
        items = status.items
        finished = items.succeeded + items.failed + items.skipped
        grid.add_row("Items", f"{finished:,}/{items.total:,} done: {items.succeeded:,} succeeded, {items.failed:,} "
                     f"failed, {items.skipped:,} skipped")  # fmt: skip
        if items.already_done:
            grid.add_row("", f"{items.already_done:,} more were done by earlier runs")
    if status.shards is not None:
        retried = f", {status.shards.failed:,} failed so far" if status.shards.failed else ""
        grid.add_row("Shards", f"{status.shards.succeeded:,}/{status.shards.total:,}{retried}")
    for child in status.jobs:
        wave = f" wave {child.wave}" if child.wave else ""
        grid.add_row("Child", f"{child.kind}{wave}: job/{escape(child.name)}")
    if status.replicas is not None and ending_of(job) is None:
        grid.add_row("Pods", f"{status.replicas:,} of {job.parallelism:,}")
    if status.rate:
        grid.add_row("Rate", f"{escape(status.rate)}, ETA {escape(status.eta or '–')}")
    if status.cost is not None:
        estimated = f" of about {status.cost.estimated}" if status.cost.estimated else ""
        grid.add_row("Cost", escape(f"{status.cost.spent}{estimated} {status.cost.currency}"))
    started_s = age(status.start_time, status.completion_time or now)
    if started_s is not None:
        grid.add_row("Time", duration(started_s))
    if status.run:
        grid.add_row("Run", escape(status.run))


def _add_conditions(grid: Table, job: JobView) -> None:
    label = "Conditions"
    for condition in job.status.conditions:
        mark = "[red]✗[/]" if condition.type == _BAD_WHEN_TRUE and condition.status == "True" else ""
        text = f"{mark or _MARKS[condition.status]} {condition.type} [dim]{escape(condition.reason)}[/]"
        message = condition.message if condition.message != job.status.message else ""
        grid.add_row(label, f"{text} {escape(message)}".rstrip())
        label = ""


def follow(
    look: Callable[[], JobView], console: Console, *, every_s: float, output: str, limit_s: float | None
) -> Ending | None:
    """Show the job until it comes to rest. Returns: how, None when `limit_s` seconds were not enough.

    On a terminal the picture is drawn anew; elsewhere each change is one line, of JSON if asked for.
    """
    began = time.monotonic()
    with Live(console=console, auto_refresh=False, transient=False) as live:
        told = ""
        while True:
            job = look()
            ended = ending_of(job)
            if output == "text" and console.is_terminal:
                live.update(picture(job, dt.datetime.now(dt.UTC)), refresh=True)
            elif (line := _line(job, output)) != told:
                told = line
                typer.echo(line)
            is_late = limit_s is not None and time.monotonic() - began > limit_s
            if ended is not None or is_late:
                if output == "text" and not console.is_terminal:
                    console.print(picture(job, dt.datetime.now(dt.UTC)))
                return ended
            time.sleep(every_s)


def _line(job: JobView, output: str) -> str:
    if output == "json":
        return printable(json.dumps(as_json(job), ensure_ascii=False))
    words = (job.status.phase or "Pending", job.status.done or "", job.status.rate or "", job.status.message or "")
    return f"{job}: {' '.join(word for word in words if word)}"
