"""The picture of predictions against true values, `inference.png`.

Layer: `worker.embed.infer`. Draws on a canvas of its own, so that it needs no display and touches no global state.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagemill_worker.embed.infer.metrics import OUTLIER

POINTS_MAX = 20_000  # more are drawn as density: a cloud of a million dots is a stain
DPI = 120


def scatter(pairs: NDArray[np.float64], figures: Mapping[str, Any], title: str) -> bytes:
    """A PNG of predictions (upwards) against true values. `pairs` is of shape (rows, 2): predicted, true."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 6.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    predicted, true = pairs[:, 0], pairs[:, 1]
    if len(pairs) > POINTS_MAX:
        cells = axes.hexbin(true, predicted, gridsize=120, bins="log", mincnt=1, cmap="viridis")
        figure.colorbar(cells, ax=axes, label="rows")
    else:
        axes.scatter(true, predicted, s=5, alpha=0.4, linewidths=0, color="#27598a")
    low, high = (float(pairs.min()), float(pairs.max())) if len(pairs) else (0.0, 1.0)
    line = np.array([low, high])
    axes.plot(line, line, color="#222222", linewidth=1, label="predicted = true")
    if figures.get("nmad") is not None:
        for sign in (-1, 1):
            label = f"|dz| / (1 + z) = {OUTLIER}" if sign > 0 else None
            axes.plot(line, line + sign * OUTLIER * (1 + line), "--", color="#b04a2f", linewidth=1, label=label)
    axes.set(xlabel="true", ylabel="predicted", title=title, xlim=(low, high), ylim=(low, high))
    axes.text(0.98, 0.02, _told(figures), transform=axes.transAxes, ha="right", va="bottom", family="monospace")
    axes.legend(loc="upper left", frameon=False)
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=DPI, metadata={"Software": None})
    return written.getvalue()


def _told(figures: Mapping[str, Any]) -> str:
    names = {"rows": "rows", "mae": "MAE", "rmse": "RMSE", "r2": "R²", "bias": "bias", "nmad": "NMAD"}
    lines = [f"{shown} {figures[key]:.4g}" for key, shown in names.items() if figures.get(key) is not None]
    if figures.get("outlier_fraction") is not None:
        lines.append(f"outliers {figures['outlier_fraction']:.2%}")
    return "\n".join(lines)
