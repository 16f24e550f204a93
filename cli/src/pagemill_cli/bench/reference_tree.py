"""The reference study's own result tree, read into the same rows as new runs.

Layer: `cli.bench`. Form: `result-partition-<MB>MB/<data>/<run>/combined_data.json`, and runs of one data size over
batch sizes at `…/1GB/Batches/<batch size>/<run>/`. There is no wall time in it; the time is the mean of the ranks' CPU
times without outliers, as the study's own statistics have it.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pagemill_cli.bench.measured import Measurement
from pagemill_core.errors import SourceError

COMBINED = "combined_data.json"
WHISKERS = 1.5
_PATH = re.compile(r"result-partition-(?P<mb>\d+)MB/(?P<data>[^/]+)/(Batches/(?P<batch>\d+)/)?(?P<run>\d+)/" + COMBINED)


class RankReport(BaseModel):
    """What is read of a rank's report; what else it holds is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    cpu_s: float = Field(alias="total_cpu_time (seconds)")
    memory_mb: float = Field(alias="total_cpu_memory (MB)", default=0.0)
    batch_size: int
    num_batches: int
    throughput_bps: float
    sample_persec: float


_REPORTS = TypeAdapter(list[RankReport])


@dataclass(frozen=True, slots=True)
class ReferenceRun:
    """One run of the tree: its place, its ranks, and the study's own figures of it."""

    partition_mb: int
    data: str
    repetition: int
    reports: tuple[RankReport, ...]

    @property
    def time_s(self) -> float:
        """The mean of the ranks' CPU times that are within 1.5 interquartile ranges of the middle half."""
        times = np.array([report.cpu_s for report in self.reports])
        low, high = np.percentile(times, [25, 75])
        reach = WHISKERS * (high - low)
        return float(times[(times >= low - reach) & (times <= high + reach)].mean())

    @property
    def total_bits(self) -> int:
        """Bits of input over all ranks."""
        return round(sum(report.throughput_bps * report.cpu_s for report in self.reports))

    @property
    def rows(self) -> int:
        """Rows over all ranks."""
        return sum(round(report.sample_persec * report.cpu_s) for report in self.reports)


def read_tree(root: Path) -> list[Measurement]:
    """Every run below `root`, in order of its path. Raises: SourceError for a file that is no list of reports."""
    found = []
    for path in sorted(root.rglob(COMBINED)):
        match = _PATH.search(path.as_posix())
        if match is None:
            continue
        run = ReferenceRun(int(match["mb"]), match["data"], int(match["run"]), _reports(path))
        found.append(_row(run, match["batch"]))
    if not found:
        raise SourceError(
            f"{root} holds no result-partition-<MB>MB/<data>/<run>/{COMBINED}",
            advice="name the folder that holds the result-partition-… folders",
        )
    return _with_notes(found)


def _reports(path: Path) -> tuple[RankReport, ...]:
    try:
        reports = tuple(_REPORTS.validate_python(json.loads(path.read_bytes())))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise SourceError(f"{path}: rank {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if not reports:
        raise SourceError(f"{path} holds no rank")
    return reports


def _row(run: ReferenceRun, batch: str | None) -> Measurement:
    sizes = {report.batch_size for report in run.reports}
    return Measurement(
        sweep="reference",
        source="reference",
        point=f"{run.partition_mb}MB-{run.data}{f'-b{batch}' if batch else ''}-r{run.repetition}",
        world_size=len(run.reports),
        batch_size=int(batch) if batch else statistics.mode(sizes),
        partitions=f"{run.partition_mb}MB",
        data=run.data,
        repetition=run.repetition,
        rank_time_mean_s=run.time_s,
        rank_time_max_s=max(report.cpu_s for report in run.reports),
        ranks=len(run.reports),
        rows=run.rows,
        input_bits=run.total_bits,
    )


def _with_notes(rows: Sequence[Measurement]) -> list[Measurement]:
    """Rows with a note where repetitions of one point do not hold the same ranks: some were lost."""
    most: dict[tuple[str, str | None, int | None], int] = {}
    for row in rows:
        key = (row.partitions or "", row.data, row.batch_size)
        most[key] = max(most.get(key, 0), row.ranks or 0)
    noted = []
    for row in rows:
        want = most[row.partitions or "", row.data, row.batch_size]
        lost = want - (row.ranks or 0)
        note = {"note": f"{lost} of {want} ranks are missing", "world_size": want}
        noted.append(row.model_copy(update=note) if lost else row)
    return noted
