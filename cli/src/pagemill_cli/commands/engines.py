"""`pagemill engines`: what can read pages here, and how to get what cannot yet.

Layer: `cli.commands`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from pagemill_cli.commands.arguments import Output, out, print_json
from pagemill_core.errors import EngineUnavailableError
from pagemill_worker.machine import machine
from pagemill_worker.ocr.engine import EngineStatus
from pagemill_worker.ocr.registry import adapter, names

MANY = 12


def engines(output: Output = "text") -> None:
    """List the engines a job may name: versions, languages, models, devices, and how to get what is missing.

    Nothing is loaded and nothing is asked of the network. Languages are BCP-47 tags, as `engine.languages` takes them.

    Example: pagemill engines -o json
    """
    found = [status_of(name) for name in names()]
    if output == "json":
        print_json({"cores": machine().cores, "engines": [_as_json(status) for status in found]})
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("ENGINE", "READY", "VERSION", "DEVICES", "MODELS", "LANGUAGES"):
        table.add_column(column)
    for status in found:
        table.add_row(
            status.name,
            "[green]yes[/]" if status.ready else "[red]no[/]",
            status.version or "–",
            ", ".join(status.devices) or "–",
            escape(_some(status.models)),
            escape(_some(status.languages)),
        )
    console = out()
    console.print(table)
    for status in found:
        if status.missing:
            console.print(f"[bold]{status.name}[/]: {escape(status.missing)}", highlight=False, soft_wrap=True)


def status_of(name: str) -> EngineStatus:
    """The engine's status; one whose module this build lacks is not ready."""
    try:
        return adapter(name).status()
    except EngineUnavailableError as error:
        return EngineStatus(name, False, None, (), (), (), error.message)


def _as_json(status: EngineStatus) -> dict[str, Any]:
    return {
        "name": status.name,
        "ready": status.ready,
        "version": status.version,
        "languages": list(status.languages),
        "models": list(status.models),
        "devices": list(status.devices),
        "missing": status.missing,
    }


def _some(words: Sequence[str]) -> str:
    rest = len(words) - MANY
    return ", ".join(words[:MANY]) + (f" and {rest} more" if rest > 0 else "") if words else "–"
