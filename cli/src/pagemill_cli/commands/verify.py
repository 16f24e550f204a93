"""`pagemill verify`: whether an output still holds what was planned and committed.

Layer: `cli.commands`.
"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from pagemill_cli.commands.arguments import FileOrUri, JobName, Output, out, print_json
from pagemill_cli.output.repair import repair_run
from pagemill_cli.output.standing import run_named
from pagemill_cli.output.target import open_target
from pagemill_cli.output.verify import RunCheck, verify_output
from pagemill_cli.settings import read_settings
from pagemill_core.errors import IntegrityError

MAX_SHOWN = 20


def verify(
    target: FileOrUri,
    job: JobName = "",
    run: Annotated[str, typer.Option(help="One run alone, by id or number. Default: every run.")] = "",
    repair: Annotated[
        bool, typer.Option("--repair", help="Write damaged or missing views and dataset parts again.")
    ] = False,
    output: Output = "text",
) -> None:
    """Count and hash everything an output holds against its plans and markers. Needs no engine.

    Checked: the plan's tables, a marker for every shard, sizes and checksums of committed data, every planned row
    exactly once, counts, fingerprints, rollups, every published view, the dataset, the item index. With --repair,
    views and dataset parts are made again from committed data. Exit status: 0 all is well, 70 problems are left.

    Example: pagemill verify job.yaml --repair
    """
    opened = open_target(target, read_settings(), job)
    chosen = [run_named(opened, run)] if run else []
    checks: list[RunCheck] = []
    repaired = 0
    for check in verify_output(opened, chosen):
        before = sum(problem.is_repairable for problem in check.problems)
        after = repair_run(opened, check) if repair and before else check
        repaired += before - sum(problem.is_repairable for problem in after.problems)
        checks.append(after)
    if output == "json":
        is_ok = not any(check.problems for check in checks)
        runs = [check.as_json() for check in checks]
        print_json({"ok": is_ok, "output": opened.uri, "repaired": repaired, "runs": runs})
    else:
        _print(out(), checks, repaired, target)
    if any(check.problems for check in checks):
        raise typer.Exit(IntegrityError.exit_code)


def _print(console: Console, checks: list[RunCheck], repaired: int, target: str) -> None:
    for check in checks:
        problems = check.problems
        word = f"[bold red]{len(problems):,} problems[/]" if problems else "[bold green]ok[/]"
        items = check.items
        console.print(
            f"{check.run} {check.held.entry.state}: {word}, {check.markers:,}/{check.shards:,} shards, "
            f"{items.planned:,} items, {check.views:,} views, {check.size_bytes:,} bytes read"
            + (f" ({escape(check.note)})" if check.note else ""),
            highlight=False,
        )
        for problem in problems[:MAX_SHOWN]:
            line = f"  {problem.fault}: {escape(problem.key)}: {escape(problem.message)}"
            console.print(line, highlight=False, soft_wrap=True)
        if len(problems) > MAX_SHOWN:
            console.print(f"  … and {len(problems) - MAX_SHOWN:,} more; -o json lists all")
    if repaired:
        console.print(f"{repaired:,} repaired", highlight=False)
    left = [problem for check in checks for problem in check.problems]
    if any(problem.is_repairable for problem in left):
        console.print(f"[dim]→[/] pagemill verify --repair {escape(target)}", highlight=False)
    elif left:
        console.print("[dim]→[/] restore these objects from a backup, or run the work again on another output.uri")
