"""Two sides measured in turn, so that whatever else the machine does falls on both.

Layer: `benchmarks.harness`; pure but for calling the sides. The figure is the median of the ratios of neighbours:
one pair's ratio compares runs that began within a minute of each other, an average over all runs would not.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the sides: `run(size)` does the work on `size` items and returns its figures by name."""

    name: str
    run: Callable[[int], Figures]


@dataclass(frozen=True, slots=True)
class Plan:
    """How often and how much: each side once with `warm_size` items, then `pairs` times all sides with `size`."""

    size: int
    pairs: int
    warm_size: int


@dataclass(frozen=True, slots=True)
class Median:
    """A figure over several runs."""

    value: float
    low: float
    high: float
    runs: int


def interleave(sides: Sequence[Side], plan: Plan) -> dict[str, list[Figures]]:
    """Warm every side, then run A B C A B C …; the first side of each round changes, so that none is always first."""
    for side in sides if plan.warm_size else ():
        side.run(plan.warm_size)
    found: dict[str, list[Figures]] = {side.name: [] for side in sides}
    for turn in range(plan.pairs):
        order = sides if turn % 2 == 0 else tuple(reversed(sides))
        for side in order:
            found[side.name].append(side.run(plan.size))
    return found


def median(values: Sequence[float]) -> Median:
    return Median(statistics.median(values), min(values), max(values), len(values))


def ratio(ours: Sequence[Figures], theirs: Sequence[Figures], figure: str) -> Median:
    """The median over the rounds of ours / theirs in one figure."""
    return median([our[figure] / their[figure] for our, their in zip(ours, theirs, strict=True)])
