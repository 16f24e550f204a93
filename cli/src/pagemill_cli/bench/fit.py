"""Scaling laws fitted to times over world sizes, with intervals that say how far to trust them.

Layer: `cli.bench`; pure, numpy only. Two laws: `t = a + b / n`, a part that stays and a part that is shared (Amdahl
1967); and Gunther's universal scalability law, X = l n / (1 + s (n - 1) + k n (n - 1)), where contention s bends the
throughput X and coherence k makes it fall. Both are linear in what is fitted, so least squares has one answer.

Intervals are 95 %: from resampling the repetitions of each world size where every size has at least two, else from the
residuals of the fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Law = Literal["amdahl", "usl"]
Times = Mapping[int, Sequence[float]]
"""Seconds of each repetition by world size."""

RESAMPLES = 2000
LEVEL = 0.95
# Student's t for 95 %, by degrees of freedom from 1; beyond the table the normal distribution's 1.96.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A parameter with its 95 % interval; infinite where the runs do not bound it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted law. `method` says where the intervals come from, `r2` how much of the spread of times it explains."""

    law: Law
    parameters: Mapping[str, Estimate]
    r2: float
    method: Literal["bootstrap", "residuals"]
    world_sizes: tuple[int, ...]
    runs: int

    def time_s(self, world_size: float) -> float:
        """The law's time at a world size."""
        values = {name: estimate.value for name, estimate in self.parameters.items()}
        if self.law == "amdahl":
            return values["a_s"] + values["b_s"] / world_size
        shared = 1 + values["sigma"] * (world_size - 1) + values["kappa"] * world_size * (world_size - 1)
        return values["time_1_s"] * shared / world_size


def fit_amdahl(times: Times, seed: int = 0) -> Fit | None:
    """`t = a_s + b_s / n`, and the serial fraction a / (a + b). None below two sizes."""

    def parameters(found: Vector) -> dict[str, float]:
        total = found[0] + found[1]
        return {"a_s": found[0], "b_s": found[1], "serial_fraction": found[0] / total if total else math.nan}

    def design(n: Vector) -> NDArray[np.float64]:
        return np.stack([np.ones_like(n), 1 / n], axis=1)

    return _fit("amdahl", times, design, parameters, seed)


def fit_usl(times: Times, seed: int = 0) -> Fit | None:
    """`t = time_1_s (1 + sigma (n - 1) + kappa n (n - 1)) / n`, and where throughput peaks. None below three sizes."""

    def parameters(found: Vector) -> dict[str, float]:
        one = found[0]
        sigma, kappa = (found[1] / one, found[2] / one) if one else (math.nan, math.nan)
        peak = math.sqrt((1 - sigma) / kappa) if kappa > 0 and sigma < 1 else math.inf
        return {"time_1_s": one, "sigma": sigma, "kappa": kappa, "peak_world_size": peak}

    def design(n: Vector) -> NDArray[np.float64]:
        return np.stack([1 / n, (n - 1) / n, n - 1], axis=1)

    return _fit("usl", times, design, parameters, seed)


def _fit(
    law: Law,
    times: Times,
    design: Callable[[Vector], NDArray[np.float64]],
    parameters: Callable[[Vector], dict[str, float]],
    seed: int,
) -> Fit | None:
    sizes = sorted(times)
    n = np.array([size for size in sizes for _ in times[size]], np.float64)
    t = np.array([value for size in sizes for value in times[size]], np.float64)
    columns = design(n)
    if len(sizes) < columns.shape[1]:
        return None
    weights = _weights(times)
    found = _solve(columns, t, weights)
    values = parameters(found)
    residuals = t - columns @ found
    spread = float(((t - t.mean()) ** 2).sum())
    if all(len(times[size]) >= 2 for size in sizes):
        ranges, method = _bootstrap(times, design, parameters, seed), "bootstrap"
    else:
        ranges, method = _residual(columns, residuals * weights, weights, found, parameters), "residuals"
    return Fit(
        law=law,
        parameters={name: Estimate(value, *ranges[name]) for name, value in values.items()},
        r2=1 - float((residuals**2).sum()) / spread if spread else 1.0,
        method="bootstrap" if method == "bootstrap" else "residuals",
        world_sizes=tuple(sizes),
        runs=len(t),
    )


def _weights(times: Times) -> Vector:
    """Relative errors: a run of a hundred seconds may be off by ten, one of one second may not.

    By the mean of a size, not by each run's own time, or fast runs would count for more than slow ones.
    """
    return np.array([1 / (sum(times[size]) / len(times[size])) for size in sorted(times) for _ in times[size]])


def _solve(columns: NDArray[np.float64], t: Vector, weights: Vector) -> Vector:
    found, *_ = np.linalg.lstsq(columns * weights[:, None], t * weights, rcond=None)
    return np.asarray(found, np.float64)


def _bootstrap(
    times: Times,
    design: Callable[[Vector], NDArray[np.float64]],
    parameters: Callable[[Vector], dict[str, float]],
    seed: int,
) -> dict[str, tuple[float, float]]:
    """Percentiles over fits to repetitions drawn anew within each world size; the same for the same seed."""
    rng = np.random.default_rng(seed)
    sizes, weights = sorted(times), _weights(times)
    n = np.array([size for size in sizes for _ in times[size]], np.float64)
    columns = design(n)
    drawn: dict[str, list[float]] = {}
    for _ in range(RESAMPLES):
        t = np.concatenate([rng.choice(np.asarray(times[size]), len(times[size])) for size in sizes])
        for name, value in parameters(_solve(columns, t, weights)).items():
            drawn.setdefault(name, []).append(value)
    tails = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    return {name: (_quantile(values, tails[0]), _quantile(values, tails[1])) for name, values in drawn.items()}


def _quantile(values: Sequence[float], share: float) -> float:
    """Without interpolation, since a peak may be infinite in some of the draws."""
    ordered = sorted(math.inf if math.isnan(value) else value for value in values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def _residual(
    columns: NDArray[np.float64],
    residuals: Vector,
    weights: Vector,
    found: Vector,
    parameters: Callable[[Vector], dict[str, float]],
) -> dict[str, tuple[float, float]]:
    """Intervals from the covariance of the least squares; unbounded when there are as many parameters as runs.

    `residuals` are weighted. Derived parameters move as the fitted ones do, by their slopes (the delta method).
    """
    freedom = len(residuals) - columns.shape[1]
    values = parameters(found)
    if freedom < 1:
        return dict.fromkeys(values, (-math.inf, math.inf))
    weighted = columns * weights[:, None]
    covariance = np.linalg.pinv(weighted.T @ weighted) * float((residuals**2).sum()) / freedom
    reach = _T[freedom - 1] if freedom <= len(_T) else 1.96
    ranges = {}
    for name, value in values.items():
        slopes = np.array([_slope(found, place, name, parameters) for place in range(len(found))])
        deviation = (
            reach * math.sqrt(max(float(slopes @ covariance @ slopes), 0.0)) if math.isfinite(value) else math.inf
        )
        ranges[name] = (value - deviation, value + deviation)
    return ranges


def _slope(found: Vector, place: int, name: str, parameters: Callable[[Vector], dict[str, float]]) -> float:
    step = max(abs(float(found[place])) * 1e-6, 1e-9)
    moved = found.copy()
    moved[place] += step
    slope = (parameters(moved)[name] - parameters(found)[name]) / step
    return slope if math.isfinite(slope) else 0.0
