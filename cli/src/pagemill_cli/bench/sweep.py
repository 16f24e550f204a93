"""The sweep's file, and the points it means.

Layer: `cli.bench`, its bottom; no I/O but reading the file.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from pagemill_core.errors import InvalidSpecError
from pagemill_worker.bench.pricing import ServerlessPrices

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")]
Money = Annotated[Decimal, Field(ge=0)]
Count = Annotated[int, Field(ge=1, le=100_000)]
POINTS_MAX = 10_000


class SweepModel(BaseModel):
    """What the parts of a sweep's file share: camelCase, nothing unknown, nothing changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Partitions(SweepModel):
    """One cut of the same data: a name for tables, and where it lies."""

    name: Name
    uri: str = Field(min_length=1)


class Size(SweepModel):
    """One size of pod or function: its name, and what it has. Here on one machine it is priced, not enforced."""

    name: Name
    memory_gb: Money
    cpus: Money | None = None
    storage_gb: Money = Decimal("0.5")


class Axes(SweepModel):
    """What is varied. A point is one choice on every axis that is given."""

    world_size: tuple[Count, ...] | None = Field(default=None, min_length=1)
    batch_size: tuple[Count, ...] | None = Field(default=None, min_length=1)
    partitions: tuple[Partitions, ...] | None = Field(default=None, min_length=1)
    resources: tuple[Size, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Axes:
        for name, values in (("worldSize", self.world_size), ("batchSize", self.batch_size)):
            if values is not None and len(set(values)) != len(values):
                raise ValueError(f"{name} names a value twice")
        for name, named in (("partitions", self.partitions), ("resources", self.resources)):
            if named is not None and len({one.name for one in named}) != len(named):
                raise ValueError(f"{name} has a name twice")
        return self


class Prices(SweepModel):
    """What things cost. `pool_per_hour` is for one worker."""

    pool_per_hour: Money = Decimal(0)
    compute_gb_second: Money = ServerlessPrices().compute_gb_second
    request: Money = ServerlessPrices().request
    storage_gb_second: Money = ServerlessPrices().storage_gb_second
    memory_gb: Money | None = Field(default=None, description="Of each function, where no axis says otherwise.")
    storage_gb: Money = Decimal("0.5")

    @property
    def serverless(self) -> ServerlessPrices:
        """The prices of functions."""
        return ServerlessPrices(
            compute_gb_second=self.compute_gb_second, request=self.request, storage_gb_second=self.storage_gb_second
        )


class Sweep(SweepModel):
    """A sweep's file. `job` is a job's file, `output` a folder for results or, on a cluster, for its records."""

    name: Name
    job: str = Field(min_length=1)
    output: str = Field(min_length=1)
    axes: Axes
    repetitions: int = Field(default=3, ge=1, le=100)
    prices: Prices = Prices()


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One run of a sweep: a choice on each axis, None where the job's own file decides, and which repetition."""

    world_size: int | None = None
    batch_size: int | None = None
    partitions: Partitions | None = None
    resources: Size | None = None
    repetition: int = 1

    @property
    def id(self) -> str:
        """A name for files: the choices in order, then the repetition."""
        parts = [
            f"w{self.world_size}" if self.world_size is not None else "",
            f"b{self.batch_size}" if self.batch_size is not None else "",
            self.partitions.name if self.partitions is not None else "",
            self.resources.name if self.resources is not None else "",
            f"r{self.repetition}",
        ]
        return "-".join(part for part in parts if part)


def points_of(sweep: Sweep) -> list[Point]:
    """All points, repetition by repetition, so that a slow hour of the machine falls on all sizes alike."""
    axes = sweep.axes
    choices = itertools.product(
        range(1, sweep.repetitions + 1),
        axes.partitions or (None,),
        axes.resources or (None,),
        axes.batch_size or (None,),
        axes.world_size or (None,),
    )
    points = [
        Point(world_size=world, batch_size=batch, partitions=partitions, resources=size, repetition=repetition)
        for repetition, partitions, size, batch, world in choices
    ]
    if len(points) > POINTS_MAX:
        raise InvalidSpecError(
            f"the sweep has {len(points)} points, more than {POINTS_MAX}", advice="vary less at once"
        )
    return points


def read_sweep(path: Path) -> Sweep:
    """The sweep of a file; its paths are made absolute from the file's own folder. Raises: InvalidSpecError."""
    try:
        given: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InvalidSpecError(f"{path}: there is no such file", advice="name a sweep's YAML file") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidSpecError(f"{path} cannot be read: {error}") from error
    try:
        sweep = Sweep.model_validate(given)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg']}" for one in error.errors()]
        raise InvalidSpecError(
            f"{path}: {'; '.join(lines)}", advice="docs/guide/bench.md shows a sweep's file"
        ) from error
    base = path.resolve().parent
    partitions = sweep.axes.partitions
    moved = partitions and tuple(one.model_copy(update={"uri": absolute(one.uri, base)}) for one in partitions)
    axes = sweep.axes.model_copy(update={"partitions": moved})
    changes = {"job": absolute(sweep.job, base), "output": absolute(sweep.output, base), "axes": axes}
    return sweep.model_copy(update=changes)


def absolute(uri: str, base: Path) -> str:
    """A URI as it is, a path made absolute from `base`."""
    return uri if re.match(r"[a-z0-9]+://", uri) or Path(uri).is_absolute() else str(base / uri)
