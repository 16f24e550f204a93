"""Runs on an output as they stand after real ones, made without an engine: what tests of looking and sweeping need.

Layer: `cli.testing`. Every object is written by the code that writes it in production; only the pages' text is made up.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pagemill_cli.output.target import Target
from pagemill_cli.settings import CliSettings
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
from pagemill_core.work.records import Marker, PlanPointer
from pagemill_core.work.tracker import Tracker
from pagemill_worker.finalize.committed import CommittedRun
from pagemill_worker.finalize.item_index import Fold, fold_index
from pagemill_worker.items import ItemFailure, ItemResult, PlannedItem
from pagemill_worker.ocr.engine import Region
from pagemill_worker.plan.expand import Pages
from pagemill_worker.plan.planner import PlanTools, plan_source
from pagemill_worker.plan.request import CutOptions, ItemsRequest, PlanRequest
from pagemill_worker.views.row import OcrRow, to_payload
from pagemill_worker.work import shard_data

FINGERPRINT = digest("made up")
SUCCEEDED, FAILED, SKIPPED = "succeeded", "failed", "skipped"


@dataclass
class MadeOutput:
    """An output to make runs on, with the target that commands would open."""

    store: ObjectStore
    clock: Clock
    writer: Writer = field(init=False)
    target: Target = field(init=False)

    def __post_init__(self) -> None:
        self.writer = Writer(self.store, self.clock, deadline_s=5.0)
        self.target = Target(self.store.uri, self.writer, S3Settings(), CliSettings())

    def attempt(self) -> str:
        """A fresh attempt id."""
        return ulid(int(self.clock.now().timestamp() * 1000))

    def claim(self, work: str = "work") -> Held:
        """Claim the next run for some work, in a new owner's name."""
        ledger = Ledger(self.writer, Owner(self.attempt(), "somebody"))
        return ledger.adopt(WorkRequest(work_key=digest(work), kind="OcrJob", incremental=True)).held

    def finish(self, outcomes: Mapping[str, str], *, work: str = "work", formats: tuple[str, ...] = ("json",)) -> Held:
        """A finished run whose items ended as `outcomes` says: succeeded, failed or skipped."""
        held = self.claim(work)
        kind = self.plan(held, list(outcomes), formats)
        for shard in range(kind.pointer.shards):
            self.commit(kind, shard, outcomes)
        tracker = Tracker(self.writer, kind.layout, kind.pointer.shards)
        succeed(self.writer, kind.layout, kind.pointer, tracker.poll(), kind)
        fold_index(Fold(self.writer, kind.layout, kind.pointer, kind.outcomes), self.attempt())
        return self.end(held, "Finished", "Complete")

    def end(self, held: Held, state: str, reason: str) -> Held:
        """End a run that `claim` gave."""
        ledger = Ledger(self.writer, Owner(held.entry.owner))
        return ledger.update(held, state=state, reason=reason, fingerprint=FINGERPRINT, owner="")

    def plan(self, held: Held, ids: list[str], formats: tuple[str, ...] = ("json",)) -> CommittedRun:
        """Plan the items, two a shard."""
        layout, attempt = RunLayout(held.run), self.attempt()
        items = [PlannedItem(row, item_id, f"/pages/{item_id}.png") for row, item_id in enumerate(ids)]
        with tempfile.TemporaryDirectory() as scratch:
            tools = PlanTools(
                open_store=lambda _: self.store,
                count_pages=lambda _: Pages(1),
                store=self.store,
                prefix=layout.plan_attempt(attempt),
                scratch=Path(scratch),
            )
            result = plan_source(
                PlanRequest(source=ItemsRequest(items=items), cut=CutOptions(items_per_shard=2)), tools
            )
        pointer = PlanPointer(
            run=layout.run,
            attempt=attempt,
            kind="OcrJob",
            work_key=held.entry.work_key,
            work={
                "kind": "OcrJob",
                "source": {"manifest": {"uri": "m.csv"}},
                "engine": {"name": "tesseract"},
                "output": {"uri": "out", "formats": list(formats)},
            },
            fingerprint=FINGERPRINT,
            fingerprint_fields={"made": "up"},
            items=result.items,
            shards=result.shards,
            parts=list(result.parts),
        )
        return self.target.kind(create_plan(self.writer, layout, pointer))

    def commit(self, kind: CommittedRun, shard: int, outcomes: Mapping[str, str], *, publish: bool = True) -> Marker:
        """Commit one shard, and publish it."""
        attempt = self.attempt()
        begin(self.writer, kind.layout, shard, attempt, "made up")
        results = [_result(item, outcomes[item.id], self.clock.now()) for item in kind.items(shard)]
        data = shard_data.encode(results, FINGERPRINT)
        place = (shard, attempt, shard_data.DATA_NAME)
        marker = Marker(
            shard=shard,
            attempt=attempt,
            plan=kind.pointer.attempt,
            fingerprint=FINGERPRINT,
            items=shard_data.count(results),
            failures=shard_data.failure_samples(results),
            failure_classes=shard_data.failure_classes(results),
            outputs=[put_output(self.writer, kind.layout, place, data, len(results))],
            started=iso(self.clock.now()),
            finished=iso(self.clock.now()),
        )
        commit(self.writer, kind.layout, marker)
        if publish:
            publish_shard(self.writer, kind.layout, shard, kind.views(marker))
        return marker


def _result(item: PlannedItem, outcome: str, now: dt.datetime) -> ItemResult:
    if outcome == FAILED:
        return ItemResult(item, "failed", failure=ItemFailure.of(ImageMissing(f"Image file not found: {item.uri}")))
    if outcome == SKIPPED:
        return ItemResult(item, "skipped")
    row = OcrRow(
        id=item.id,
        source_uri=item.uri,
        status="succeeded",
        engine_name="tesseract",
        engine_version="0",
        finished_at=now,
        regions=(Region(f"text of {item.id}", 0.9, (1.0, 2.0, 3.0, 4.0)),),
        width_px=10,
        height_px=10,
    )
    return ItemResult(item, "succeeded", payload=to_payload(row))
