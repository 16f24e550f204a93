"""Finished runs of an EmbeddingJob, made without a model: what tests of merged tables, readers and sweeps need.

Layer: `worker.testing`. Every object is written by the code that writes it in production; only the vectors are made up.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pagemill_core.api.v1alpha1 import EmbeddingJob
from pagemill_core.clock import Clock, iso
from pagemill_core.errors import ImageMissing
from pagemill_core.ids import digest, ulid
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.storage.store import ObjectStore
from pagemill_core.work.attempts import begin
from pagemill_core.work.commit import commit, put_output
from pagemill_core.work.conditional import Writer
from pagemill_core.work.finalize import succeed
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.ledger import Held, Ledger, Owner, WorkRequest
from pagemill_core.work.plan import create_plan
from pagemill_core.work.publish import publish_shard
from pagemill_core.work.records import IndexPointer, Marker, PlanPointer, Success
from pagemill_core.work.tracker import Tracker
from pagemill_worker.embed.rows import pack
from pagemill_worker.environment import JobEnvironment
from pagemill_worker.finalize.embedding import EmbeddingKind
from pagemill_worker.finalize.embedding_extras import EmbeddingExtras
from pagemill_worker.finalize.embedding_table import SINGLE_BYTES
from pagemill_worker.items import ItemFailure, ItemResult, PlannedItem
from pagemill_worker.plan.expand import Pages
from pagemill_worker.plan.planner import PlanTools, plan_source
from pagemill_worker.plan.request import CutOptions, ItemsRequest, PlanRequest
from pagemill_worker.plan.step import PlanItems
from pagemill_worker.work import shard_data

FINGERPRINT = digest("made-up vectors")
Outcome = Callable[[PlannedItem], ItemResult]


def make_job(**spec: Any) -> EmbeddingJob:
    """An EmbeddingJob over images, `spec` changed as given."""
    whole = {
        "source": {"images": {"uri": "pictures"}},
        "visual": {"model": {"name": "made-up"}},
        "output": {"uri": "out"},
        **spec,
    }
    document = {"apiVersion": "pagemill.dev/v1alpha1", "kind": "EmbeddingJob", "metadata": {"name": "vectors"}}
    return EmbeddingJob.model_validate_json(json.dumps({**document, "spec": whole}))


def unit_row(seed: int, dim: int = 8) -> np.ndarray[Any, np.dtype[np.float32]]:
    """One row of length 1, shape (1, dim), the same for the same seed."""
    row = np.random.default_rng(seed).standard_normal((1, dim), dtype=np.float32)
    return np.asarray(row / np.linalg.norm(row), np.float32)


def encoded(item: PlannedItem, dim: int = 8, version: str | None = None) -> ItemResult:
    """A success whose vector follows from the item's row."""
    facts, data = pack({"visual": unit_row(item.row, dim)})
    payload = {"rows": facts, "width": 640, "height": 480}
    return ItemResult(item, "succeeded", payload, version_read=version, data=data)


def lost(item: PlannedItem) -> ItemResult:
    """A failure."""
    return ItemResult(item, "failed", failure=ItemFailure.of(ImageMissing(f"Image file not found: {item.uri}")))


@dataclass
class MadeEmbeddings:
    """An output to make runs on. Shards have `shard_items` items."""

    store: ObjectStore
    clock: Clock
    job: EmbeddingJob = field(default_factory=make_job)
    shard_items: int = 2
    fingerprint: str = FINGERPRINT
    single_bytes: int = SINGLE_BYTES
    fetch: Callable[[PlannedItem], bytes] = lambda _: b""
    writer: Writer = field(init=False)

    def __post_init__(self) -> None:
        self.writer = Writer(self.store, self.clock, deadline_s=5.0)

    def attempt(self) -> str:
        """A fresh attempt id."""
        return ulid(int(self.clock.now().timestamp() * 1000))

    def finish(
        self, items: Sequence[PlannedItem], outcome: Outcome = encoded, columns: Mapping[str, str] | None = None
    ) -> Success:
        """A finished run over `items`."""
        held = self.claim()
        kind = self.plan(held, items, columns or {})
        self.commit_all(kind, outcome)
        return self.end(held, kind)

    def claim(self) -> Held:
        """Claim the next run."""
        ledger = Ledger(self.writer, Owner(self.attempt(), "somebody"))
        return ledger.adopt(WorkRequest(work_key=digest("work"), kind="EmbeddingJob", incremental=True)).held

    def plan(self, held: Held, items: Iterable[PlannedItem], columns: Mapping[str, str]) -> EmbeddingKind:
        """Plan the items. `columns` maps those of the source to their types."""
        layout, attempt = RunLayout(held.run), self.attempt()
        with tempfile.TemporaryDirectory() as scratch:
            tools = PlanTools(
                open_store=lambda _: self.store,
                count_pages=lambda _: Pages(1),
                store=self.store,
                prefix=layout.plan_attempt(attempt),
                scratch=Path(scratch),
            )
            cut = CutOptions(items_per_shard=self.shard_items)
            result = plan_source(PlanRequest(source=ItemsRequest(items=items), cut=cut), tools)
        spec = self.job.spec.model_dump(by_alias=True, exclude_none=True, mode="json")
        fields = ("source", "visual", "text", "output", "maxItems")
        work: dict[str, Any] = {name: spec[name] for name in fields if name in spec}
        pointer = PlanPointer(
            run=layout.run,
            attempt=attempt,
            kind="EmbeddingJob",
            work_key=held.entry.work_key,
            work={"kind": "EmbeddingJob", **work},
            fingerprint=self.fingerprint,
            fingerprint_fields={"made": "up"},
            items=result.items,
            shards=result.shards,
            parts=list(result.parts),
            columns=list(columns),
            column_types=dict(columns),
            planned_at=iso(self.clock.now()),
        )
        return self.kind(create_plan(self.writer, layout, pointer))

    def kind(self, pointer: PlanPointer) -> EmbeddingKind:
        """The finalizing half of a run."""
        environment = JobEnvironment(self.job, Path.cwd(), S3Settings(), clock=self.clock)

        def write_extras(plan: PlanPointer, totals: Any) -> None:
            EmbeddingExtras(environment, kind, 1, self.fetch, single_bytes=self.single_bytes).write(plan, totals)

        kind = EmbeddingKind(
            writer=self.writer,
            layout=RunLayout(pointer.run),
            pointer=pointer,
            items=PlanItems(self.writer, pointer),
            write_extras=write_extras,
            job=self.job,
        )
        return kind

    def commit_all(self, kind: EmbeddingKind, outcome: Outcome) -> None:
        """Commit and publish every shard."""
        for shard in range(kind.pointer.shards):
            self.commit(kind, shard, outcome)

    def commit(self, kind: EmbeddingKind, shard: int, outcome: Outcome) -> Marker:
        """Commit one shard, and publish it."""
        attempt = self.attempt()
        begin(self.writer, kind.layout, shard, attempt, "made up")
        results = [outcome(item) for item in kind.items(shard)]
        data = shard_data.encode(results, self.fingerprint)
        marker = Marker(
            shard=shard,
            attempt=attempt,
            plan=kind.pointer.attempt,
            fingerprint=self.fingerprint,
            items=shard_data.count(results),
            failures=shard_data.failure_samples(results),
            failure_classes=shard_data.failure_classes(results),
            outputs=[put_output(self.writer, kind.layout, (shard, attempt, shard_data.DATA_NAME), data, len(results))],
            started=iso(self.clock.now()),
            finished=iso(self.clock.now()),
        )
        commit(self.writer, kind.layout, marker)
        publish_shard(self.writer, kind.layout, shard, kind.views_of(results))
        return marker

    def end(self, held: Held, kind: EmbeddingKind) -> Success:
        """Finalize the run and finish its entry."""
        totals = Tracker(self.writer, kind.layout, kind.pointer.shards).poll()
        success = succeed(self.writer, kind.layout, kind.pointer, totals, kind)
        ledger = Ledger(self.writer, Owner(held.entry.owner))
        ledger.update(held, state="Finished", reason="Complete", fingerprint=self.fingerprint, owner="")
        return success

    def index(self) -> IndexPointer:
        """The item index's pointer."""
        key = ".pagemill/index/current.json"
        return IndexPointer.from_bytes(self.store.get(key).data, key)
