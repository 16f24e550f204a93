"""`pagemill plan`: what a job would do and cost, before anything is spent.

Layer: `cli.commands`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pagemill_cli.commands.arguments import ApiKey, JobFile, JobName, Output, Processes, out, print_json, printable
from pagemill_cli.commands.running import processes_of
from pagemill_cli.local.preview import Preview, PreviewRequest, preview
from pagemill_cli.output.target import environment_of_file
from pagemill_cli.settings import read_settings
from pagemill_cli.show import duration
from pagemill_core.errors import InvalidSpecError
from pagemill_worker.environment import JobEnvironment


def plan(
    file: JobFile,
    sample: Annotated[int, typer.Option("--sample", "-n", min=0, help="Read this many pages to time them.")] = 0,
    job: JobName = "",
    processes: Processes = None,
    price_per_hour: Annotated[
        str, typer.Option(help="What a machine costs. Default: PAGEMILL_PRICE_PER_HOUR.", metavar="AMOUNT")
    ] = "",
    memory_gb: Annotated[str, typer.Option(help="Memory of a serverless function, for its price.", metavar="GB")] = "3",
    api_key: ApiKey = "",
    output: Output = "text",
) -> None:
    """Say what a job would do, how long it takes and what it costs. Writes nothing to the output.

    The source is read and cut into shards as `pagemill run` would; what cannot be done is counted by class. Times come
    from a table of measured engines, or, better, from --sample pages of your own, read by the real engine. Costs: a
    machine by the hour, and serverless functions by GB × s × 0.0000166667 + 0.0000002 a page.

    Example: pagemill plan job.yaml --sample 8 --price-per-hour 0.19
    """
    environment = environment_of_file(file, read_settings(), job, api_key)
    if price_per_hour:
        environment = replace(environment, price_per_hour=str(_amount("--price-per-hour", price_per_hour)))
    found = preview(
        environment,
        PreviewRequest(
            processes=processes or processes_of(environment.job),
            environment=dict(os.environ),
            sample=sample,
            memory_gb=_amount("--memory-gb", memory_gb),
            progress=_progress(sample),
        ),
    )
    if output == "json":
        print_json(_as_json(found))
    else:
        _print(environment, found, file)


def _amount(option: str, text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation as error:
        raise InvalidSpecError(f"{option}: {text} is no number") from error
    if not amount.is_finite() or amount < 0:
        raise InvalidSpecError(f"{option}: {text} is no amount")
    return amount


def _progress(sample: int) -> Callable[[str], None]:
    console = Console(stderr=True)

    def tell(line: str) -> None:
        if sample:
            console.print(f"{line}, reading {sample} of them …", highlight=False)

    return tell


def _as_json(found: Preview) -> dict[str, Any]:
    result, estimate, sample = found.result, found.estimate, found.sample
    return {
        "items": result.items,
        "shards": result.shards,
        "failed": result.failed,
        "failedByClass": result.failure_classes,
        "failures": [
            {"item": item, "class": kind, "message": message} for item, kind, message in result.failure_samples
        ],
        "alreadyDone": result.already_done,
        "repeats": result.repeats,
        "sizeBytes": result.size_bytes,
        "source": result.source_uri,
        "standing": found.standing,
        "warnings": list(found.warnings),
        "estimate": {
            "sampled": estimate.is_sampled,
            "secondsPerItem": estimate.seconds_per_item,
            "workSeconds": estimate.work_seconds,
            "elapsedSeconds": estimate.elapsed_seconds,
            "poolCost": None if estimate.pool_cost is None else format(estimate.pool_cost, "f"),
            "serverlessUsd": format(estimate.serverless_usd, "f"),
            "apiUsd": format(_api_cost(found), "f"),
        },
        "sample": None
        if sample is None
        else {"items": sample.items, "failed": sample.failed, "loadSeconds": sample.load_seconds},
    }


def _api_cost(found: Preview) -> Decimal:
    each = found.sample.api_cost_per_item if found.sample else 0.0
    return (Decimal(str(each)) * found.estimate.items).quantize(Decimal("0.0001"))


def _print(environment: JobEnvironment, found: Preview, file: str) -> None:
    console, result, estimate, sample = out(), found.result, found.estimate, found.sample
    grid = Table.grid(padding=(0, 2))
    grid.add_row("Items", f"{result.items:,} in {result.shards:,} shards, from {escape(result.source_uri)}")
    for name, count in result.failure_classes.items():
        grid.add_row("", f"[red]{count:,} × {escape(name)}[/]: will fail as the source names them")
    for item, kind, message in result.failure_samples:
        grid.add_row("", f"[dim]{escape(printable(f'{item}: {kind}: {message}'))}[/]")
    if result.already_done:
        grid.add_row("", f"{result.already_done:,} more were done by earlier runs")
    how = "from the table of engines; --sample N times your own pages"
    if sample is not None:
        how = (
            f"measured on {sample.items} pages, {sample.failed} failed; the engine loads in {sample.load_seconds:.1f} s"
        )
    grid.add_row("Time", f"{duration(estimate.elapsed_seconds)} at {estimate.seconds_per_item:.2f} s a page ({how})")
    if estimate.pool_cost is not None:
        grid.add_row("Cost", f"{estimate.pool_cost:.4f} on this machine at {environment.price_per_hour} an hour")
    grid.add_row(
        "" if estimate.pool_cost is not None else "Cost", f"{estimate.serverless_usd:.4f} USD as serverless functions"
    )
    if _api_cost(found):
        grid.add_row("", f"{_api_cost(found):.4f} USD to the API, by the sample")
    grid.add_row("Output", escape(found.standing))
    for warning in found.warnings:
        grid.add_row("Note", escape(warning))
    console.print(grid)
    budget = environment.job.spec.budget
    if budget is not None and budget.max_cost_amount < (estimate.pool_cost or 0) + _api_cost(found):
        console.print(f"[yellow]Warning:[/] this is more than budget.maxCost, {budget.max_cost}", highlight=False)
    console.print(f"[dim]Start it:[/] pagemill run {escape(file)}", highlight=False)
