"""Writes the generated files of the repository, or with --check compares them and writes nothing.

Why it exists: what is derived from the code (crds/, reference pages) is committed and must never differ from it.
Layer: project tooling. A generator is a function without parameters that returns texts by path, relative to the
repository's root; it lives beside what it describes and is named in GENERATORS.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIFF_LINES = 20


@dataclass(frozen=True, slots=True)
class Generator:
    """`function` is module:name. `owns` are glob patterns of the paths it alone may have written.

    A file that matches `owns` and that the generator no longer returns is stale: deleted, or reported by --check.
    """

    function: str
    owns: tuple[str, ...] = ()

    def render(self) -> Mapping[str, str]:
        module, _, name = self.function.partition(":")
        function: Callable[[], Mapping[str, str]] = getattr(importlib.import_module(module), name)
        return function()


GENERATORS = (
    Generator("pagemill_core.api.crd.generate:render_all", owns=("crds/*.yaml",)),
    Generator("pagemill_cli.reference:render_all"),
    Generator("pagemill_operator.reference:render_all"),
    Generator("catalogue:render_all", owns=("worker/src/pagemill_worker/embed/registered/*.yaml",)),
    Generator("charttools.generate:render_all", owns=("charts/pagemill/crds/*.yaml",)),
)


class ConflictError(Exception):
    """Two generators return the same path."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A generated file that is not what its generator returns; a side that has no file is None."""

    path: str
    found: str | None
    wanted: str | None

    def describe(self) -> str:
        """The path, what is wrong with it, and the first lines of the difference."""
        if self.found is None:
            return f"{self.path}: missing"
        if self.wanted is None:
            return f"{self.path}: no generator returns it any more"
        lines = difflib.unified_diff(
            self.found.splitlines(), self.wanted.splitlines(), "committed", "generated", lineterm="", n=1
        )
        return "\n".join([f"{self.path}: differs", *(f"    {line}" for line in list(lines)[:DIFF_LINES])])


def differences(root: Path, generators: tuple[Generator, ...]) -> Iterator[Difference]:
    """Compare the tree below `root` with all that the generators return. Raises: ConflictError."""
    wanted: dict[str, str] = {}
    owned: set[str] = set()
    for generator in generators:
        rendered = generator.render()
        if twice := wanted.keys() & rendered.keys():
            raise ConflictError(f"{generator.function} returns what another generator returns: {sorted(twice)}")
        wanted |= rendered
        owned |= {path.relative_to(root).as_posix() for glob in generator.owns for path in root.glob(glob)}
    for path in sorted(wanted.keys() | owned):
        file = root / path
        found = file.read_text(encoding="utf-8") if file.is_file() else None
        if found != wanted.get(path):
            yield Difference(path, found, wanted.get(path))


def apply(root: Path, difference: Difference) -> None:
    """Make the file what its generator returns."""
    file = root / difference.path
    if difference.wanted is None:
        file.unlink()
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(difference.wanted, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the generated files, or compare them.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file differs")
    check = parser.parse_args().check
    found = list(differences(ROOT, GENERATORS))
    for difference in found:
        if check:
            sys.stderr.write(difference.describe() + "\n")
        else:
            apply(ROOT, difference)
            sys.stderr.write(f"{'Deleted' if difference.wanted is None else 'Wrote'} {difference.path}\n")
    if check and found:
        sys.stderr.write(f"{len(found)} generated files differ from the code. Run `make generate` and commit them.\n")
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.exit(main())
