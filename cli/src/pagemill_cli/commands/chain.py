"""`pagemill chain`: which jobs of a file wait for which, and how each of them stands.

Layer: `cli.commands`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import typer
from rich.markup import escape
from rich.tree import Tree

from pagemill_cli.cluster.kinds import JobRef
from pagemill_cli.cluster.views import JobView
from pagemill_cli.commands.arguments import JobFile, out, print_json
from pagemill_cli.commands.cluster_arguments import Context, Kubeconfig, Namespace, cluster_jobs
from pagemill_cli.commands.run import in_order
from pagemill_cli.commands.status import STYLES
from pagemill_cli.job_file import JobsOfFile, read_jobs
from pagemill_cli.output.standing import Watcher
from pagemill_cli.output.target import open_target
from pagemill_cli.settings import read_settings
from pagemill_core.api.v1alpha1 import Job
from pagemill_core.errors import ObjectNotFoundError

NOT_RUN = "NotRun"
Form = Literal["text", "json", "mermaid"]


@dataclass(frozen=True, slots=True)
class Link:
    """One job of the chain: what it waits for, and its phase; `NotRun` when nobody started it, "" unasked."""

    name: str
    waits_for: tuple[str, ...]
    phase: str = ""

    @property
    def shown(self) -> str:
        style = STYLES.get(self.phase, "cyan" if self.phase not in (NOT_RUN, "") else "dim")
        return f"{escape(self.name)}  [{style}]{self.phase}[/]" if self.phase else escape(self.name)


def chain(
    file: JobFile,
    on_cluster: Annotated[
        bool, typer.Option("--cluster", help="Ask the cluster for the phases; implied by its options below.")
    ] = False,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    output: Annotated[Form, typer.Option("--output", "-o", help="text, json, or a Mermaid diagram.")] = "text",
) -> None:
    """Draw the jobs of a file: which wait for which (dependsOn, source.ocrJob, source.embeddingJob), and their phases.

    The phases come from the jobs' outputs, or with --cluster from the cluster. A circle is refused, exit status 78.

    Example: pagemill chain scans-to-labels.yaml
    """
    found = read_jobs(file)
    ordered = in_order(found.jobs)
    if on_cluster or namespace or context or kubeconfig:
        with cluster_jobs(kubeconfig, context, namespace or (ordered[0].metadata.namespace or "")) as jobs:
            links = _links(ordered, lambda job: _on_cluster(jobs.find, job))
    else:
        links = _links(ordered, lambda job: _in_store(file, found, job))
    if output == "json":
        print_json([{"name": link.name, "waitsFor": list(link.waits_for), "phase": link.phase} for link in links])
    elif output == "mermaid":
        typer.echo(mermaid(links))
    else:
        for tree in trees(links):
            out().print(tree)


def full_name(job: Job) -> str:
    """A job's kind and name, as kubectl writes them."""
    return f"{job.kind.lower()}/{job.metadata.name}"


def _links(jobs: Sequence[Job], phase: Callable[[Job], str]) -> list[Link]:
    waits = {full_name(job): [f"{one.kind.lower()}/{one.name}" for one in job.spec.all_dependencies] for job in jobs}
    return [Link(full_name(job), tuple(waits[full_name(job)]), phase(job)) for job in jobs]


def _in_store(file: str, found: JobsOfFile, job: Job) -> str:
    target = open_target(file, read_settings(), job.metadata.name or "")
    try:
        return str(Watcher(target).look().phase)
    except ObjectNotFoundError:
        return NOT_RUN


def _on_cluster(find: Callable[[JobRef], JobView], job: Job) -> str:
    try:
        return find(JobRef(kind=job.kind, name=job.metadata.name or "")).status.phase or "Pending"
    except ObjectNotFoundError:
        return NOT_RUN


def trees(links: Sequence[Link]) -> list[Tree]:
    """One tree a job that waits for none of the file; below it those that wait for it. A job that waits for several
    stands below each of them."""
    names = {link.name for link in links}
    below: dict[str, list[Link]] = {}
    for link in links:
        for other in link.waits_for:
            below.setdefault(other, []).append(link)

    def grow(tree: Tree, name: str) -> Tree:
        for link in below.get(name, ()):
            grow(tree.add(link.shown), link.name)
        return tree

    outside = sorted({other for link in links for other in link.waits_for} - names)
    roots = [link for link in links if not link.waits_for]
    return [
        *(grow(Tree(link.shown), link.name) for link in roots),
        *(grow(Tree(f"{escape(name)}  [dim](not in this file)[/]"), name) for name in outside),
    ]


def mermaid(links: Sequence[Link]) -> str:
    """The chain as a Mermaid flowchart."""
    ids = {name: f"j{number}" for number, name in enumerate(dict.fromkeys(_all_names(links)))}
    phases = {link.name: link.phase for link in links}
    lines = ["flowchart LR"]
    lines += [f'  {ids[name]}["{name}{f" ({phases[name]})" if phases.get(name) else ""}"]' for name in ids]
    lines += [f"  {ids[other]} --> {ids[link.name]}" for link in links for other in link.waits_for]
    return "\n".join(lines)


def _all_names(links: Sequence[Link]) -> list[str]:
    return [name for link in links for name in (*link.waits_for, link.name)]
