"""One item's result, wherever it is: its view first, else the newest run that committed it.

Layer: `cli.output`. Reads only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pagemill_cli.output.standing import ledger_of
from pagemill_cli.output.target import Target, no_run
from pagemill_core.api.v1alpha1.output import OcrOutput
from pagemill_core.errors import IntegrityError, InvalidSpecError, UnsafeId
from pagemill_core.work.commit import read_marker
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.ledger import COLLECTED
from pagemill_core.work.plan import read_plan
from pagemill_core.work.records import PlanPointer
from pagemill_worker.items import ItemResult
from pagemill_worker.views.embedding_item import render_embedding_item
from pagemill_worker.views.registry import VIEW_FORMATS, ViewName, render_views, view_key
from pagemill_worker.views.row import from_payload


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of an item. Exactly one of `data` (its result in the format) and `result` (why there is none).

    `run` is where it was found, "" for a view; `version` is the source's there. Neither: planned, but not done yet.
    """

    run: str
    data: bytes | None = None
    result: ItemResult | None = None
    version: str | None = None

    def hides(self, older: Found) -> bool:
        """Whether this failure counts although `older` succeeded: only when the source changed between them."""
        return bool(self.version and older.version and self.version != older.version)


def find_item(target: Target, item_id: str, view: ViewName) -> Found | None:
    """The item's result or failure; None when no run planned it. Raises: ObjectNotFoundError without any run;
    InvalidSpecError when `item_id` could be no id."""
    try:
        item_id.encode()
    except UnicodeEncodeError as error:
        raise InvalidSpecError("ITEM is no valid text; no such id was ever planned") from error
    plans = list(_plans(target))
    data = _view(target, item_id, view, plans)
    if data is not None:
        return Found("", data)
    failed: Found | None = None
    for pointer in plans:
        found = _in_run(target, pointer, item_id, view)
        if found is None or (found.result is not None and found.result.status == "skipped"):
            continue
        if found.data is not None:
            return failed if failed is not None and failed.hides(found) else found
        failed = failed or found
    return failed


def _plans(target: Target) -> Iterator[PlanPointer]:
    """The plans of the output's runs, newest first."""
    history = list(ledger_of(target).history())
    if not history:
        raise no_run(target)
    for held in history:
        pointer = read_plan(target.writer, RunLayout(held.run))
        if pointer is not None and held.entry.reason != COLLECTED:
            yield pointer


def _view(target: Target, item_id: str, view: ViewName, plans: list[PlanPointer]) -> bytes | None:
    outputs = (target.environment_of_run(pointer).job.spec.output for pointer in plans)
    for prefix in dict.fromkeys(output.effective_prefix for output in outputs if isinstance(output, OcrOutput)):
        try:
            blob = target.writer.get(view_key(item_id, view, prefix))
        except UnsafeId:
            return None  # such an id never has a view; its failure is in the committed data
        if blob is not None:
            return blob.data
    return None


def _in_run(target: Target, pointer: PlanPointer, item_id: str, view: ViewName) -> Found | None:
    shard = _shard_of(target, pointer, item_id)
    if shard is None:
        return None
    marker = read_marker(target.writer, RunLayout(pointer.run), shard)
    if marker is None:
        return Found(pointer.run)
    for result in target.kind(pointer).results(marker):
        if result.item.id != item_id:
            continue
        version = result.version_read or result.item.version
        if result.payload is None or result.status != "succeeded":
            return Found(pointer.run, result=result, version=version)
        if pointer.kind == "EmbeddingJob":
            return Found(pointer.run, render_embedding_item(result, pointer.run), version=version)
        if VIEW_FORMATS[view].needs_pixels:
            raise InvalidSpecError(
                f"{item_id} has no {view} view, and one cannot be made from its text alone",
                advice=f"add {view} to output.formats, or choose another --format",
            )
        (rendered,) = render_views(from_payload(result.payload), [view], "")
        return Found(pointer.run, rendered.data, version=version)
    raise IntegrityError(f"shard {shard} of run {pointer.run} was planned with {item_id}, its data lacks it")


def _shard_of(target: Target, pointer: PlanPointer, item_id: str) -> int | None:
    """The shard that holds the item, from the ids' and shards' columns alone."""
    for part in pointer.parts:
        blob = target.writer.get(part.key)
        if blob is None:
            raise IntegrityError(f"{part.key} is named by the plan of run {pointer.run}, but is gone")
        try:
            table = pq.read_table(pa.BufferReader(blob.data), columns=["shard", "id"])
        except (pa.ArrowException, OSError) as error:
            raise IntegrityError(f"{part.key} is not the plan's table: {str(error)[:200]}") from error
        row = pc.index(table["id"], item_id).as_py()
        if row >= 0:
            return int(table["shard"][row].as_py())
    return None
