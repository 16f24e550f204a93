"""`pagemill logs`: what a job's pods say.

Layer: `cli.commands`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from pagemill_cli.cluster.ending import ending_of, next_steps
from pagemill_cli.cluster.jobs import Jobs
from pagemill_cli.cluster.kinds import JobRef
from pagemill_cli.cluster.logs import Follower, LogLine, collected
from pagemill_cli.cluster.views import JobView
from pagemill_cli.commands.arguments import JobName, Output, printable
from pagemill_cli.commands.cluster_arguments import (
    Context,
    JobOnCluster,
    Kubeconfig,
    Namespace,
    cluster_jobs,
    named_job,
    say_next,
)
from pagemill_core.errors import ObjectNotFoundError


def logs(
    name: JobOnCluster,
    namespace: Namespace = "",
    context: Context = "",
    job: JobName = "",
    step: Annotated[
        Literal["", "plan", "work", "finalize"], typer.Option(help="Only pods of this step. Default: all.")
    ] = "",
    wave: Annotated[int, typer.Option(min=0, help="Only pods of this wave, from 1. Default: all.")] = 0,
    shard: Annotated[int | None, typer.Option(min=0, help="Only lines about this shard, from 0.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines and pods until the end.")] = (
        False
    ),
    kubeconfig: Kubeconfig = "",
    output: Output = "text",
) -> None:
    """Print what a job's pods say, oldest pod first, each line behind its pod's name.

    Pods that Kubernetes has removed (after a suspend, a scale-down or the Jobs' time to live) have no logs any more;
    the reasons of failed items are in the output all the same. With -o json, each line is an object with its pod.

    Example: pagemill logs comics --step work --shard 17 -f
    """
    named, of_file = named_job(name, job)
    with cluster_jobs(kubeconfig, context, namespace or of_file) as jobs:
        found = jobs.find(named)
        count = 0
        for line in _lines(jobs, found, step, wave, follow=follow):
            if line.is_about(shard):
                count += 1
                typer.echo(_printed(line, output))
        if not count:
            _nothing(jobs, found, named, shard)


def _lines(jobs: Jobs, job: JobView, step: str, wave: int, *, follow: bool) -> Iterator[LogLine]:
    if not follow:
        yield from collected(jobs, job, jobs.pods(job, step, wave))
        return
    named = JobRef(job.kind, job.name)
    yield from Follower(jobs, job, step, lambda: ending_of(jobs.find(named)) is not None).lines()


def _printed(line: LogLine, output: str) -> str:
    if output == "json":
        fields = line.fields if line.fields is not None else {"message": line.text}
        return printable(json.dumps({"pod": line.pod, **fields}, ensure_ascii=False))
    return printable(f"{line.pod} {line.for_people()}")


def _nothing(jobs: Jobs, job: JobView, named: JobRef, shard: int | None) -> None:
    """Say why there is nothing. Raises: ObjectNotFoundError when pods could be expected and there are none."""
    console = Console(stderr=True)
    pods = jobs.pods(job)
    if not pods:
        raise ObjectNotFoundError(
            f"{job} has no pods now: {job.status.message or job.status.phase or 'nobody has looked at it yet'}",
            advice=f"pagemill status {named} -n {job.namespace}",
        )
    trouble = next((pod.trouble for pod in pods if pod.trouble), "")
    about = "" if shard is None else f" about shard {shard}"
    told = f": {trouble}" if trouble else ""
    console.print(f"{len(pods)} pods say nothing{about}{escape(told)}", highlight=False, soft_wrap=True)
    say_next(console, next_steps(job)[:1])
