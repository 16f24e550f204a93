"""Ending a run: complete its views, seal what is given up on, write what needs every shard, and say so once.

Layer: `core.work`. What a job's kind does with its data comes in as `Kind`; the order of steps and the reasons for it
are here. Every step may be repeated by another finalizer at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from pagemill_core.errors import IntegrityError
from pagemill_core.work import layout as keys
from pagemill_core.work.commit import commit
from pagemill_core.work.conditional import Writer, create_once
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.plan import read_plan
from pagemill_core.work.publish import View, publish_shard
from pagemill_core.work.records import Marker, OutputRef, PlanPointer, RunEntry, RunReport, Success, Totals
from pagemill_core.work.rollup import segment_markers
from pagemill_core.work.tracker import Tracker


class Kind(Protocol):
    """What finalizing needs to know of a job's kind. Every method is a pure function of committed data."""

    def views(self, marker: Marker) -> Iterable[View]:
        """The user-facing files of one committed shard."""

    def seal(self, shard: int, attempt: str) -> Marker:
        """Write the outputs of a shard that no attempt finished: verified partial rows kept, the rest failed as
        ShardAbandoned. Returns: the marker to commit."""

    def write_dataset(self, segment: int, markers: Sequence[Marker]) -> OutputRef:
        """Write the dataset's part of one full segment: every item, ordered by row."""

    def write_merged(self, pointer: PlanPointer, totals: Totals) -> None:
        """Write what needs every shard: index, merged files, reports for people."""


def unpublished(writer: Writer, layout: RunLayout, shard_count: int) -> Iterator[Marker]:
    """Markers whose views are not all written: commits minus published."""
    for segment in range(-(-shard_count // keys.SEGMENT_SHARDS)):
        published = {keys.shard_of(info.key) for info in writer.listing(layout.published_of_segment(segment))}
        first = segment * keys.SEGMENT_SHARDS
        if len(published) == min(keys.SEGMENT_SHARDS, shard_count - first):
            continue
        yield from (marker for marker in segment_markers(writer, layout, segment) if marker.shard not in published)


def publish_missing(writer: Writer, layout: RunLayout, shard_count: int, kind: Kind) -> int:
    """Write the views of every committed shard that lacks them. Returns: how many shards that were."""
    count = 0
    for marker in unpublished(writer, layout, shard_count):
        publish_shard(writer, layout, marker.shard, kind.views(marker))
        count += 1
    return count


def seal_missing(writer: Writer, layout: RunLayout, tracker: Tracker, kind: Kind, attempt: str) -> int:
    """Commit every shard that has no marker by the same create-if-absent as everyone, so that a zombie loses.

    `attempt` must be new at each call: a shard's earlier sealing may still be on its way, with other bytes.
    Returns: how many shards were sealed by us.
    Raises: IntegrityError unless the run's entry is Sealing; once it is, it stays so until the run ends.
    """
    key = keys.run_entry(layout.seq)
    blob = writer.get(key)
    state = "missing" if blob is None else RunEntry.from_bytes(blob.data, key).state
    if state != "Sealing":
        raise IntegrityError(f"{layout.run} is {state}; only a run whose entry is Sealing may be sealed")
    sealed = 0
    for shard in list(tracker.missing()):
        sealed += commit(writer, layout, kind.seal(shard, attempt)).won
    return sealed


def publish_subtracted(writer: Writer, pointer: PlanPointer, kind: Kind) -> int:
    """Write the views that given-up runs left unwritten and this run's plan relies on. Returns: of how many shards."""
    count = 0
    for run in pointer.subtracted:
        earlier = read_plan(writer, RunLayout(run))
        if earlier is not None:
            count += publish_missing(writer, RunLayout(run), earlier.shards, kind)
    return count


def write_dataset(writer: Writer, layout: RunLayout, shard_count: int, kind: Kind) -> list[OutputRef]:
    """Write the dataset of a run whose shards all have markers, a segment at a time in constant memory.

    Raises: IntegrityError when a marker is missing after all.
    """
    parts = []
    for segment in range(-(-shard_count // keys.SEGMENT_SHARDS)):
        markers = list(segment_markers(writer, layout, segment))
        want = min(keys.SEGMENT_SHARDS, shard_count - segment * keys.SEGMENT_SHARDS)
        if len(markers) != want:
            raise IntegrityError(f"{layout.run}: segment {segment} has {len(markers)} of {want} markers")
        parts.append(kind.write_dataset(segment, markers))
    return parts


def succeed(writer: Writer, layout: RunLayout, pointer: PlanPointer, totals: Totals, kind: Kind) -> Success:
    """Write everything that needs every shard, then `_SUCCESS.json`, created once; a late finalizer reads it back.

    Raises: IntegrityError when `totals` do not count every shard.
    """
    if totals.shards_done != pointer.shards:
        raise IntegrityError(
            f"{layout.run} has {totals.shards_done} of {pointer.shards} shards: it did not succeed yet"
        )
    publish_missing(writer, layout, pointer.shards, kind)
    publish_subtracted(writer, pointer, kind)
    dataset = write_dataset(writer, layout, pointer.shards, kind)
    kind.write_merged(pointer, totals)
    success = Success(
        run=layout.run, kind=pointer.kind, totals=totals, fingerprint=pointer.fingerprint, dataset=dataset
    )
    created = create_once(writer, layout.success, success.to_bytes(), lambda _: True)
    return Success.from_bytes(created.data, layout.success)


def read_success(writer: Writer, layout: RunLayout) -> Success | None:
    """The run's success, None before it is complete."""
    blob = writer.get(layout.success)
    return None if blob is None else Success.from_bytes(blob.data, layout.success)


def write_report(writer: Writer, layout: RunLayout, epoch: int, report: RunReport) -> None:
    """Write how this ownership of the run ended."""
    writer.put(layout.report(epoch), report.to_bytes())
