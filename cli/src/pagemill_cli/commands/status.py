"""`pagemill status`: how a job stands, by its output or by its object on a cluster.

Layer: `cli.commands`.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from typing import Annotated

import typer
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from pagemill_cli.cluster.kinds import is_named_on_cluster
from pagemill_cli.cluster.views import JobView
from pagemill_cli.commands.arguments import JobName, Output, out, print_json, printable
from pagemill_cli.commands.cluster_arguments import Context, Kubeconfig, Namespace, cluster_jobs, named_job
from pagemill_cli.commands.cluster_view import as_json, follow, picture
from pagemill_cli.output.standing import Standing, Watcher
from pagemill_cli.output.target import open_target
from pagemill_cli.settings import read_settings
from pagemill_cli.show import duration

MAX_FAILURES_SHOWN = 5
STYLES = {"Succeeded": "green", "Failed": "red", "Suspended": "yellow"}


def status(
    target: Annotated[
        str,
        typer.Argument(
            metavar="FILE|URI|NAME",
            help="A job's YAML file, its output (s3://…, file:///…, an existing folder), or its name on a cluster: "
            "comics, ocrjob/comics, emb/books.",
        ),
    ],
    job: JobName = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again until the run ends.")] = False,
    every: Annotated[float, typer.Option(min=0.2, help="With --watch: seconds between looks.")] = 2.0,
    on_cluster: Annotated[
        bool, typer.Option("--cluster", help="Ask the cluster, also for a FILE; implied by its options below.")
    ] = False,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    output: Output = "text",
) -> None:
    """Show how a job stands: phase, items, failures, rate, cost, what to do next.

    By its file or output: how the newest run on the output stands, from the store alone. That works from any machine,
    for runs of this command and of a cluster.

    By its name, or with --cluster: what the cluster says of the job, its conditions, child Jobs and pods included. The
    exit status is 0 whatever it says; `pagemill submit --wait` ends as the job does.

    With --watch and -o json, each look is one line.

    Example: pagemill status job.yaml --watch
    """
    if on_cluster or namespace or context or kubeconfig or is_named_on_cluster(target):
        named, of_file = named_job(target, job)
        with cluster_jobs(kubeconfig, context, namespace or of_file) as jobs:
            _show_on_cluster(lambda: jobs.find(named), watch=watch, every_s=every, output=output)
        return
    watcher = Watcher(open_target(target, read_settings(), job))
    if not watch:
        standing = watcher.look()
        if output == "json":
            print_json(standing.as_json())
        else:
            out().print(_table(standing))
        return
    _watch(watcher, every, output)


def _show_on_cluster(look: Callable[[], JobView], *, watch: bool, every_s: float, output: str) -> None:
    if watch:
        follow(look, out(), every_s=every_s, output=output, limit_s=None)
    elif output == "json":
        print_json(as_json(look()))
    else:
        out().print(picture(look(), dt.datetime.now(dt.UTC)))


def _watch(watcher: Watcher, every: float, output: str) -> None:
    import json

    if output == "json":
        while True:
            standing = watcher.look()
            typer.echo(printable(json.dumps(standing.as_json(), ensure_ascii=False)))
            if _is_over(standing):
                return
            time.sleep(every)
    with Live(console=out(), auto_refresh=False) as live:
        while True:
            standing = watcher.look()
            live.update(_table(standing), refresh=True)
            if _is_over(standing):
                return
            time.sleep(every)


def _is_over(standing: Standing) -> bool:
    """Whether nothing will change any more unless somebody starts something."""
    return standing.phase in ("Succeeded", "Failed", "Suspended")


def _table(standing: Standing) -> Table:
    entry, totals = standing.entry, standing.totals
    items = totals.items
    grid = Table.grid(padding=(0, 2))
    grid.add_row("Run", f"{standing.run} {escape(entry.kind)}")
    style = STYLES.get(standing.phase, "cyan")
    grid.add_row("Phase", f"[bold {style}]{standing.phase}[/] {escape(standing.reason)}")
    if standing.message:
        grid.add_row("", escape(standing.message))
    total = "?" if standing.planned is None else f"{standing.planned:,}"
    grid.add_row("Items", f"{items.planned:,}/{total} done: {items.succeeded:,} succeeded, {items.failed:,} failed, "
                 f"{items.skipped:,} skipped")  # fmt: skip
    if standing.already_done:
        grid.add_row("", f"{standing.already_done:,} more were done by earlier runs")
    for name, count in totals.failure_classes.items():
        grid.add_row("", f"{count:,} × {escape(name)}")
    grid.add_row("Shards", f"{totals.shards_done:,}/{totals.shards:,}")
    if standing.rate:
        grid.add_row("Rate", f"{standing.rate:.1f}/s, ETA {duration(standing.eta_s or 0)}")
    grid.add_row("Spent", f"{standing.spent.cost:.4f} in {duration(standing.spent.seconds)} of work")
    if entry.owner and not entry.is_final:
        where = f" ({escape(entry.holder.host)}, process {entry.holder.pid})" if entry.holder.pid else ""
        grid.add_row("Held by", f"{escape(entry.owner_name or entry.owner)}{where}")
    for sample in totals.failures[:MAX_FAILURES_SHOWN]:
        grid.add_row("Failed", f"{escape(sample.item)}: {escape(sample.error_class)}: {escape(sample.message)}")
    grid.add_row("Output", escape(standing.output_uri))
    return grid
