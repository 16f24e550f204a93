"""`pagemill runs`, `pagemill release`: the ledger of an output.

Layer: `cli.commands`.
"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pagemill_cli.commands.arguments import FileOrUri, JobName, Output, out, print_json
from pagemill_cli.output.standing import Standing, all_runs, open_run
from pagemill_cli.output.standing import release as give_up
from pagemill_cli.output.target import open_target
from pagemill_cli.settings import read_settings
from pagemill_core.errors import EXIT_INTERRUPTED


def runs(
    target: FileOrUri,
    job: JobName = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, newest first.")] = 20,
    output: Output = "text",
) -> None:
    """List the runs of an output, newest first: what each did, how it ended, who works on it.

    An output keeps every run it ever had in its ledger; the id in the first column is what source.retryOf takes.

    Example: pagemill runs s3://library/out/comics
    """
    found = list(all_runs(open_target(target, read_settings(), job), limit))
    if output == "json":
        print_json([standing.as_json() for standing in found])
        return
    out().print(_table(found))


def release(
    target: FileOrUri,
    job: JobName = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Even when its owner, on another machine, seems alive.")
    ] = False,
    output: Output = "text",
) -> None:
    """Give up an open run whose owner is gone, so that other work can use the output.

    Only needed for *other* work: the same job simply goes on. What the run has committed stays and counts for the next
    run of the same work. This cannot be undone.

    Example: pagemill release s3://library/out/comics
    """
    opened = open_target(target, read_settings(), job)
    found = open_run(opened)
    if found is None:
        if output == "json":
            print_json({"released": None})
        else:
            typer.echo("No run is open; nothing to release.")
        return
    entry = found.held.entry
    who = entry.owner_name or entry.owner or "nobody"
    if not yes and (not found.alive or force):
        state = f"{found.alive}. " if found.alive else ""
        if not typer.confirm(f"{state}Give up run {found.held.run}, held by {who}, for good?", err=True):
            raise typer.Exit(EXIT_INTERRUPTED)
    released = give_up(opened, found, force=force)
    if output == "json":
        print_json({"released": released.run})
    else:
        typer.echo(f"Run {released.run} is given up; what it committed stays.")


def _table(found: list[Standing]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("RUN", "KIND", "PHASE", "REASON", "ITEMS", "FAILED", "SPENT", "STARTED", "HELD BY"):
        table.add_column(name, justify="right" if name in ("ITEMS", "FAILED", "SPENT") else "left")
    for standing in found:
        entry, items = standing.entry, standing.totals.items
        total = "?" if standing.planned is None else f"{standing.planned:,}"
        table.add_row(
            standing.run,
            escape(entry.kind),
            standing.phase,
            escape(standing.reason),
            f"{items.planned:,}/{total}",
            f"{items.failed:,}",
            f"{standing.spent.cost:.4f}",
            entry.created_at[:19].replace("T", " "),
            "" if entry.is_final else escape(entry.owner_name or entry.owner),
        )
    return table
