"""The `pagemill` command: reads settings, dispatches, and turns every error into a sentence and an exit status.

Layer: the top of `cli`; the only module that ends the process, and one of the two that may catch everything.
"""

from __future__ import annotations

import sys
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from typer.exceptions import TyperException

from pagemill_cli.commands import register
from pagemill_core.errors import EXIT_BUG, EXIT_INTERRUPTED, PagemillError, RetriableError

EXIT_USAGE = 64
KUBECTL_PLUGIN = "kubectl-pagemill"
"""The name under which kubectl finds this command on PATH: then it is `kubectl pagemill`."""
TRY_AGAIN = "run the same command again, now or later: only what is missing is done"

app = typer.Typer(
    name="pagemill",
    help="Turn page images, pictures and tensors into text and vectors: on this machine, or on Kubernetes.",
    epilog="Start with: pagemill run config/samples/ocrjob-demo.yaml; on a cluster: pagemill submit job.yaml",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
register(app)


@app.callback()
def _pagemill() -> None:
    """Keep subcommands, however few there are."""


def explain(error: PagemillError, console: Console) -> None:
    """Tell what is wrong and what to do next, without a traceback."""
    console.print(f"[bold red]{error.reason}[/]: {escape(error.message)}", highlight=False, soft_wrap=True)
    advice = error.advice or (TRY_AGAIN if isinstance(error, RetriableError) else "")
    if advice:
        console.print(f"[dim]→[/] {escape(advice)}", highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command and exit with the status that docs/operations/errors.md names."""
    console = Console(stderr=True)
    try:
        is_plugin = Path(sys.argv[0]).stem == KUBECTL_PLUGIN
        sys.exit(app(standalone_mode=False, prog_name="kubectl pagemill" if is_plugin else None) or 0)
    except PagemillError as error:
        explain(error, console)
        sys.exit(error.exit_code)
    except TyperException as error:
        console.print(f"[bold red]Usage[/]: {escape(str(error))}", highlight=False)
        sys.exit(EXIT_USAGE)
    except (KeyboardInterrupt, typer.Abort):
        console.print("Interrupted; run the same command again to go on.")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.exit(EXIT_BUG)


if __name__ == "__main__":
    main()
