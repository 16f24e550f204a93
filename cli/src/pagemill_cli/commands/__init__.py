"""The commands, one module each.

Layer: `cli.commands`, below `main`. A command parses nothing itself: typer gives it typed options, and it calls one
function of `cli.local`, `cli.output` or `cli.cluster` and prints what that returns.
"""

from __future__ import annotations

import typer

from pagemill_cli.commands import (
    bench,
    cat,
    chain,
    control,
    dedup,
    engines,
    export,
    gc,
    logs,
    models,
    plan,
    retry,
    run,
    runs,
    schedule,
    schema,
    search,
    stages,
    status,
    submit,
    verify,
)

RUNNING = "Running a job"
CLUSTER = "On a cluster"
LOOKING = "Looking at an output"
KEEPING = "Keeping an output in order"
MACHINE = "This machine"


def register(app: typer.Typer) -> None:
    """Add every command to the app, in the order in which people meet them."""
    app.command("run", rich_help_panel=RUNNING)(run.run)
    app.command("plan", rich_help_panel=RUNNING)(plan.plan)
    app.command("retry", rich_help_panel=RUNNING)(retry.retry)
    app.command("submit", rich_help_panel=CLUSTER)(submit.submit)
    app.command("logs", rich_help_panel=CLUSTER)(logs.logs)
    app.command("suspend", rich_help_panel=CLUSTER)(control.suspend)
    app.command("resume", rich_help_panel=CLUSTER)(control.resume)
    app.command("schedule", rich_help_panel=CLUSTER)(schedule.schedule)
    app.command("cancel", rich_help_panel=CLUSTER)(control.cancel)
    app.command("status", rich_help_panel=LOOKING)(status.status)
    app.command("chain", rich_help_panel=LOOKING)(chain.chain)
    app.command("cat", rich_help_panel=LOOKING)(cat.cat)
    app.command("search", rich_help_panel=LOOKING)(search.search)
    app.command("dedup", rich_help_panel=LOOKING)(dedup.dedup)
    app.command("export", rich_help_panel=LOOKING)(export.export)
    app.command("runs", rich_help_panel=LOOKING)(runs.runs)
    app.command("verify", rich_help_panel=KEEPING)(verify.verify)
    app.command("gc", rich_help_panel=KEEPING)(gc.gc)
    app.command("release", rich_help_panel=KEEPING)(runs.release)
    app.command("engines", rich_help_panel=MACHINE)(engines.engines)
    app.add_typer(bench.app, name="bench", rich_help_panel=MACHINE)
    app.add_typer(stages.app, name="stages", rich_help_panel=MACHINE)
    app.add_typer(models.app, name="models", rich_help_panel=MACHINE)
    app.command("schema", rich_help_panel=MACHINE)(schema.schema)


__all__ = ["register"]
