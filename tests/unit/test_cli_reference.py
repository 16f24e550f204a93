"""docs/reference/cli.md is what the app says of itself, and the app says enough."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from pagemill_cli.main import app
from pagemill_cli.reference import PATH, render_all
from pagemill_cli.settings import CliSettings, read_settings
from pagemill_core.errors import InvalidSpecError

ROOT = Path(__file__).resolve().parents[2]


def commands(group: Any, prefix: str = "pagemill") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_reference_page_is_what_the_app_renders() -> None:
    assert render_all() == {PATH: (ROOT / PATH).read_text(encoding="utf-8")}


@pytest.mark.parametrize("name", COMMANDS)
def test_command_teaches_with_an_example_of_itself(name: str) -> None:
    paragraphs = inspect.cleandoc(COMMANDS[name].help).split("\n\n")

    assert paragraphs[-1].startswith(f"Example: {name}")


@pytest.mark.parametrize("name", COMMANDS)
def test_command_explains_every_parameter(name: str) -> None:
    assert [parameter.name for parameter in COMMANDS[name].params if not parameter.help] == []


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"pagemill cat", "pagemill schema"}))
def test_command_prints_json_on_request(name: str) -> None:
    assert "-o" in {option for parameter in COMMANDS[name].params for option in parameter.opts}


def test_reference_page_names_every_setting() -> None:
    page = render_all()[PATH]

    assert [name for name in CliSettings.model_fields if f"`PAGEMILL_{name.upper()}`" not in page] == []


@pytest.mark.parametrize("name", ["running.md"])
def test_guide_names_only_commands_there_are(name: str) -> None:
    text = (ROOT / "docs" / "guide" / name).read_text(encoding="utf-8")
    named = {word for line in text.splitlines() for word in _commands_in(line)}

    assert named <= {command.removeprefix("pagemill ").split()[0] for command in COMMANDS}
    assert {"run", "plan", "status", "verify", "retry", "runs", "gc", "release", "cat", "engines", "models"} <= named


def _commands_in(line: str) -> Iterator[str]:
    words = line.replace("`", " ").split()
    for at, word in enumerate(words[:-1]):
        if word == "pagemill" and words[at + 1].islower():
            yield words[at + 1]


def test_setting_that_is_wrong_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGEMILL_PRICE_PER_HOUR", "sk-not-a-price")

    with pytest.raises(InvalidSpecError) as caught:
        read_settings()

    assert "PAGEMILL_PRICE_PER_HOUR" in caught.value.message
    assert "sk-not-a-price" not in caught.value.message
    assert caught.value.__cause__ is None
