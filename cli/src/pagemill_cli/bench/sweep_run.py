"""Doing a sweep: every point that has no record yet, its record written when it is done.

Layer: `cli.bench`. A point's output is a folder of its own for each try, so that a try that was cut short is never
taken for a finished one, and never makes the next one look fast.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pagemill_cli.bench.job import Document, digest_of, job_of
from pagemill_cli.bench.measured import Measurement
from pagemill_cli.bench.runners import PointRun, PointRunner
from pagemill_cli.bench.sweep import Point, Sweep, points_of
from pagemill_core.errors import InvalidSpecError, ObjectNotFoundError
from pagemill_core.storage.open import is_local, join_uri
from pagemill_core.storage.store import ObjectStore
from pagemill_worker.bench.pricing import FunctionUse, pool_cost, serverless_cost

COMBINED = "combined_data.json"
_BITS_PER_BYTE = 8
Tell = Callable[[Point, Measurement | None], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRun:
    """A sweep with what its points are run by.

    `open_output` opens a point's output for reading; `outputs` is where outputs go, a local folder or s3://…;
    `keeps_outputs` leaves local ones in place. `tell` hears of each point before it runs and after.
    """

    sweep: Sweep
    document: Document
    runner: PointRunner
    open_output: Callable[[str], ObjectStore]
    outputs: str
    records: Path
    keeps_outputs: bool = False
    tell: Tell = lambda *_: None

    def run(self) -> list[Measurement]:
        """All points' rows, in order. Raises: PagemillError of the first point that did not complete."""
        return [self._finished(point) or self._run(point) for point in points_of(self.sweep)]

    def done(self) -> list[Measurement]:
        """The rows of the points that are done, in order."""
        found = (self._finished(point) for point in points_of(self.sweep))
        return [row for row in found if row is not None]

    @property
    def _digest(self) -> str:
        return digest_of(self.document)

    def _finished(self, point: Point) -> Measurement | None:
        """The point's record. Raises: InvalidSpecError when the job has changed since."""
        path = self.records / f"{point.id}.json"
        try:
            row = Measurement.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise InvalidSpecError(
                f"{path} is no record of a point", advice="delete it to run the point again"
            ) from error
        if row.job_digest != self._digest:
            raise InvalidSpecError(
                f"point {point.id} was run with another job than {self.sweep.job} is now",
                advice="give the sweep another output, or delete its records to start over",
            )
        return row

    def _run(self, point: Point) -> Measurement:
        self.tell(point, None)
        tries = self.records / "tries"
        tries.mkdir(parents=True, exist_ok=True)
        number = 1 + sum(1 for _ in tries.glob(f"{point.id}.*"))
        (tries / f"{point.id}.{number}").touch(exist_ok=False)
        output = join_uri(self.outputs, f"{point.id}.{number}")
        name = f"{self.sweep.name}-{point.id}".lower().replace("_", "-").replace(".", "-")[:50].rstrip("-")
        document = job_of(self.document, point, output, name=f"{name}-{number}")
        run = self.runner.run(document, point)
        row = measured(self.sweep, point, run, self._reports(document, output)).model_copy(
            update={"source": self.runner.source, "job_digest": self._digest}
        )
        _write(self.records / f"{point.id}.json", row.model_dump_json(indent=2))
        if is_local(output) and not self.keeps_outputs:
            shutil.rmtree(output, ignore_errors=True)  # of our own making; its record says what mattered
        self.tell(point, row)
        return row

    def _reports(self, document: Document, output: str) -> list[dict[str, Any]]:
        """The ranks' reports of a tensor job, none of other jobs."""
        inference = document["spec"].get("inference")
        if inference is None:
            return []
        key = f"{inference.get('resultPath', 'results')}/{COMBINED}".lstrip("/")
        try:
            found: list[dict[str, Any]] = json.loads(self.open_output(output).get(key).data)
        except ObjectNotFoundError as error:
            raise InvalidSpecError(f"{output} holds no {key}", advice="output.formats must hold rankFiles") from error
        return found


def measured(sweep: Sweep, point: Point, run: PointRun, reports: list[dict[str, Any]]) -> Measurement:
    """A point's row. Functions are priced as one a rank, each as long as its rank's loop and reading took."""
    times = [report["wall_seconds"] for report in reports]
    workers = point.world_size or max(1, len(reports))
    size, prices = point.resources, sweep.prices
    memory = size.memory_gb if size is not None else prices.memory_gb
    row = Measurement(
        sweep=sweep.name,
        source="local",
        point=point.id,
        world_size=point.world_size,
        batch_size=point.batch_size,
        partitions=point.partitions.name if point.partitions is not None else None,
        resources=size.name if size is not None else None,
        repetition=point.repetition,
        started_at=run.started_at,
        wall_s=run.wall_s,
        cpu_s=run.cpu_s,
        peak_rss_bytes=run.peak_rss_bytes,
        rank_time_mean_s=sum(times) / len(times) if times else None,
        rank_time_max_s=max(times) if times else None,
        ranks=len(reports) if reports else None,
        rows=sum(report["rows"] for report in reports) if reports else run.items,
        failed=run.failed,
        input_bits=sum(report["input_bytes"] for report in reports) * _BITS_PER_BYTE if reports else None,
        memory_gb=memory,
        cost_pool=pool_cost(Decimal(str(run.wall_s)), workers, prices.pool_per_hour) if prices.pool_per_hour else None,
    )
    if memory is None:
        return row
    storage = size.storage_gb if size is not None else prices.storage_gb
    seconds = [report["wall_seconds"] + report.get("fetch_seconds", 0) for report in reports] or [run.wall_s] * workers
    costs = (
        serverless_cost(
            FunctionUse(requests=1, seconds_each=Decimal(str(one)), memory_gb=memory, storage_gb=storage),
            prices.serverless,
        ).total
        for one in seconds
    )
    return row.model_copy(update={"cost_serverless": sum(costs, Decimal(0))})


def _write(path: Path, text: str) -> None:
    """Write a record so that it is there whole or not at all."""
    half = path.with_suffix(".tmp")
    half.write_text(text + "\n", encoding="utf-8")
    half.replace(path)
