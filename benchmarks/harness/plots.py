"""The pictures beside the tables.

Layer: `benchmarks.harness`. matplotlib without a display; sizes that read well in a README.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS, THEIRS = "#2563a8", "#b0b7c0"
COLOURS = (OURS, THEIRS, "#d98a2b", "#6aa56a")
SIZE_IN = (7.2, 3.4)


@dataclass(frozen=True, slots=True)
class Picture:
    """Where a plot goes and what it is called."""

    path: Path
    title: str
    y_label: str
    x_label: str = ""


def bars(picture: Picture, groups: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Medians of runs as bars, one group a key, one bar a side, every single run as a dot on its bar."""
    figure, axes = _canvas()
    sides = list(dict.fromkeys(side for group in groups.values() for side in group))
    width = 0.8 / max(1, len(sides))
    for number, side in enumerate(sides):
        places = [at + number * width for at, group in enumerate(groups.values()) if side in group]
        runs = [sorted(group[side]) for group in groups.values() if side in group]
        heights = [values[len(values) // 2] for values in runs]
        axes.bar(places, heights, width * 0.92, label=side, color=COLOURS[number % len(COLOURS)])
        dots = [(place, value) for place, values in zip(places, runs, strict=True) for value in values]
        axes.plot([x for x, _ in dots], [y for _, y in dots], ".", color="black", markersize=3)
    axes.set_xticks([at + width * (len(sides) - 1) / 2 for at in range(len(groups))], list(groups))
    axes.legend(frameon=False)
    _finish(figure, axes, picture)


def lines(picture: Picture, series: Mapping[str, tuple[Sequence[float], Sequence[float]]], target: float = 0) -> None:
    """Curves of (x, y), with a dashed line at `target` when there is one."""
    figure, axes = _canvas()
    for number, (name, (xs, ys)) in enumerate(series.items()):
        axes.plot(xs, ys, label=name, color=COLOURS[number % len(COLOURS)], linewidth=1.4)
    if target:
        axes.axhline(target, color="#a33", linestyle="--", linewidth=1, label="target")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    _finish(figure, axes, picture)


def _canvas() -> tuple[Figure, Axes]:
    """A figure outside pyplot: no display, no global state, nothing to close."""
    from matplotlib.figure import Figure  # takes seconds where nothing is kept compiled: `--help` need not wait for it

    figure = Figure(figsize=SIZE_IN, layout="constrained")
    return figure, figure.add_subplot()


def _finish(figure: Figure, axes: Axes, picture: Picture) -> None:
    axes.set_title(picture.title, fontsize=10, loc="left")
    axes.set_ylabel(picture.y_label)
    axes.set_xlabel(picture.x_label)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture.path, dpi=130)
