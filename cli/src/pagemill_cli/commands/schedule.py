"""`pagemill schedule`: do a job again and again on a cluster, each time what is new.

Layer: `cli.commands`.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from pagemill_cli.cluster.series import Scheduled, SeriesDesk
from pagemill_cli.commands.arguments import JobFile, JobName, Output, out, print_json
from pagemill_cli.commands.cluster_arguments import Context, Kubeconfig, Namespace, cluster, say_next
from pagemill_cli.job_file import read_jobs
from pagemill_core.api.v1alpha1 import Job
from pagemill_core.errors import InvalidSpecError
from pagemill_core.recurring import SERIES_LABEL, Series

REPOSITORY = "ghcr.io/pagemill/operator"
History = Annotated[
    int, typer.Option("--history", min=0, help="Finished jobs that stay, of each outcome; results always stay.")
]
Image = Annotated[
    str, typer.Option("--image", help=f"The operator's image. Default: {REPOSITORY} of this command's version.")
]


def schedule(
    file: JobFile,
    cron: Annotated[
        str, typer.Option("--cron", metavar="CRON", help='When: minute, hour, day, month, weekday: "0 2 * * *".')
    ],
    time_zone: Annotated[str, typer.Option("--time-zone", metavar="ZONE", help="Such as Europe/Berlin.")] = "Etc/UTC",
    namespace: Namespace = "",
    context: Context = "",
    job: JobName = "",
    name: Annotated[str, typer.Option("--name", help="The series' name. Default: the job's.")] = "",
    suspend: Annotated[bool, typer.Option("--suspend", help="Make the series, and start no run yet.")] = False,
    history: History = 3,
    image: Image = "",
    access: Annotated[
        bool, typer.Option("--access", help="Make the account of the series' pods too; the chart does otherwise.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Let the cluster check everything and keep nothing.")] = (
        False
    ),
    kubeconfig: Kubeconfig = "",
    output: Output = "text",
) -> None:
    """Do a job again and again on a cluster: a CronJob makes the next job of the file at each time, incremental.

    Each run does what is new or changed since the runs before it. A time at which the run before is not finished is
    left out. Schedule again to change anything; without --suspend a suspended series goes on. The CronJob has the
    series' name: `kubectl delete cronjob NAME` ends it and leaves its jobs and results.

    Example: pagemill schedule job.yaml --cron "0 2 * * *" --time-zone Europe/Berlin
    """
    chosen = _chosen(file, job)
    with cluster(kubeconfig, context, namespace or chosen.metadata.namespace or "") as api:
        desk = SeriesDesk(api)
        series = Series(
            name=name or chosen.metadata.name or "",
            namespace=desk.namespace,
            job=chosen,
            cron=cron,
            time_zone=time_zone,
            suspend=suspend,
            keep_succeeded=history,
            keep_failed=history,
            image=image or f"{REPOSITORY}:{version('pagemill-cli')}",
        )
        done = desk.schedule(series, makes_access=access, dry_run=dry_run)
    _tell(done, output, dry_run=dry_run)


def _chosen(file: str, job: str) -> Job:
    read = read_jobs(file)
    for warning in read.warnings:
        Console(stderr=True).print(f"[yellow]Warning:[/] {escape(warning)}", highlight=False)
    chosen = [one for one in read.jobs if not job or one.metadata.name == job]
    if len(chosen) != 1:
        names = ", ".join(str(one.metadata.name) for one in read.jobs)
        raise InvalidSpecError(f"{file} must hold the one job that recurs; it holds {names}", advice="--job NAME")
    return chosen[0]


def _tell(done: Scheduled, output: str, *, dry_run: bool) -> None:
    if output == "json":
        print_json(
            {
                "name": done.name,
                "namespace": done.namespace,
                "cron": done.cron,
                "timeZone": done.time_zone,
                "suspend": done.suspend,
                "isNew": done.is_new,
                "dryRun": dry_run,
            }
        )
        return
    console = out()
    word = ("would be " if dry_run else "") + ("scheduled" if done.is_new else "brought up to this")
    paused = ", suspended" if done.suspend else ""
    text = f"{word}: {done.cron} {done.time_zone}{paused}, in namespace {done.namespace}"
    console.print(f"[bold]cronjob/{escape(done.name)}[/] {escape(text)}", highlight=False, soft_wrap=True)
    if dry_run:
        return
    here = f"-n {done.namespace}"
    say_next(
        console,
        [
            f"kubectl get pagemill {here} -l {SERIES_LABEL}={done.name} -w",
            f"kubectl create job --from=cronjob/{done.name} {done.name}-now {here}   # a run right now",
        ],
    )
