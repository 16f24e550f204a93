"""Arguments and options that several commands share, so that they read and mean the same everywhere.

Layer: `cli.commands`, its bottom.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

OutputFormat = Literal["text", "json"]
PIPE_COLUMNS = 200

FileOrUri = Annotated[
    str,
    typer.Argument(
        metavar="FILE|URI", help="A job's YAML file, or its output directly: s3://…, file:///… or an existing folder."
    ),
]
JobFile = Annotated[
    str,
    typer.Argument(metavar="FILE", help="The job's YAML file, the same one Kubernetes takes; - for standard input."),
]
JobName = Annotated[str, typer.Option("--job", help="Which job, when the file holds several.")]
Output = Annotated[OutputFormat, typer.Option("--output", "-o", help="How the result is printed.")]
Processes = Annotated[
    int | None, typer.Option("--processes", "-p", min=1, help="Engine processes. Default: this machine's cores.")
]
ApiKey = Annotated[str, typer.Option(help="API key of a remote engine; better: OPENROUTER_API_KEY in the environment.")]


def print_json(value: Any) -> None:
    """Print a result for programs: UTF-8, two spaces, nothing else on standard output."""
    typer.echo(printable(json.dumps(value, indent=2, ensure_ascii=False)))


def printable(text: str) -> str:
    """`text` with halves of surrogate pairs as `\\ud800`, which is JSON's own way to write them."""
    return text.encode("utf-8", "backslashreplace").decode()


def out() -> Console:
    """Standard output for people; wide when it is a file or a pipe, where nothing may be cut to 80 columns."""
    console = Console()
    return console if console.is_terminal else Console(width=PIPE_COLUMNS)
