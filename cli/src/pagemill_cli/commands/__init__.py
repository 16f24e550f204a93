"""The commands, one module each.

Layer: `cli.commands`, below `main`. A command parses nothing itself: typer gives it typed options, and it calls one
function of `cli.local` or `cli.output_view` and prints what that returns.
"""

from __future__ import annotations

import typer

from pagemill_cli.commands import run


def register(app: typer.Typer) -> None:
    """Add every command to the app."""
    app.command("run")(run.run)


__all__ = ["register"]
