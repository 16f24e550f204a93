"""`pagemill cat`: one item's result.

Layer: `cli.commands`.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from pagemill_cli.commands.arguments import FileOrUri, JobName
from pagemill_cli.output.item import Found, find_item
from pagemill_cli.output.target import Target, open_target
from pagemill_cli.settings import read_settings
from pagemill_core.errors import ItemError, ObjectNotFoundError
from pagemill_worker.views.registry import ViewName


def cat(
    item: Annotated[
        str, typer.Argument(metavar="ITEM", help="The item's id, as the manifest or the listing names it.")
    ],
    target: FileOrUri,
    view: Annotated[ViewName, typer.Option("--format", "-f", help="The form to print it in.")] = "text",
    job: JobName = "",
) -> None:
    """Print one item's result, wherever it is: its file in the output, else the data that was committed.

    A format that the job does not write is made from the committed data. An EmbeddingJob's item is printed as JSON
    with its vectors, whatever the format. Of an item that failed, the class and the message go to standard error.
    Exit status: 0 printed, 70 the item failed, 75 there is no such item, or not yet.

    Example: pagemill cat "comics/issue 1/page_001" job.yaml --format json
    """
    opened = open_target(target, read_settings(), job)
    found = find_item(opened, item, view)
    if found is None or (found.data is None and found.result is None):
        raise _absent(opened, item, found)
    if found.data is not None:
        sys.stdout.buffer.write(found.data)
        if found.data and not found.data.endswith(b"\n") and sys.stdout.isatty():
            sys.stdout.buffer.write(b"\n")
        sys.stdout.buffer.flush()
        return
    failure = found.result.failure if found.result else None
    kind, message = (failure.error_class, failure.message) if failure else ("Skipped", "unchanged since an earlier run")
    console = Console(stderr=True)
    console.print(f"[bold red]{escape(kind)}[/]: {escape(message)} (run {found.run})", highlight=False, soft_wrap=True)
    raise typer.Exit(ItemError.exit_code)


def _absent(opened: Target, item: str, found: Found | None) -> ObjectNotFoundError:
    if found is None:
        return ObjectNotFoundError(
            f"no run on {opened.uri} planned an item {item!r}",
            advice="ids are taken verbatim from the source; pages of a PDF end in #p0001, #p0002, …",
        )
    return ObjectNotFoundError(f"{item!r} is planned in run {found.run} and not done yet", advice="pagemill status")
