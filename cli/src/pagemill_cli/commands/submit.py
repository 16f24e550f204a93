"""`pagemill submit`: give a job's file to a cluster.

Layer: `cli.commands`.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from pagemill_cli.cluster.ending import EXIT_STOPPED
from pagemill_cli.cluster.jobs import Jobs, Submitted
from pagemill_cli.cluster.kinds import JobRef
from pagemill_cli.commands.arguments import JobFile, JobName, Output, out, print_json
from pagemill_cli.commands.cluster_arguments import Context, Kubeconfig, Namespace, cluster_jobs, say_next
from pagemill_cli.commands.cluster_view import as_json, follow
from pagemill_cli.commands.run import in_order
from pagemill_cli.job_file import read_jobs
from pagemill_core.api.v1alpha1 import Job
from pagemill_core.errors import InvalidSpecError

EVERY_S = 2.0


def submit(
    file: JobFile,
    namespace: Namespace = "",
    context: Context = "",
    job: JobName = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Let the cluster check everything and keep nothing.")] = (
        False
    ),
    wait: Annotated[bool, typer.Option("--wait", help="Show the job until it ends; its exit status is the job's.")] = (
        False
    ),
    timeout: Annotated[float | None, typer.Option(min=1, help="With --wait: seconds at most. Default: no limit.")] = (
        None
    ),
    force: Annotated[bool, typer.Option("--force", help="Take over fields that somebody else has set otherwise.")] = (
        False
    ),
    kubeconfig: Kubeconfig = "",
    output: Output = "text",
) -> None:
    """Give the jobs of a file to a cluster, or bring them up to the file: the same as kubectl apply, checked first.

    The file is checked as `pagemill run` does, every problem at once with its line. Of a job that is there already,
    what its work is cannot change once it is planned; pool, parallelism, budget, deadline and the like can. Submit
    again at any time: nothing is done twice. A job that was cancelled goes on where it stopped.

    With --wait the exit status is the job's end: 0 complete, 3 more failures than allowed, 4 budget, 5 deadline, 75
    suspended or out of --timeout, 78 not accepted. Ctrl-C leaves the job as it is.

    Example: pagemill submit job.yaml --namespace scans --wait
    """
    read = read_jobs(file)
    for warning in read.warnings:
        Console(stderr=True).print(f"[yellow]Warning:[/] {escape(warning)}", highlight=False)
    chosen = [one for one in in_order(read.jobs) if not job or one.metadata.name == job]
    if not chosen:
        names = ", ".join(str(one.metadata.name) for one in read.jobs)
        raise InvalidSpecError(f"{file} holds no job named {job}", advice=f"it holds: {names}")
    told: list[dict[str, Any]] = []
    status = 0
    for namespace_of_job, some in _by_namespace(chosen, namespace):
        with cluster_jobs(kubeconfig, context, namespace_of_job) as jobs:
            done = [jobs.submit(one, dry_run=dry_run, force=force) for one in some]
            if output == "text":
                _tell(jobs, done, dry_run=dry_run, is_watched=wait and not dry_run)
            told += [{**as_json(one.job), "isNew": one.is_new, "dryRun": dry_run} for one in done]
            if wait and not dry_run:
                status = _wait(jobs, done, output, timeout) or status
    if output == "json" and (dry_run or not wait):
        print_json(told[0] if len(told) == 1 else told)
    raise typer.Exit(status)


def _by_namespace(chosen: list[Job], namespace: str) -> list[tuple[str, list[Job]]]:
    """The jobs by where they go, in order; "" is the context's own namespace."""
    if namespace:
        return [(namespace, chosen)]
    groups: dict[str, list[Job]] = {}
    for one in chosen:
        groups.setdefault(one.metadata.namespace or "", []).append(one)
    return list(groups.items())


def _tell(jobs: Jobs, done: list[Submitted], *, dry_run: bool, is_watched: bool) -> None:
    console = out()
    for one in done:
        verb = "would be " if dry_run else ""
        word = f"{verb}created" if one.is_new else f"{verb}brought up to the file"
        where = f"namespace {one.job.namespace}, context {jobs.context}"
        console.print(f"[bold]{escape(str(one.job))}[/] {word} in {escape(where)}", highlight=False)
        if not dry_run and not is_watched:
            say_next(
                console,
                [
                    f"pagemill status {one.job.words} --watch",
                    f"pagemill logs {one.job.words} --follow",
                    f"kubectl get pagemill -n {one.job.namespace} -w",
                ],
            )


def _wait(jobs: Jobs, done: list[Submitted], output: str, limit_s: float | None) -> int:
    """Follow each job to its end. Returns: the first exit status that is not 0."""
    status = 0
    for one in done:
        look = partial(jobs.find, JobRef(one.job.kind, one.job.name))
        ended = follow(look, out(), every_s=EVERY_S, output=output, limit_s=limit_s)
        status = status or (EXIT_STOPPED if ended is None else ended.exit_status)
    return status
