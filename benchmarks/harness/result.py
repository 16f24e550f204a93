"""What a row of the benchmarks answers, as it is written to its JSON file.

Layer: `benchmarks.harness`, bottom; pure. The report is made from these files alone, so rows can be run one by one.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

VERSION = 1


class Part(BaseModel):
    """A part of a result file."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Check(Part):
    """One measured figure against its target, of which exactly one bound is set.

    `measured` is the median of `runs`. `spread` is the lowest and the highest of them.
    """

    label: str
    unit: str
    measured: float
    spread: tuple[float, float]
    at_least: float | None = None
    at_most: float | None = None
    runs: int = 1

    @property
    def is_met(self) -> bool:
        low = self.at_least is None or self.measured >= self.at_least
        return low and (self.at_most is None or self.measured <= self.at_most)

    @property
    def target(self) -> str:
        bound = f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"
        return f"{bound} {self.unit}"


class Table(Part):
    """Figures beside the checks: cells are text, ready to be shown."""

    title: str
    columns: list[str]
    rows: list[list[str]]


class Machine(Part):
    """Where it was measured. `load_before` and `load_after` are the load averages of the last minute."""

    cpu: str
    cores: int
    memory_bytes: int
    system: str
    python: str
    versions: dict[str, str]
    load_before: float
    load_after: float


class RowResult(Part):
    """One row: its question, its checks, and everything that was measured for them.

    `samples` are raw figures by side, in the order they were taken. `plot` is the picture's file name.
    """

    v: int = VERSION
    name: str
    question: str
    how: str
    quick: bool
    checks: list[Check] = Field(min_length=1)
    tables: list[Table] = []
    samples: dict[str, list[dict[str, float]]] = {}
    notes: list[str] = []
    plot: str = ""
    machine: Machine
    measured_on: str
    seconds: float
