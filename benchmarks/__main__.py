"""`python -m benchmarks [names…]`: measure rows of the table, or all usual ones, and write the results.

Layer: the top of `benchmarks`; the only module that reads the environment and writes to the terminal.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.place import RESULTS, WORK, Place, clean_variables
from benchmarks.harness.report import read_rows, shown, write_readme, write_row
from benchmarks.harness.row import measured
from benchmarks.rows.registry import ROWS

EXIT_STOPPED = 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure. Returns: 0 when everything was measured, whatever the figures say."""
    asked = _parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_STOPPED))  # sides and servers are ended on the way out
    output = asked.output or (WORK / "quick" if asked.quick else RESULTS)
    place = Place(output.resolve(), WORK, clean_variables(os.environ, WORK), asked.quick, asked.scale)
    try:
        _measure(asked.names or [name for name, row in ROWS.items() if not row.is_on_demand], place)
    finally:
        shutil.rmtree(place.runs, ignore_errors=True)
    sys.stdout.write(f"Results: {place.output / 'README.md'}\n")
    return 0


def _measure(asked: Sequence[str], place: Place) -> None:
    for name in asked:
        sys.stdout.write(f"{ROWS[name].question}\n")
        sys.stdout.flush()
        result = measured(ROWS[name], place)
        write_row(result, place.output)
        for check in result.checks:
            verdict = "met" if check.is_met else "MISSED"
            sys.stdout.write(f"  {check.label}: {shown(check)}, target {check.target}: {verdict}\n")
        write_readme(read_rows(place.output, list(ROWS)), place.output)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    rows = "\n".join(f"  {row.name:14} {row.question}" for row in ROWS.values())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure Pagemill; all usual rows, or those named:\n" + rows,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="name", help="rows to measure")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that a row works, not how fast")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the usual pages of a run (default: 1)")
    parser.add_argument("--output", type=Path, help="folder of the results (default: benchmarks/results)")
    asked = parser.parse_args(arguments)
    if unknown := [name for name in asked.names if name not in ROWS]:
        parser.error(f"there is no row {', '.join(unknown)}; rows: {', '.join(ROWS)}")
    return asked


if __name__ == "__main__":
    sys.exit(main())
