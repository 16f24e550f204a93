"""The files of a sweep's results: `results.csv`, `results.parquet`, `results.md`, `fits.json` and `sweep.png`.

Layer: `cli.bench`, its top. Written anew from the rows each time, so a report can be repeated at any moment.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pagemill_cli.bench.measured import Measurement, to_csv, write_parquet
from pagemill_cli.bench.plots import draw
from pagemill_cli.bench.summary import SweepSummary, summarise
from pagemill_cli.bench.table import sweep_markdown

PLOT = "sweep.png"


def write_report(rows: Sequence[Measurement], folder: Path, title: str, *, figure: str = "", plot: bool = True) -> str:
    """Write all files into `folder`. Returns: the table, Markdown. Raises: InvalidSpecError; EngineUnavailableError."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.csv").write_text(to_csv(rows), encoding="utf-8")
    write_parquet(rows, folder / "results.parquet")
    summary = summarise(rows, figure)
    (folder / "fits.json").write_text(json.dumps(fits_json(summary), indent=2) + "\n", encoding="utf-8")
    notes = [f"{row.point}: {row.note}" for row in rows if row.note]
    notes += [f"{row.point}: {row.failed} items failed" for row in rows if row.failed]
    markdown = sweep_markdown(summary, title, notes)
    shown = ""
    if plot:
        draw(summary, folder / PLOT, title)
        shown = f"\n![{title}]({PLOT})\n"
    (folder / "results.md").write_text(markdown + shown, encoding="utf-8")
    return markdown


def fits_json(summary: SweepSummary) -> list[dict[str, Any]]:
    """The fitted laws for programs; what is not bounded is null."""
    return [
        {
            "group": list(group),
            "figure": summary.figure,
            "law": fit.law,
            "parameters": {
                name: {key: value if math.isfinite(value) else None for key, value in asdict(one).items()}
                for name, one in fit.parameters.items()
            },
            "r2": fit.r2,
            "method": fit.method,
            "worldSizes": list(fit.world_sizes),
            "runs": fit.runs,
        }
        for group, fits in summary.fits.items()
        for fit in fits
    ]
