"""What the views over a whole run know of it: counts, engine, time, money.

Layer: `worker.views`; pure. Whoever ends a run fills one `RunInfo`; the summary and the report are written from it and
from the run's rows, so they cannot disagree.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from pagemill_worker.views.registry import ViewName


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Planned items by how they ended; `already_done` were not planned because an earlier run had done them."""

    total: int
    succeeded: int
    failed: int
    skipped: int = 0
    already_done: int = 0

    def __post_init__(self) -> None:
        """Raises: ValueError when more items ended than were planned."""
        if min(self.succeeded, self.failed, self.skipped, self.already_done, self.not_done) < 0:
            raise ValueError(f"{self} does not add up")

    @property
    def not_done(self) -> int:
        """Items that a run stopped by its budget, its deadline or a person left for later."""
        return self.total - self.succeeded - self.failed - self.skipped

    @property
    def worked(self) -> int:
        return self.succeeded + self.failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the run cost; `formula` says in words and numbers how that was counted.

    `by_stage` deals what the machines cost to the stages that kept them busy, the rest to `idle`.
    """

    spent: Decimal
    currency: str
    formula: str
    items: int = 0
    by_stage: Mapping[str, Decimal] = field(default_factory=dict)

    @property
    def per_item(self) -> Decimal | None:
        """What one item cost on the average; None when none was done."""
        return self.spent / self.items if self.items else None

    @property
    def told(self) -> str:
        """Where the money went, in one line; "" when that is not known."""
        parts = [f"{stage} {cost:.6f}" for stage, cost in self.by_stage.items()]
        each = f"{self.per_item:.8f} an item" if self.per_item is not None else ""
        return "; ".join(part for part in (", ".join(parts), each) if part)

    def as_json(self) -> dict[str, Any]:
        """For the summary; money as decimal strings, never floats."""
        each = self.per_item
        return {
            "spent": f"{self.spent:f}",
            "currency": self.currency,
            "formula": self.formula,
            "per_item": f"{each:.9f}" if each is not None else None,
            "by_stage": {stage: f"{cost:f}" for stage, cost in self.by_stage.items()},
        }


@dataclass(frozen=True, slots=True)
class Link:
    """A place to go from the report: relative to it, or an http(s) or file address. Others are shown as plain text."""

    label: str
    href: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """A run that ended, however it ended.

    `name` is the job's, `run` the run's id. `source_uri` is the manifest or listing. `output_uri` is where keys start.
    `seconds` is the time somebody worked on it, pauses left out. `failures_by_class` covers every failed item.
    """

    name: str
    run: str
    source_uri: str
    output_uri: str
    prefix: str
    formats: tuple[ViewName, ...]
    engine_name: str
    engine_version: str
    languages: tuple[str, ...]
    backend: str
    workers: int
    counts: Counts
    started_at: dt.datetime
    finished_at: dt.datetime
    seconds: float
    failures_by_class: Mapping[str, int] = field(default_factory=dict)
    cost: Cost | None = None
    links: tuple[Link, ...] = ()

    @property
    def bucket(self) -> str:
        """The output's bucket, or its folder where there is none."""
        return self._split_output()[0]

    def key_in_bucket(self, key: str) -> str:
        """`key`, relative to the output, as seen from `bucket`."""
        base = self._split_output()[1]
        return f"{base}/{key}" if base else key

    @property
    def rate(self) -> float | None:
        """Items worked on per second, None where no time was taken."""
        return self.counts.worked / self.seconds if self.seconds > 0 and self.counts.worked else None

    def _split_output(self) -> tuple[str, str]:
        scheme, separator, rest = self.output_uri.partition("://")
        if not separator or scheme == "file":
            return self.output_uri, ""
        bucket, _, path = rest.partition("/")
        return bucket, path.strip("/")
