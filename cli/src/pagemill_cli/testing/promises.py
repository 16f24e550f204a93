"""What must be true of an output once its newest run is finished, whatever happened on the way there.

Layer: `cli.testing`. Reads the store as a stranger would, from the documented layout, and never through a cache. Tests
compare what `broken_promises` returns with nothing at all, so a failure lists everything that is wrong at once.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from pagemill_core.storage.store import ObjectStore
from pagemill_core.work import layout as keys
from pagemill_core.work.commit import crc32
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.records import (
    Counts,
    IndexPointer,
    Marker,
    PlanPointer,
    PublishedRecord,
    RunEntry,
    RunReport,
    Success,
)

VIEW_SUFFIX = "_ocr.json"
VOLATILE = ("started_at", "finished_at", "seconds")


@dataclass(frozen=True)
class Picture:
    """What users see of a run, less what may differ between two undisturbed runs: `rows` of the dataset, `views` by
    key, the `summary` without its times."""

    rows: tuple[dict[str, Any], ...]
    views: dict[str, bytes]
    summary: dict[str, Any]


def newest_entry(store: ObjectStore) -> RunEntry:
    """The ledger's newest entry."""
    key = max(info.key for info in store.list(keys.RUNS_PREFIX))
    return RunEntry.from_bytes(store.get(key).data, key)


def newest_run(store: ObjectStore) -> RunLayout:
    """The layout of the newest run."""
    entry = newest_entry(store)
    return RunLayout(keys.run_id(entry.seq, entry.work_key))


def marker_tokens(store: ObjectStore) -> dict[str, str]:
    """Every marker of every run with its token, to see later that none was overwritten or lost."""
    found = (info for info in store.list(f"{keys.ROOT}/0") if "/commit/" in info.key)
    return {info.key: info.token for info in found}


def take_picture(store: ObjectStore) -> Picture:
    """What users see of the newest run."""
    layout = newest_run(store)
    summary = json.loads(store.get(f"summary/run={layout.seq:08d}.json").data)
    for name in VOLATILE:
        summary["pagemill"].pop(name)
    views = {info.key: store.get(info.key).data for info in store.list("ocr_results/")}
    return Picture(tuple(_dataset(store, layout)), views, summary)


def broken_promises(store: ObjectStore, planned: Sequence[str]) -> list[str]:
    """Everything that is wrong with a finished output whose plan has these ids in this order."""
    entry = newest_entry(store)
    if entry.state != "Finished":
        return [f"run {entry.seq} is {entry.state} ({entry.reason})"]
    layout = newest_run(store)
    pointer = PlanPointer.from_bytes(store.get(layout.plan_pointer).data, layout.plan_pointer)
    markers = _markers(store, layout)
    return [
        *_about_markers(store, layout, pointer, markers),
        *_about_dataset(store, layout, planned, markers),
        *_about_views(store, layout, markers),
        *_about_index(store, layout, planned),
        *_about_reports(store, layout),
    ]


def _markers(store: ObjectStore, layout: RunLayout) -> list[Marker]:
    found = sorted(info.key for info in store.list(layout.markers_prefix))
    return [Marker.from_bytes(store.get(key).data, key) for key in found]


def _about_markers(store: ObjectStore, layout: RunLayout, pointer: PlanPointer, markers: list[Marker]) -> Iterator[str]:
    if [marker.shard for marker in markers] != list(range(pointer.shards)):
        yield f"markers {[marker.shard for marker in markers]} of {pointer.shards} shards"
    yield from (f"shard {marker.shard}: {marker.items}" for marker in markers if not marker.items.add_up())
    total = sum((marker.items for marker in markers), Counts())
    if total.planned != pointer.items:
        yield f"markers count {total.planned} items, the plan {pointer.items}"
    success = Success.from_bytes(store.get(layout.success).data, layout.success)
    if success.totals.items != total or success.totals.shards_done != pointer.shards:
        yield f"_SUCCESS says {success.totals.items}, markers say {total}"
    for marker in markers:
        for output in marker.outputs:
            data = store.get(output.key).data
            if len(data) != output.size or crc32(data) != output.crc32:
                yield f"{output.key} does not match its marker"


def _dataset(store: ObjectStore, layout: RunLayout) -> Iterator[dict[str, Any]]:
    for info in sorted(store.list(f"dataset/run={layout.seq:08d}/"), key=lambda info: info.key):
        yield from pq.read_table(io.BytesIO(store.get(info.key).data)).to_pylist()


def _about_dataset(
    store: ObjectStore, layout: RunLayout, planned: Sequence[str], markers: list[Marker]
) -> Iterator[str]:
    rows = list(_dataset(store, layout))
    if [row["id"] for row in rows] != list(planned):
        yield f"the dataset has {[row['id'] for row in rows]}, planned were {list(planned)}"
    if [row["row"] for row in rows] != list(range(len(rows))):
        yield f"the dataset's rows are {[row['row'] for row in rows]}"
    total = sum((marker.items for marker in markers), Counts())
    states = [row["status"] for row in rows]
    found = Counts(planned=len(rows), **{state: states.count(state) for state in ("succeeded", "failed", "skipped")})
    if found != total:
        yield f"the dataset counts {found}, the markers {total}"


def _about_views(store: ObjectStore, layout: RunLayout, markers: list[Marker]) -> Iterator[str]:
    succeeded = {row["id"] for row in _dataset(store, layout) if row["status"] == "succeeded"}
    missing = [item for item in succeeded if store.head(f"ocr_results/{item}{VIEW_SUFFIX}") is None]
    if missing:
        yield f"views missing of {missing}"
    for marker in markers:
        key = layout.published(marker.shard)
        if store.head(key) is None:
            yield f"{key} is missing"
            continue
        for view in PublishedRecord.from_bytes(store.get(key).data, key).views:
            data = store.get(view.key).data
            if len(data) != view.size or crc32(data) != view.crc32:
                yield f"{view.key} does not match {key}"


def _about_index(store: ObjectStore, layout: RunLayout, planned: Sequence[str]) -> Iterator[str]:
    pointer = IndexPointer.from_bytes(store.get(keys.INDEX_POINTER).data, keys.INDEX_POINTER)
    if pointer.run != layout.run:
        yield f"the index is of {pointer.run}"
    rows = [row for part in pointer.parts for row in pq.read_table(io.BytesIO(store.get(part.key).data)).to_pylist()]
    if [row["identity"] for row in rows] != sorted({row["identity"] for row in rows}):
        yield "the index is not sorted, or names an identity twice"
    lost = set(planned) - {row["id"] for row in rows}
    if lost:
        yield f"the index lacks {sorted(lost)}"


def _about_reports(store: ObjectStore, layout: RunLayout) -> Iterator[str]:
    found = [info.key for info in store.list(f"{layout.prefix}reports/")]
    outcomes = {RunReport.from_bytes(store.get(key).data, key).outcome for key in found}
    if not outcomes & {"Complete", "TooManyFailures"}:
        yield f"no report says that the run is complete: {sorted(outcomes)}"
    if store.head("report.html") is None:
        yield "report.html is missing"
