"""The list of planted bugs, and how one is planted.

Layer: `core.testing.sim`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Patches = Callable[[], Iterator[Any]]


@dataclass(frozen=True, slots=True)
class Mutation:
    """One planted bug. `focus` is where faults must strike for it to show soon, "" for anywhere."""

    patches: Patches
    focus: str = ""

    @contextlib.contextmanager
    def planted(self) -> Iterator[None]:
        """The protocol with this bug."""
        with contextlib.ExitStack() as stack:
            for patch in self.patches():
                stack.enter_context(patch)
            yield


MUTATIONS: dict[str, Mutation] = {}


def mutation(patches: Patches) -> Patches:
    """Register a function that yields the patches of a planted bug."""
    MUTATIONS[patches.__name__] = Mutation(patches)
    return patches


def mutation_at(focus: str) -> Callable[[Patches], Patches]:
    """The same, for a bug that shows only in a race for keys that contain `focus`."""

    def register(patches: Patches) -> Patches:
        MUTATIONS[patches.__name__] = Mutation(patches, focus)
        return patches

    return register
