"""One finished point as a row, and tables of such rows.

Layer: `cli.bench`, its bottom. A row says where it came from, so that published runs and new ones stand in one table.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pagemill_core.errors import InvalidSpecError

Source = Literal["local", "cluster", "reference"]
FIGURES = ("wall_s", "rank_time_mean_s", "rank_time_max_s")
AXES = ("world_size", "batch_size", "partitions", "resources", "data")


class Measurement(BaseModel):
    """How one point went. None: not measured there.

    `wall_s` is from start to end by the clock; `rank_time_*` over the ranks' own loops, by the clock in new runs and
    by CPU time in the reference's. `rows` are tensor rows, or items of other jobs. `ranks` is how many reports there
    are. Costs are in the prices' currency. `data` is the reference's name for how much data a run read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sweep: str
    source: Source
    point: str
    world_size: int | None = None
    batch_size: int | None = None
    partitions: str | None = None
    resources: str | None = None
    data: str | None = None
    repetition: int
    started_at: str = ""
    wall_s: float | None = None
    cpu_s: float | None = None
    peak_rss_bytes: int | None = None
    rank_time_mean_s: float | None = None
    rank_time_max_s: float | None = None
    ranks: int | None = None
    rows: int | None = None
    failed: int | None = None
    input_bits: int | None = None
    memory_gb: Decimal | None = None
    cost_serverless: Decimal | None = None
    cost_pool: Decimal | None = None
    job_digest: str = ""
    note: str = ""

    @property
    def group(self) -> tuple[str, ...]:
        """Everything but the world size and the repetition: points that make one line in a plot."""
        chosen = (self.batch_size and f"batch {self.batch_size}", self.partitions, self.resources, self.data)
        return (self.sweep, *(str(one) for one in chosen if one))

    def figure(self, name: str) -> float | None:
        """A time in seconds by its name."""
        found: object = getattr(self, name)
        return float(found) if isinstance(found, (int, float)) else None


def best_figure(rows: Sequence[Measurement]) -> str:
    """The time that all rows have: by the clock on the wall where there is one. Raises: InvalidSpecError."""
    for name in FIGURES:
        if rows and all(row.figure(name) is not None for row in rows):
            return name
    raise InvalidSpecError("these runs have no time that all of them were measured by", advice="compare like with like")


def to_csv(rows: Iterable[Measurement]) -> str:
    """A tidy table, one row a run, one column a field."""
    written = io.StringIO()
    table = csv.DictWriter(written, list(Measurement.model_fields), lineterminator="\n")
    table.writeheader()
    table.writerows(row.model_dump(mode="json") for row in rows)
    return written.getvalue()


def write_parquet(rows: Sequence[Measurement], path: Path) -> None:
    """The same table as Parquet; money as text, so that no digit is lost."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"int": pa.int64(), "float": pa.float64()}
    fields = []
    for name, field in Measurement.model_fields.items():
        kind = str(field.annotation)
        fields.append(pa.field(name, next((kinds[one] for one in kinds if one in kind), pa.string())))
    pq.write_table(pa.Table.from_pylist([row.model_dump(mode="json") for row in rows], pa.schema(fields)), path)


def read_rows(folder: Path) -> list[Measurement]:
    """The rows of a results folder, from its results.csv. Raises: InvalidSpecError."""
    path = folder / "results.csv" if folder.is_dir() else folder
    try:
        with path.open(encoding="utf-8", newline="") as opened:
            return [_row(line) for line in csv.DictReader(opened)]
    except FileNotFoundError as error:
        raise InvalidSpecError(
            f"{folder} holds no results.csv", advice="`pagemill bench run` or `pagemill bench import` makes one"
        ) from error
    except (OSError, ValidationError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidSpecError(f"{path} is no table of a sweep: {error}") from error


def _row(line: dict[str, Any]) -> Measurement:
    given = {name: value for name, value in line.items() if value != ""}
    return Measurement.model_validate(given)
