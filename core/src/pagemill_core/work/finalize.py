"""Ending a run: complete its views, seal what is given up on, write what needs every shard, and say so once.

Layer: `core.work`. What a job's kind does with its data comes in as `Kind`; the order of steps and the reasons for it
are here. Every step may be repeated by another finalizer at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from pagemill_core.work import layout as keys
from pagemill_core.work.commit import commit
from pagemill_core.work.conditional import Writer, create_once
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.publish import View, publish_shard
from pagemill_core.work.records import Marker, OutputRef, PlanPointer, RunReport, Success, Totals
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

    Only while the run's entry is Sealing. Returns: how many shards were sealed by us.
    """
    sealed = 0
    for shard in list(tracker.missing()):
        sealed += commit(writer, layout, kind.seal(shard, attempt)).won
    return sealed


def write_dataset(writer: Writer, layout: RunLayout, shard_count: int, kind: Kind) -> list[OutputRef]:
    """Write the dataset of a run whose shards all have markers, a segment at a time in constant memory."""
    return [
        kind.write_dataset(segment, list(segment_markers(writer, layout, segment)))
        for segment in range(-(-shard_count // keys.SEGMENT_SHARDS))
    ]


def succeed(writer: Writer, layout: RunLayout, pointer: PlanPointer, totals: Totals, kind: Kind) -> Success:
    """Write everything that needs every shard, then `_SUCCESS.json`, created once; a late finalizer reads it back.

    Call only when the tracker is complete.
    """
    publish_missing(writer, layout, pointer.shards, kind)
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
