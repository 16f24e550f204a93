"""`pagemill dedup`: rows of an output that are nearly the same.

Layer: `cli.commands`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from pagemill_cli.commands.arguments import FileOrUri, JobName, Output, out, print_json
from pagemill_cli.output.duplicates import as_rows, check_form, write_duplicates, write_duplicates_sheet
from pagemill_cli.output.target import open_target
from pagemill_cli.settings import read_settings
from pagemill_worker.embed.search.dedup import DedupSettings, Duplicates, find_duplicates
from pagemill_worker.embed.search.rows import VECTORS
from pagemill_worker.machine import machine

MAX_SHOWN = 20


def dedup(
    target: FileOrUri,
    threshold: Annotated[float, typer.Option(help="Cosine from which two rows count as the same.")] = 0.95,
    to: Annotated[Path | None, typer.Option(help="Write all groups to this file: .csv, .json or .parquet.")] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Write a contact sheet of the largest groups: an HTML file.")
    ] = None,
    column: Annotated[str, typer.Option(help="The dataset's column of vectors.")] = VECTORS,
    job: JobName = "",
    output: Output = "text",
) -> None:
    """List groups of near-duplicates: rows linked by a cosine of at least --threshold.

    Up to 50,000 rows are compared each with each; more are found by an index made for this, whose recall is told. Of
    each group one row is to keep: the largest picture, then the smallest id. Nothing is deleted.

    Example: pagemill dedup out/photos --threshold 0.97 --to duplicates.csv --sheet duplicates.html
    """
    if to is not None:
        check_form(to)
    opened = open_target(target, read_settings(), job)
    settings = DedupSettings(threshold=threshold, column=column, threads=machine().cores)
    found = find_duplicates(opened.writer, settings)
    if to is not None:
        write_duplicates(found, to)
    if sheet is not None:
        write_duplicates_sheet(opened, found, threshold, sheet)
    if output == "json":
        print_json(
            {
                "output": opened.uri,
                "threshold": threshold,
                "rows": found.rows,
                "groups": len(found.groups),
                "redundant": found.redundant,
                "how": found.how,
                "recall": found.recall,
                "members": list(as_rows(found)),
            }
        )
        return
    _print(out(), found, to, sheet)


def _print(console: Console, found: Duplicates, to: Path | None, sheet: Path | None) -> None:
    for group in found.groups[:MAX_SHOWN]:
        ids = ", ".join(f"{escape(member.row.id)} ({member.score:.3f})" for member in group.members[1:6])
        more = f" … and {len(group.members) - 6:,} more" if len(group.members) > 6 else ""
        console.print(f"{escape(group.members[0].row.id)} = {ids}{more}", highlight=False, soft_wrap=True)
    if len(found.groups) > MAX_SHOWN:
        console.print(f"… and {len(found.groups) - MAX_SHOWN:,} more groups; --to groups.csv lists all")
    console.print(
        f"{found.rows:,} rows, {len(found.groups):,} groups, {found.redundant:,} redundant; compared {found.how}",
        highlight=False,
    )
    for path in (to, sheet):
        if path is not None:
            console.print(f"[dim]→[/] {escape(str(path))}", highlight=False, soft_wrap=True)
