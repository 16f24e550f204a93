"""Summaries as Markdown: the table of a sweep, its fits, and two sweeps compared.

Layer: `cli.bench`; pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

from pagemill_cli.bench.fit import Estimate, Fit
from pagemill_cli.bench.summary import Comparison, Group, SweepSummary

FIGURE_WORDS = {
    "wall_s": "wall time of the whole run",
    "rank_time_mean_s": "mean time of a rank's loop",
    "rank_time_max_s": "time of the slowest rank's loop",
}
_LAWS = {"amdahl": "t = a + b / n", "usl": "t = t(1) (1 + σ (n − 1) + κ n (n − 1)) / n"}


def sweep_markdown(summary: SweepSummary, title: str, notes: Sequence[str] = ()) -> str:
    """The whole report of a sweep."""
    about = f"Time is the {FIGURE_WORDS[summary.figure]}: the mean of the runs, with the fastest and the slowest."
    lines = [f"# {title}", "", about, ""]
    lines += ["| points | world size | runs | time s | rows/s | efficiency | functions $ | pool $ |", "|" + "---|" * 8]
    for point in summary.points:
        span = f"{point.time_s:.3g} ({point.low_s:.3g} to {point.high_s:.3g})"
        cells = [
            _name(point.group),
            _or_none(point.world_size, "d"),
            str(point.runs),
            span,
            _or_none(point.rows_per_s, ",.4g"),
            _or_none(point.efficiency, ".0%"),
            _money(point.cost_serverless),
            _money(point.cost_pool),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    for group, fits in summary.fits.items():
        lines += ["", f"## Scaling of {_name(group)}", "", *[line for fit in fits for line in _fit_lines(fit)]]
    if notes:
        lines += ["", "## Notes", "", *[f"- {note}" for note in notes]]
    return "\n".join(lines) + "\n"


def comparison_markdown(found: Sequence[Comparison], alone: Sequence[str], names: tuple[str, str], figure: str) -> str:
    """Two sweeps point by point."""
    about = f"Time is the {FIGURE_WORDS[figure]}; the ratio is the second's over the first's"
    lines = [f"# {names[1]} against {names[0]}", "", f"{about}, with 95 % intervals from the repetitions."]
    lines += ["", f"| point | world size | {names[0]} s | {names[1]} s | ratio | verdict |", "|" + "---|" * 6]
    for one in found:
        ratio = f"{one.ratio:.3f} ({one.low:.3f} to {one.high:.3f})"
        world = _or_none(one.world_size, "d")
        name = ", ".join(one.sizes) or "–"
        lines.append(f"| {name} | {world} | {one.first_s:.3g} | {one.second_s:.3g} | {ratio} | {one.verdict} |")
    if alone:
        lines += ["", *[f"- {line}" for line in alone]]
    return "\n".join(lines) + "\n"


def _fit_lines(fit: Fit) -> list[str]:
    parameters = ", ".join(f"{name} {_estimate(one)}" for name, one in fit.parameters.items())
    how = "resampled repetitions" if fit.method == "bootstrap" else "the residuals of the fit"
    sizes = ", ".join(map(str, fit.world_sizes))
    return [
        f"- **{_LAWS[fit.law]}** over world sizes {sizes} ({fit.runs} runs): {parameters}; R² {fit.r2:.3f}; "
        f"95 % intervals from {how}."
    ]


def _estimate(one: Estimate) -> str:
    if math.isinf(one.low) or math.isinf(one.high):
        return f"{_number(one.value)} (not bounded)"
    return f"{_number(one.value)} ({_number(one.low)} to {_number(one.high)})"


def _number(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:.3g}"


def _name(group: Group) -> str:
    return ", ".join(group)


def _or_none(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _money(value: Decimal | None) -> str:
    return "–" if value is None else f"{value:.6f}".rstrip("0").rstrip(".") or "0"
