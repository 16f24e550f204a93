"""docs/operations/errors.md names every error class, exit status, outcome and problem of the code, and no other."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import get_args

import pytest

from pagemill_cli.local.run import EXIT_BY_REASON
from pagemill_cli.output.verify import REPAIRABLE, Fault
from pagemill_core import errors
from pagemill_core.api.conditions import Reason
from pagemill_core.errors import ItemError, NonRetriableError, PagemillError, RetriableError

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "operations" / "errors.md").read_text(encoding="utf-8")
CLASSES = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, PagemillError)]
ITEM_CLASSES = [kind for kind in CLASSES if issubclass(kind, ItemError) and kind is not ItemError]
INNER = {PagemillError, NonRetriableError, RetriableError, ItemError}
EXITING = [kind for kind in CLASSES if kind not in INNER and not issubclass(kind, ItemError)]


def section(title: str) -> list[list[str]]:
    """The cells of the rows of the section's table, backticks removed."""
    text = PAGE.split(f"\n## {title}", 1)[1].split("\n## ", 1)[0]
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip().replace("`", "") for cell in row] for row in rows[2:]]


def tree(text: str) -> list[str]:
    lines = text.splitlines()
    start = next(at for at, line in enumerate(lines) if line.strip() == "PagemillError")
    indent = len(lines[start]) - len(lines[start].lstrip())
    end = next((at for at in range(start, len(lines)) if not lines[at].strip() or "```" in lines[at]), len(lines))
    return [line[indent:] for line in lines[start:end]]


def test_errors_page_shows_the_tree_of_the_module() -> None:
    assert tree(PAGE) == tree(errors.__doc__ or "")


def test_errors_tree_is_the_tree_of_classes() -> None:
    parents: dict[str, str] = {}
    stack: list[str] = []
    for line in tree(errors.__doc__ or ""):
        prefix, name = re.match(r"([│├└─ ]*)(\w+)", line).groups()  # type: ignore[union-attr]
        depth = len(prefix) // 3
        stack[depth:] = [name]
        parents[name] = stack[depth - 1] if depth else ""

    assert parents == {
        kind.__name__: kind.__bases__[0].__name__ if kind is not PagemillError else "" for kind in CLASSES
    }


def test_errors_tree_states_the_exit_statuses_of_the_classes() -> None:
    stated = dict(re.findall(r"(\w+Error) +exit (\d+)", "\n".join(tree(errors.__doc__ or ""))))

    assert {name: int(status) for name, status in stated.items()} == {kind.__name__: kind.exit_code for kind in EXITING}


def test_errors_page_lists_every_class_with_its_exit_status() -> None:
    assert {name: int(status) for name, status, *_ in section("Errors by class")} == {
        kind.__name__: kind.exit_code for kind in EXITING
    }


def test_errors_page_lists_every_failure_of_an_item() -> None:
    assert [name for name, *_ in section("Failures of single items")] == [kind.__name__ for kind in ITEM_CLASSES]


def test_errors_page_lists_every_outcome_of_a_run() -> None:
    listed = {name: int(status) for status, name, *_ in section("How a run")}

    assert listed == {reason or "Complete": status for reason, status in EXIT_BY_REASON.items()}


def test_errors_page_lists_every_problem_that_verify_finds() -> None:
    listed = {name: repair == "yes" for name, _, repair in section("What `pagemill verify`")}

    assert listed == {fault: fault in REPAIRABLE for fault in get_args(Fault)}


@pytest.mark.parametrize(
    "title", ["Errors by class", "Failures of single items", "How a run", "What `pagemill verify`"]
)
def test_errors_page_explains_every_row(title: str) -> None:
    assert [row for row in section(title) if not all(row[: 2 if "verify" in title else None])] == []


@pytest.mark.parametrize("kind", EXITING, ids=lambda kind: kind.__name__)
def test_error_is_a_reason_of_a_condition(kind: type[PagemillError]) -> None:
    assert kind("").reason in set(Reason)
