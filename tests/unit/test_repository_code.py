"""The measures that keep the code readable, and the two places where a broad `except` may stand."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("core", "operator", "worker", "cli")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package / "src").rglob("*.py"))
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 40
BROAD = {"Exception", "BaseException"}
# Besides each program's main.py: where any foreign exception of one item becomes an EngineFailed.
ADAPTER_BOUNDARY = "worker/src/pagemill_worker/ocr/guard.py"

Function = ast.FunctionDef | ast.AsyncFunctionDef


def parsed() -> Iterator[tuple[str, ast.Module]]:
    for path in SOURCES:
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def code_lines(function: Function) -> int:
    """Lines from `def` to the end, less the docstring: a contract may be as long as it needs."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def caught_names(handler: ast.ExceptHandler) -> set[str]:
    """The names that an `except` catches; `except:` counts as BaseException."""
    if handler.type is None:
        return {"BaseException"}
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {kind.id for kind in kinds if isinstance(kind, ast.Name)}


def raises_again(handler: ast.ExceptHandler) -> bool:
    """True for a handler that only cleans up: its last statement is a bare `raise`."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def broad_excepts(tree: ast.Module) -> list[int]:
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and caught_names(node) & BROAD and not raises_again(node)
    ]


def test_source_files_stay_short() -> None:
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES
    }

    assert {path: lines for path, lines in lengths.items() if lines > FILE_LINES_MAX} == {}


def test_functions_stay_short() -> None:
    offenders = [
        f"{path}:{node.lineno} {node.name}: {code_lines(node)} lines"
        for path, tree in parsed()
        for node in ast.walk(tree)
        if isinstance(node, Function) and code_lines(node) > FUNCTION_LINES_MAX
    ]

    assert offenders == []


def test_modules_say_why_they_exist() -> None:
    assert [path for path, tree in parsed() if tree.body and ast.get_docstring(tree) is None] == []


def test_broad_excepts_stand_in_their_two_places_only() -> None:
    offenders = [
        f"{path}:{line}"
        for path, tree in parsed()
        if not path.endswith("/main.py") and path != ADAPTER_BOUNDARY
        for line in broad_excepts(tree)
    ]

    assert offenders == []


@pytest.mark.parametrize(
    ("source", "want_lines"),
    [
        ("try:\n    f()\nexcept Exception:\n    pass", [3]),
        ("try:\n    f()\nexcept:\n    pass", [3]),
        ("try:\n    f()\nexcept (ValueError, BaseException) as e:\n    log(e)", [3]),
        ("try:\n    f()\nexcept ValueError:\n    pass", []),
        ("try:\n    f()\nexcept BaseException:\n    undo()\n    raise", []),
    ],
    ids=["exception", "bare", "in-a-tuple", "narrow", "clean-up"],
)
def test_broad_excepts_are_found(source: str, want_lines: list[int]) -> None:
    assert broad_excepts(ast.parse(source)) == want_lines
