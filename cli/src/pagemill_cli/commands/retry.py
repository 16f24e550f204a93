"""`pagemill retry`: the failed items again, and nothing else.

Layer: `cli.commands`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pagemill_cli.commands.arguments import ApiKey, JobFile, JobName, Output, Processes, print_json
from pagemill_cli.commands.running import RunRequest, run_and_print
from pagemill_cli.output.retry import RetryPlan, plan_retry
from pagemill_cli.output.target import environment_of_file, open_target
from pagemill_cli.settings import read_settings
from pagemill_core.errors import InvalidSpecError


def retry(
    file: JobFile,
    failed: Annotated[bool, typer.Option("--failed", help="The failed items of the newest run. Required.")] = False,
    job: JobName = "",
    processes: Processes = None,
    output: Output = "text",
    api_key: ApiKey = "",
    log: Annotated[Path | None, typer.Option(help="File for what engine processes print. Default: nowhere.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait while another run works on the output.")] = False,
) -> None:
    """Run exactly the failed items of the newest run again, as a run of its own on the same output.

    Pages are read anew, so what was mended since is found. Results of pages that succeeded stay as they are. Rows whose
    fault is in the source itself (DuplicateId, UnsafeId) are left out: mend the source. Interrupted, the same command
    goes on. Exit status: as of `pagemill run`.

    Example: pagemill retry --failed job.yaml
    """
    if not failed:
        raise InvalidSpecError("say what to retry", advice=f"pagemill retry --failed {file}")
    environment = environment_of_file(file, read_settings(), job, api_key)
    found = plan_retry(open_target(file, read_settings(), job), environment.job)
    if found.job is None:
        _nothing(found, output)
        return
    if found.incurable and output == "text":
        Console(stderr=True).print(f"{_left_out(found)}.", highlight=False)
    request = RunRequest(processes=processes, log=log, quiet=quiet, wait=wait, output=output, file=file)
    raise typer.Exit(run_and_print([replace(environment, job=found.job)], request))


def _nothing(found: RetryPlan, output: str) -> None:
    if output == "json":
        print_json(
            {"run": found.run, "outcome": "NothingToRetry", "failed": found.failed, "incurable": found.incurable}
        )
        return
    left_out = f": {_left_out(found)}" if found.incurable else ""
    typer.echo(f"Nothing to retry in run {found.run}{left_out}.")


def _left_out(found: RetryPlan) -> str:
    rows = "row has" if found.incurable == 1 else "rows have"
    return f"{found.incurable:,} failed {rows} a fault that only the source can mend (DuplicateId, UnsafeId)"
