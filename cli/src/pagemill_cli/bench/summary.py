"""What the rows of a sweep say: means and spreads by point, efficiency, fits; and two sweeps side by side.

Layer: `cli.bench`; pure.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from pagemill_cli.bench.fit import Fit, fit_amdahl, fit_usl
from pagemill_cli.bench.measured import Measurement, best_figure

RESAMPLES = 2000
Group = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointSummary:
    """The repetitions of one point. Times in seconds; `low` and `high` are the fastest and the slowest run.

    `efficiency` is the share of the smallest world size's speed per worker that is left here, None without a
    world size. `rows_per_s` and costs are means; costs are for one run.
    """

    group: Group
    world_size: int | None
    runs: int
    time_s: float
    low_s: float
    high_s: float
    rows: int | None
    rows_per_s: float | None
    efficiency: float | None
    cost_serverless: Decimal | None
    cost_pool: Decimal | None


@dataclass(frozen=True, slots=True)
class SweepSummary:
    """All points in order, and the fitted laws by group. `figure` is which time it is all about."""

    figure: str
    points: tuple[PointSummary, ...]
    fits: Mapping[Group, tuple[Fit, ...]]

    @property
    def groups(self) -> list[Group]:
        """The lines of the plots, in order."""
        return list(dict.fromkeys(point.group for point in self.points))


def summarise(rows: Sequence[Measurement], figure: str = "") -> SweepSummary:
    """Sum up rows of one or several sweeps. Raises: InvalidSpecError when they share no time."""
    chosen = figure or best_figure(rows)
    by_point: dict[tuple[Group, int | None], list[Measurement]] = {}
    for row in rows:
        by_point.setdefault((row.group, row.world_size), []).append(row)
    times: dict[Group, dict[int | None, list[float]]] = {}
    for (group, world), runs in by_point.items():
        found = [value for run in runs if (value := run.figure(chosen)) is not None]
        if found:
            times.setdefault(group, {})[world] = found
    points = [
        _point(group, world, by_point[group, world], times[group])
        for group in times
        for world in sorted(times[group], key=lambda size: size or 0)
    ]
    fits = {
        group: _fits({size: runs for size, runs in found.items() if size is not None}) for group, found in times.items()
    }
    return SweepSummary(chosen, tuple(points), {group: found for group, found in fits.items() if found})


def _point(
    group: Group, world: int | None, runs: Sequence[Measurement], times: Mapping[int | None, list[float]]
) -> PointSummary:
    mine = times[world]
    time_s = statistics.fmean(mine)
    smallest = min((size for size in times if size is not None), default=None)
    efficiency = None
    if world is not None and smallest is not None:
        efficiency = statistics.fmean(times[smallest]) * smallest / (time_s * world)
    rows = next((run.rows for run in runs if run.rows is not None), None)
    return PointSummary(
        group=group,
        world_size=world,
        runs=len(mine),
        time_s=time_s,
        low_s=min(mine),
        high_s=max(mine),
        rows=rows,
        rows_per_s=rows / time_s if rows is not None and time_s else None,
        efficiency=efficiency,
        cost_serverless=_mean([run.cost_serverless for run in runs]),
        cost_pool=_mean([run.cost_pool for run in runs]),
    )


def _mean(costs: Sequence[Decimal | None]) -> Decimal | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known, Decimal(0)) / len(known) if known else None


def _fits(times: Mapping[int, Sequence[float]]) -> tuple[Fit, ...]:
    return tuple(fit for fit in (fit_amdahl(times), fit_usl(times)) if fit is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One point in two sweeps: the ratio of mean times, second over first, with its 95 % interval.

    `verdict` is "faster" or "slower" when the interval leaves out 1, else "no difference seen".
    """

    sizes: Group
    world_size: int | None
    first_s: float
    second_s: float
    ratio: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        if self.high < 1:
            return "faster"
        return "slower" if self.low > 1 else "no difference seen"


def compare(
    first: Sequence[Measurement], second: Sequence[Measurement], figure: str = ""
) -> tuple[list[Comparison], list[str]]:
    """The points that both sweeps have, and what only one of them has.

    Raises: InvalidSpecError when they share no time.
    """
    chosen = figure or best_figure([*first, *second])
    ours, theirs = _times(first, chosen), _times(second, chosen)
    found = []
    for key in ours:
        if key in theirs:
            ratio, low, high = _ratio(ours[key], theirs[key])
            means = statistics.fmean(ours[key]), statistics.fmean(theirs[key])
            found.append(
                Comparison(
                    sizes=key[0],
                    world_size=key[1],
                    first_s=means[0],
                    second_s=means[1],
                    ratio=ratio,
                    low=low,
                    high=high,
                )
            )
    alone = [f"{_shown(key)}: only in the first" for key in ours if key not in theirs]
    alone += [f"{_shown(key)}: only in the second" for key in theirs if key not in ours]
    return found, alone


def _times(rows: Sequence[Measurement], figure: str) -> dict[tuple[Group, int | None], list[float]]:
    found: dict[tuple[Group, int | None], list[float]] = {}
    for row in rows:
        value = row.figure(figure)
        if value is not None:
            found.setdefault((row.group[1:], row.world_size), []).append(value)
    return found


def _ratio(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """Mean over mean, and percentiles over repetitions drawn anew; with a single run of one the interval is a point."""
    rng = np.random.default_rng(0)
    drawn = [rng.choice(np.asarray(runs), (RESAMPLES, len(runs))).mean(axis=1) for runs in (second, first)]
    low, high = np.percentile(drawn[0] / drawn[1], [2.5, 97.5])
    return statistics.fmean(second) / statistics.fmean(first), float(low), float(high)


def _shown(key: tuple[Group, int | None]) -> str:
    sizes, world = key
    return ", ".join([*sizes, *([f"world {world}"] if world is not None else [])]) or "the only point"
