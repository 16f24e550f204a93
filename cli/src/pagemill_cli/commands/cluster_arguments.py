"""Arguments and options of the commands that work with a cluster, and how they get to one.

Layer: `cli.commands`, its bottom.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from pagemill_cli.cluster.api import Api
from pagemill_cli.cluster.jobs import Jobs
from pagemill_cli.cluster.kinds import JobRef, ref
from pagemill_cli.cluster.kube import ClusterChoice, connect
from pagemill_cli.job_file import read_jobs
from pagemill_cli.settings import read_settings
from pagemill_core.errors import InvalidSpecError

Namespace = Annotated[str, typer.Option("--namespace", "-n", help="The namespace. Default: the context's own.")]
Context = Annotated[str, typer.Option("--context", help="The kubeconfig's context. Default: its current one.")]
Kubeconfig = Annotated[
    str, typer.Option("--kubeconfig", metavar="FILE", help="Default: KUBECONFIG, ~/.kube/config, then the pod's own.")
]
JobOnCluster = Annotated[
    str,
    typer.Argument(
        metavar="NAME|FILE", help="A job's name on the cluster (comics, ocrjob/comics, emb/books), or its YAML file."
    ),
]


@contextmanager
def cluster(kubeconfig: str, context: str, namespace: str) -> Iterator[Api]:
    """The chosen cluster; the connection ends with the block. Raises: PagemillError."""
    choice = ClusterChoice(kubeconfig=kubeconfig or read_settings().kubeconfig, context=context, namespace=namespace)
    with connect(choice) as api:
        yield api


@contextmanager
def cluster_jobs(kubeconfig: str, context: str, namespace: str) -> Iterator[Jobs]:
    """The jobs of the chosen namespace. Raises: PagemillError."""
    with cluster(kubeconfig, context, namespace) as api:
        yield Jobs(api)


def named_job(text: str, job_name: str = "") -> tuple[JobRef, str]:
    """The job that an argument means, and the namespace that its file names. Raises: InvalidSpecError."""
    if text != "-" and not text.endswith((".yaml", ".yml", ".json")):
        return ref(text), ""
    found = [job for job in read_jobs(text).jobs if not job_name or job.metadata.name == job_name]
    if len(found) != 1 or found[0].metadata.name is None:
        names = ", ".join(str(job.metadata.name) for job in found) or "none of that name"
        raise InvalidSpecError(f"{text} must hold the one job that is meant; it holds {names}", advice="--job NAME")
    return JobRef(found[0].kind, found[0].metadata.name), found[0].metadata.namespace or ""


def say_next(console: Console, steps: list[str]) -> None:
    """Print what to do next, one line each."""
    for step in steps:
        console.print(f"[dim]→[/] {escape(step)}", highlight=False, soft_wrap=True)
