"""What a row of the benchmarks is: a name, a question, and a function that measures.

Layer: `benchmarks.harness`. Rows return what they found; the machine, the date and the files are added here.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.harness import machine
from benchmarks.harness.paired import Figures, Median
from benchmarks.harness.place import Place
from benchmarks.harness.result import Check, RowResult, Table


@dataclass(frozen=True, slots=True)
class Found:
    """What a row measured. `plot` is the name of a picture in the output folder."""

    checks: list[Check]
    tables: list[Table] = field(default_factory=list)
    samples: dict[str, list[Figures]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    plot: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `is_cheap` rows are smoked by the tests, `is_on_demand` ones only measured when they are named."""

    name: str
    question: str
    how: str
    measure: Callable[[Place], Found]
    is_cheap: bool = False
    is_on_demand: bool = False


def measured(row: Row, place: Place) -> RowResult:
    """Measure a row and say where and when. Raises: BenchmarkError."""
    load_before, started = machine.load(), time.monotonic()
    place.output.mkdir(parents=True, exist_ok=True)
    found = row.measure(place)
    return RowResult(
        name=row.name,
        question=row.question,
        how=row.how,
        quick=place.quick,
        checks=found.checks,
        tables=found.tables,
        samples=found.samples,
        notes=found.notes,
        plot=found.plot,
        machine=machine.describe(load_before),
        measured_on=dt.datetime.now(dt.UTC).date().isoformat(),
        seconds=round(time.monotonic() - started, 1),
    )


def at_least(label: str, bound: float, unit: str, found: Median) -> Check:
    """A check with a lower bound."""
    return _check(label, unit, found).model_copy(update={"at_least": bound})


def at_most(label: str, bound: float, unit: str, found: Median) -> Check:
    """A check with an upper bound."""
    return _check(label, unit, found).model_copy(update={"at_most": bound})


def _check(label: str, unit: str, found: Median) -> Check:
    return Check(label=label, unit=unit, measured=found.value, spread=(found.low, found.high), runs=found.runs)
