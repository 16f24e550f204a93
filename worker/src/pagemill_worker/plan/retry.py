"""What `source.retryOf` stands for: the failed items of an earlier run, read from what it committed.

Layer: `worker.plan`. Reads plans, markers and committed rows; writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import pyarrow.compute as pc

from pagemill_core.errors import InvalidSpecError
from pagemill_core.work import layout as keys
from pagemill_core.work.commit import read_output
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.ledger import COLLECTED
from pagemill_core.work.plan import read_plan
from pagemill_core.work.records import PlanPointer, RunEntry
from pagemill_core.work.rollup import segment_markers
from pagemill_worker.items import ItemResult, PlannedItem
from pagemill_worker.plan.request import ItemsRequest
from pagemill_worker.work import shard_data

# Faults of the source's rows, not of the pages: a retried DuplicateId would even replace the result of the row it
# repeats, because that row is not there to be compared with.
INCURABLE = frozenset({"DuplicateId", "UnsafeId", "RowUnusable"})


def retry_request(writer: Writer, run: str, done_in: Iterable[str] = ()) -> ItemsRequest:
    """The failed items of `run`, those that succeeded in one of `done_in` (given-up retries of it) left out.

    Their versions are forgotten: a page that was mended since is what a retry is for. A part of a file keeps its own,
    since in another file other bytes stand at its place.
    Raises: InvalidSpecError when the output has no such run, or not its data any more.
    """
    _check_not_collected(writer, run)
    pointer = read_plan(writer, RunLayout(run))
    if pointer is None:
        raise InvalidSpecError(
            f"spec.source.retryOf.run: {writer.store.uri} has no planned run {run}",
            advice="`pagemill runs` lists the runs of an output",
        )
    done = {result.item.id for earlier in done_in for result in committed_rows(writer, earlier, only_failed=False)}
    return ItemsRequest(
        items=_items(writer, pointer, done),
        uri=f"run {run}",
        columns={name: pointer.column_types.get(name, "string") for name in pointer.columns},
        is_paged=_is_paged(writer, pointer),
    )


def _check_not_collected(writer: Writer, run: str) -> None:
    entry = writer.get(keys.run_entry(RunLayout(run).seq))
    if entry is not None and RunEntry.from_bytes(entry.data, run).reason == COLLECTED:
        raise InvalidSpecError(
            f"spec.source.retryOf.run: the data of {run} was removed, newer runs hold all of it",
            advice="`pagemill runs` lists the runs of an output; name a newer one",
        )


def committed_rows(writer: Writer, run: str, *, only_failed: bool) -> Iterator[ItemResult]:
    """The failed rows that a run committed, or the succeeded ones, in plan order, a shard in memory at once."""
    want = "failed" if only_failed else "succeeded"
    for data, fingerprint, key in _committed(writer, run, only_failed=only_failed):
        yield from (row for row in shard_data.decode(data, fingerprint, key) if row.status == want)


def committed_ids(writer: Writer, run: str, *, only_failed: bool) -> Iterator[str]:
    """Their ids alone, without a look at what they hold."""
    want = "failed" if only_failed else "succeeded"
    for data, fingerprint, key in _committed(writer, run, only_failed=only_failed):
        table = shard_data.read_table(data, fingerprint, key, ["id", "status"])
        yield from table.filter(pc.equal(table.column("status"), want)).column("id").to_pylist()


def _committed(writer: Writer, run: str, *, only_failed: bool) -> Iterator[tuple[bytes, str, str]]:
    """The outputs of shards that have such rows, each with its fingerprint and key."""
    pointer = read_plan(writer, RunLayout(run))
    if pointer is None:
        return
    for segment in range(-(-pointer.shards // keys.SEGMENT_SHARDS)):
        for marker in segment_markers(writer, RunLayout(run), segment):
            if not (marker.items.failed if only_failed else marker.items.succeeded):
                continue
            for output in marker.outputs:
                yield read_output(writer, output), pointer.fingerprint, output.key


def _items(writer: Writer, pointer: PlanPointer, done: set[str]) -> Iterator[PlannedItem]:
    for result in committed_rows(writer, pointer.run, only_failed=True):
        if not is_incurable(result) and result.item.id not in done:
            yield _again(result.item)


def is_incurable(result: ItemResult) -> bool:
    """Whether doing a failed item again cannot help, whatever became of its file."""
    kind = result.failure.error_class if result.failure else ""
    # A file of a data set whose rows nobody knows is no picture; a partition of tensors, which has an input, may be
    # mended.
    return kind in INCURABLE or (kind == "PartUnreadable" and not result.item.input)


def _again(item: PlannedItem) -> PlannedItem:
    is_whole_partition = "partition" in item.input and "start" not in item.input
    if "order" in item.input or is_whole_partition or not item.input:
        return replace(item, version=None, size_bytes=None, failure=None)
    return replace(item, failure=None)


def _is_paged(writer: Writer, pointer: PlanPointer) -> bool:
    """Whether PDF files of the run's source stand for their pages; a retry's own source is the run that it retries."""
    source = pointer.work.get("source", {})
    earlier = source.get("retryOf", {}).get("run") if isinstance(source, dict) else None
    if earlier:
        first = read_plan(writer, RunLayout(earlier))
        return first is None or _is_paged(writer, first)
    return not isinstance(source, dict) or not source or "images" in source or "manifest" in source
