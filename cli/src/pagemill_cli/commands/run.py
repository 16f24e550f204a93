"""`pagemill run`: do what is missing of a job, on this machine.

Layer: `cli.commands`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from pagemill_cli.commands.arguments import ApiKey, JobFile, Output, Processes
from pagemill_cli.commands.running import RunRequest, run_and_print
from pagemill_cli.job_file import environment_of, read_jobs
from pagemill_cli.settings import read_settings
from pagemill_core.api.v1alpha1 import Job
from pagemill_core.errors import InvalidSpecError


def run(
    file: JobFile,
    processes: Processes = None,
    output: Output = "text",
    api_key: ApiKey = "",
    log: Annotated[Path | None, typer.Option(help="File for what engine processes print. Default: nowhere.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait while another run works on the output.")] = False,
) -> None:
    """Do what is missing of a job and show how it goes. Run it again at any time: only what is missing is done.

    Ctrl-C stops cleanly; the same command goes on. A file of several jobs runs each after those it depends on, and
    stops at the first that does not complete. Exit status: 0 complete, 3 more failures than allowed, 4 budget spent,
    5 deadline passed, 75 suspended or busy, 130 interrupted; 65 to 78 say what is wrong with file, source or store.

    Example: pagemill run job.yaml --processes 4
    """
    found = read_jobs(file)
    for warning in found.warnings:
        Console(stderr=True).print(f"[yellow]Warning:[/] {escape(warning)}", highlight=False)
    settings = read_settings()
    environments = [environment_of(job, found, settings, api_key) for job in in_order(found.jobs)]
    request = RunRequest(processes=processes, log=log, quiet=quiet, wait=wait, output=output, file=file)
    raise typer.Exit(run_and_print(environments, request))


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
