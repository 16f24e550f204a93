"""`pagemill gc`: free what no reader of an output needs.

Layer: `cli.commands`.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pagemill_cli.commands.arguments import FileOrUri, JobName, Output, out, print_json
from pagemill_cli.output.garbage import Garbage, as_json, find_garbage, sweep
from pagemill_cli.output.target import open_target
from pagemill_cli.settings import read_settings


def gc(
    target: FileOrUri,
    job: JobName = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and delete nothing.")] = False,
    keep: Annotated[int, typer.Option(min=1, help="Newest finished runs of each work that always stay.")] = 1,
    output: Output = "text",
) -> None:
    """Delete leftovers of runs that ended, and the data of runs that newer runs hold entirely.

    Leftovers: waves, attempts, partial results, data and plan tables that nothing names, old parts of the item index.
    A superseded run loses its data and its part of dataset/, so that nothing is counted twice; what it was stays in
    the ledger. Users' files, open runs and what came to an end less than a day ago are never touched (leftovers of
    finished runs excepted). Safe to interrupt: run it again.

    Example: pagemill gc s3://library/out/comics --dry-run
    """
    opened = open_target(target, read_settings(), job)
    found = find_garbage(opened, keep)
    gone: list[Garbage] = []
    if dry_run:
        gone.extend(found.objects())
    else:
        sweep(opened, found, gone.append)
    if output == "json":
        print_json(
            {
                "dryRun": dry_run,
                "objects": len(gone),
                "sizeBytes": sum(each.size_bytes for each in gone),
                "supersededRuns": [held.run for held in found.superseded],
                "notes": list(found.notes),
                "deleted": [as_json(each) for each in gone],
            }
        )
        return
    _print(gone, [held.run for held in found.superseded], found.notes, dry_run=dry_run)


def _print(gone: list[Garbage], superseded: list[str], notes: tuple[str, ...], *, dry_run: bool) -> None:
    console = out()
    verb = "Would delete" if dry_run else "Deleted"
    console.print(f"{verb} {len(gone):,} objects, {sum(each.size_bytes for each in gone):,} bytes", highlight=False)
    table = Table.grid(padding=(0, 2))
    sizes: Counter[tuple[str, str]] = Counter()
    counts: Counter[tuple[str, str]] = Counter()
    for each in gone:
        sizes[each.run, each.why] += each.size_bytes
        counts[each.run, each.why] += 1
    for (run, why), count in counts.items():
        table.add_row(escape(run), why, f"{count:,} objects", f"{sizes[run, why]:,} bytes")
    if counts:
        console.print(table)
    for run in superseded:
        console.print(f"{run} is held by newer runs entirely", highlight=False)
    for note in notes:
        console.print(f"[dim]Note:[/] {escape(note)}", highlight=False)
