"""Writes results: one JSON file and one picture a row, and a README with the table that is made from all JSON files.

Layer: `benchmarks.harness`, its top.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.result import Check, Machine, RowResult, Table

HEAD = """# What was measured

Made by `make bench`; not written by hand. Each row compares sides that were measured in one run on one machine, in
turn (A B B A …), after each had been warmed up once; a ratio is the median over the rounds of ours / theirs, the range
behind it goes from the lowest to the highest round. *Pages/s* are taken while every process is at work; *CPU s* are
user and system time of all processes of a side, which is what carries over from a busy machine to a quiet one.
`python -m benchmarks --help` says how to repeat one row, the JSON files hold every single figure.
"""


def write_row(result: RowResult, folder: Path) -> None:
    """The row's JSON file, `<name>.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{result.name}.json").write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_rows(folder: Path, order: Sequence[str]) -> list[RowResult]:
    """The rows that were measured, in the order of `order`."""
    paths = [folder / f"{name}.json" for name in order]
    return [RowResult.model_validate_json(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]


def write_readme(results: Sequence[RowResult], folder: Path) -> None:
    """`README.md` with the machine, the table and every row's details."""
    parts = [HEAD, *_machines(results), "## Table\n", summary(results), ""]
    for result in results:
        parts += _section(result)
    (folder / "README.md").write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")


def summary(results: Sequence[RowResult]) -> str:
    """Every check as one row of a Markdown table."""
    lines = ["| what | target | measured | |", "|---|---|---|---|"]
    for result in results:
        for check in result.checks:
            verdict = "met" if check.is_met else "**missed**"
            lines.append(f"| {check.label} | {check.target} | {shown(check)} | {verdict} |")
    return "\n".join(lines)


def shown(check: Check) -> str:
    """The measured figure and, of several runs, its range."""
    figure = f"**{_number(check.measured)}** {check.unit}"
    if check.runs == 1:
        return figure
    low, high = check.spread
    return f"{figure} ({_number(low)} to {_number(high)}, {check.runs} rounds)"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _machines(results: Sequence[RowResult]) -> list[str]:
    """The machine, once where all rows were measured on the same one."""
    shown_once = {_machine(result.machine): result for result in results}
    lines = ["## Machine\n", *(f"- {text}" for text in shown_once)]
    loads = [load for result in results for load in (result.machine.load_before, result.machine.load_after)]
    if loads:
        lines.append(
            f"- load average while measuring: {min(loads):.1f} to {max(loads):.1f}. Above the number of cores, others "
            "were at work beside us: ratios stand, seconds are longer than on a quiet machine"
        )
    return [*lines, ""]


def _machine(found: Machine) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    memory_gib = found.memory_bytes / (1 << 30)
    return f"{found.cpu}, {found.cores} cores, {memory_gib:.0f} GiB; {found.system}; Python {found.python}; {versions}"


def _section(result: RowResult) -> list[str]:
    lines = [f"## {result.question}\n", f"{result.how}\n"]
    if result.quick:
        lines.append("*A smoke run with tiny sizes: the figures mean nothing.*\n")
    if result.plot:
        lines.append(f"![{result.question}]({result.plot})\n")
    for table in result.tables:
        lines += [*_table(table), ""]
    lines += [f"- {note}" for note in result.notes]
    load = result.machine
    lines.append(
        f"- measured on {result.measured_on} in {result.seconds:.0f} s, load average {load.load_before:.1f} before and "
        f"{load.load_after:.1f} after\n"
    )
    return lines


def _table(table: Table) -> list[str]:
    return [
        f"{table.title}\n",
        f"| {' | '.join(table.columns)} |",
        f"|{'---|' * len(table.columns)}",
        *(f"| {' | '.join(row)} |" for row in table.rows),
    ]
