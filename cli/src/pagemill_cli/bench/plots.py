"""The picture of a sweep: time, throughput, efficiency and cost over the world size, or over whatever was varied.

Layer: `cli.bench`. Draws without a display and without global state; says what to install where matplotlib is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pagemill_cli.bench.summary import PointSummary, SweepSummary
from pagemill_core.errors import EngineUnavailableError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#2563a8", "#d98a2b", "#6aa56a", "#a33b6f", "#555a66", "#7a5fb0", "#00897b")
DPI = 130


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    label: str
    value: Callable[[PointSummary], float | None]
    is_log: bool = False


def draw(summary: SweepSummary, path: Path, title: str) -> None:
    """Write four plots as one PNG: means with bars from the fastest to the slowest run, and the fitted law dashed.

    Raises: EngineUnavailableError when matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EngineUnavailableError(
            "matplotlib is not installed, so the sweep is not drawn", advice="install pagemill[embed], or use --no-plot"
        ) from error
    figure = Figure(figsize=(9.6, 7.2), layout="constrained")
    figure.suptitle(title, fontsize=11)
    panels = [
        _Panel("Time", "seconds", lambda point: point.time_s, is_log=True),
        _Panel("Throughput", "rows a second", lambda point: point.rows_per_s, is_log=True),
        _Panel("Efficiency", "of the smallest world size, per worker", lambda point: point.efficiency),
        _Panel("Cost of one run", "functions (solid), pool (dotted)", _cost),
    ]
    for axes, panel in zip(figure.subplots(2, 2).ravel(), panels, strict=True):
        _draw(axes, summary, panel)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})


def _cost(point: PointSummary) -> float | None:
    return None if point.cost_serverless is None else float(point.cost_serverless)


def _draw(axes: Axes, summary: SweepSummary, panel: _Panel) -> None:
    by_world = any(len({point.world_size for point in _of(summary, group)}) > 1 for group in summary.groups)
    for number, group in enumerate(summary.groups):
        points = _of(summary, group)
        places = [float(point.world_size or 0) if by_world else float(number) for point in points]
        colour = COLOURS[number % len(COLOURS)]
        _line(axes, panel, (places, points), colour, ", ".join(group))
        if panel.title == "Time" and by_world:
            _law(axes, summary, group, colour)
        if panel.title.startswith("Cost"):
            _pool_line(axes, places, points, colour)
    axes.set_title(panel.title, fontsize=10, loc="left")
    axes.set_ylabel(panel.label)
    axes.spines[["top", "right"]].set_visible(False)
    _scale(axes, summary, panel, by_world)


def _line(
    axes: Axes, panel: _Panel, where: tuple[Sequence[float], Sequence[PointSummary]], colour: str, label: str
) -> None:
    found = [
        (place, value, point) for place, point in zip(*where, strict=True) if (value := panel.value(point)) is not None
    ]
    if not found:
        return
    values = [value for _, value, _ in found]
    spans = [_span(panel, point) for _, _, point in found]
    bars = [[value * (1 - low) for value, (low, _) in zip(values, spans, strict=True)]]
    bars.append([value * (high - 1) for value, (_, high) in zip(values, spans, strict=True)])
    axes.errorbar([place for place, _, _ in found], values, bars, fmt="o-", color=colour, label=label, capsize=3)


def _span(panel: _Panel, point: PointSummary) -> tuple[float, float]:
    """The range of runs as factors of the mean; what is divided by time turns it round."""
    low, high = point.low_s / point.time_s, point.high_s / point.time_s
    if panel.title in ("Throughput", "Efficiency"):
        return 1 / high, 1 / low
    return (low, high) if panel.title == "Time" else (1.0, 1.0)


def _law(axes: Axes, summary: SweepSummary, group: tuple[str, ...], colour: str) -> None:
    for fit in summary.fits.get(group, ())[:1]:
        first, last = fit.world_sizes[0], fit.world_sizes[-1]
        places = [first * (last / first) ** (step / 40) for step in range(41)]
        axes.plot(places, [fit.time_s(place) for place in places], "--", color=colour, linewidth=1, label="a + b / n")


def _pool_line(axes: Axes, places: Sequence[float], points: Sequence[PointSummary], colour: str) -> None:
    found = [(place, float(point.cost_pool)) for place, point in zip(places, points, strict=True) if point.cost_pool]
    if found:
        axes.plot([place for place, _ in found], [cost for _, cost in found], "o:", color=colour, linewidth=1)


def _scale(axes: Axes, summary: SweepSummary, panel: _Panel, by_world: bool) -> None:
    if by_world:
        sizes = sorted({point.world_size for point in summary.points if point.world_size is not None})
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel("world size")
    else:
        axes.set_xticks(range(len(summary.groups)), [", ".join(group[1:]) or group[0] for group in summary.groups])
    if panel.is_log and axes.has_data():
        axes.set_yscale("log")
    elif axes.has_data():
        axes.set_ylim(bottom=0)
    if by_world and panel.title == "Time":
        axes.legend(frameon=False, fontsize=8)


def _of(summary: SweepSummary, group: tuple[str, ...]) -> list[PointSummary]:
    return [point for point in summary.points if point.group == group]
