"""docs/reference/cli.md: every command, argument, option and setting, written from the app itself.

Layer: `cli`, beside `main`. Renders text; writes no file and runs no command.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import typer.main

from pagemill_cli.main import app
from pagemill_cli.settings import CliSettings
from pagemill_worker.embed.settings import ModelsSettings
from pagemill_worker.ocr.settings import OcrSettings
from pagemill_worker.stages.settings import StagesSettings

PATH = "docs/reference/cli.md"

_INTRO = """\
<!-- Generated from cli/src/pagemill_cli by `make generate`; do not edit. -->
# The `pagemill` command

`pagemill COMMAND --help` says the same. A FILE is a job's YAML file, the same one that Kubernetes takes, or `-` for
standard input; a URI is an output: `s3://bucket/prefix`, `file:///folder`, or the path of an existing folder. Results
go to standard output, progress and errors to standard error; `-o json` is for programs. What each exit status means
stands in [errors](../operations/errors.md).
"""


def render_all() -> dict[str, str]:
    """The page by its path."""
    root: Any = typer.main.get_command(app)
    parts = [_INTRO, "| command | what it does |", "|---|---|"]
    commands = list(_commands(root, "pagemill"))
    parts += [f"| [`{name}`](#{_anchor(name)}) | {_first_line(command)} |" for name, command in commands]
    for name, command in commands:
        parts += ["", *_section(name, command)]
    parts += ["", "## Settings from the environment", "", "Secrets come from here, never from a job's file.", ""]
    parts += ["| variable | what it is |", "|---|---|", *_settings()]
    return {PATH: "\n".join(parts) + "\n"}


def _commands(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Every command with its full name, those of groups after one another."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def _anchor(name: str) -> str:
    return name.replace(" ", "-")


def _first_line(command: Any) -> str:
    return " ".join(inspect.cleandoc(command.help).split("\n\n")[0].split())


def _section(name: str, command: Any) -> Iterator[str]:
    paragraphs = [" ".join(part.split()) for part in inspect.cleandoc(command.help).split("\n\n")]
    yield f"## {name}"
    for paragraph in paragraphs:
        yield ""
        if paragraph.startswith("Example: "):
            yield f"```sh\n{paragraph.removeprefix('Example: ')}\n```"
        else:
            yield paragraph
    shown = [parameter for parameter in command.params if parameter.name != "help"]
    if shown:
        yield from ("", "| parameter | default | what it is |", "|---|---|---|")
        yield from (_row(parameter) for parameter in shown)


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        names = f"`{_cell(parameter.metavar or parameter.name.upper())}`"
    else:
        names = ", ".join(f"`{option}`" for option in parameter.opts)
    default = "required" if parameter.required else _shown(parameter.default)
    return f"| {names} | {default} | {_cell(parameter.help or '')}{_choices(parameter)} |"


def _shown(default: object) -> str:
    return "" if default in (None, "", False) else f"`{default}`"


def _choices(parameter: Any) -> str:
    annotation = parameter.type_descriptor.annotation
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    return f" One of {', '.join(f'`{choice}`' for choice in choices)}." if choices else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _settings() -> Iterator[str]:
    for model, prefix in (
        (CliSettings, "PAGEMILL_"),
        (OcrSettings, "PAGEMILL_OCR_"),
        (ModelsSettings, "PAGEMILL_MODELS_"),
        (StagesSettings, "PAGEMILL_STAGES_"),
    ):
        for name, field in model.model_fields.items():
            aliases = getattr(field.validation_alias, "choices", None) or [f"{prefix}{name.upper()}"]
            variables = " or ".join(f"`{alias}`" for alias in aliases)
            yield f"| {variables} | {_cell(field.description or '')} |"
