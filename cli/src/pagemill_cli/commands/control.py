"""`pagemill suspend`, `resume`, `cancel`: pause a job on a cluster, let it go on, take it away.

Layer: `cli.commands`.
"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from pagemill_cli.cluster.ending import ending_of
from pagemill_cli.cluster.views import JobView
from pagemill_cli.commands.arguments import JobName, Output, out, print_json
from pagemill_cli.commands.cluster_arguments import (
    Context,
    JobOnCluster,
    Kubeconfig,
    Namespace,
    cluster_jobs,
    named_job,
    say_next,
)
from pagemill_core.errors import EXIT_INTERRUPTED


def suspend(
    name: JobOnCluster,
    namespace: Namespace = "",
    context: Context = "",
    job: JobName = "",
    kubeconfig: Kubeconfig = "",
    output: Output = "text",
) -> None:
    """Pause a job: its pods finish the page at hand and stop; what is done stays done. Idempotent.

    The same as spec.suspend: true. Time and budget stand still meanwhile. In a queue, its place is given back.

    Example: pagemill suspend comics
    """
    named, of_file = named_job(name, job)
    with cluster_jobs(kubeconfig, context, namespace or of_file) as jobs:
        before = jobs.find(named)
        after = jobs.set_suspend(before, True)
    ended = ending_of(before)
    is_over = ended is not None and (ended.exit_status == 0 or before.status.is_true("Failed"))
    note = "it had come to an end before" if is_over else "pods finish their page and stop"
    _tell(
        after,
        "was suspended already" if before.suspend else "suspended",
        note,
        output,
        f"pagemill resume {after.words}",
    )


def resume(
    name: JobOnCluster,
    namespace: Namespace = "",
    context: Context = "",
    job: JobName = "",
    kubeconfig: Kubeconfig = "",
    output: Output = "text",
) -> None:
    """Let a suspended job go on where it stopped. Idempotent.

    The same as spec.suspend: false. A job that stopped for its budget or its deadline goes on when those are raised.

    Example: pagemill resume comics
    """
    named, of_file = named_job(name, job)
    with cluster_jobs(kubeconfig, context, namespace or of_file) as jobs:
        before = jobs.find(named)
        after = jobs.set_suspend(before, False)
    if after.parallelism == 0:
        word, note = "stays paused", "workers.parallelism is 0"
        _tell(after, word, note, output, f"kubectl scale {after.words} --replicas=4")
        return
    word = "resumed" if before.suspend else "was not suspended"
    _tell(after, word, "", output, f"pagemill status {after.words} --watch")


def cancel(
    name: JobOnCluster,
    namespace: Namespace = "",
    context: Context = "",
    job: JobName = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    kubeconfig: Kubeconfig = "",
    output: Output = "text",
) -> None:
    """Stop a job for good and delete its object, child Jobs and pods; results and finished pages stay in the output.

    Not undone, but never lost either: submitting the same file later does what is missing. To pause only: suspend.

    Example: pagemill cancel comics --yes
    """
    named, of_file = named_job(name, job)
    with cluster_jobs(kubeconfig, context, namespace or of_file) as jobs:
        found = jobs.find(named)
        question = f"Delete {found} in namespace {found.namespace}, context {jobs.context} ({_standing(found)})?"
        if not yes and not typer.confirm(question, err=True):
            raise typer.Exit(EXIT_INTERRUPTED)
        jobs.delete(found)
    note = f"what is done stays in {found.output_uri}"
    _tell(
        found, "cancelled", note, output, "pagemill submit takes the same file up again: only what is missing is done"
    )


def _standing(job: JobView) -> str:
    words = (job.status.phase or "Pending", f"{job.status.done} items" if job.status.done else "")
    return ", ".join(word for word in words if word)


def _tell(job: JobView, word: str, note: str, output: str, step: str) -> None:
    if output == "json":
        print_json(
            {
                "kind": job.kind,
                "namespace": job.namespace,
                "name": job.name,
                "result": word,
                "suspend": job.suspend,
                "output": job.output_uri,
            }
        )
        return
    console = out()
    told = f": {note}" if note else ""
    console.print(f"[bold]{escape(str(job))}[/] {word}{escape(told)}", highlight=False, soft_wrap=True)
    say_next(console, [step])
