"""Planted bugs, continued: deciding, counting, and what users see.

Layer: `core.testing.sim`. See `mutations`, which holds the list.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

from pagemill_core.testing.sim import controller as sim_controller
from pagemill_core.testing.sim import rows as sim_rows
from pagemill_core.testing.sim import worker as sim_worker
from pagemill_core.testing.sim.registry import mutation, mutation_at
from pagemill_core.work import commit, finalize, lifecycle, publish, rollup, waves
from pagemill_core.work import layout as keys
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.lifecycle import Decision, Step
from pagemill_core.work.publish import View
from pagemill_core.work.records import Counts, Marker, OutputRef, PublishedRecord, PublishedView, Success
from pagemill_core.work.tracker import Tracker

_in = mock.patch.object
_decide = lifecycle.decide


# -- deciding --------------------------------------------------------------------------------------------------------


@mutation
def sealed_while_open() -> Iterator[Any]:
    """Shards are sealed without the entry saying so first."""

    def decide(seen: Any, limits: Any) -> Decision:
        decision = _decide(seen, limits)
        return Decision(Step.SEAL) if decision.step is Step.START_SEALING else decision

    def seal(writer: Writer, layout: RunLayout, counted: Tracker, kind: Any, attempt: str) -> int:
        return sum(commit.commit(writer, layout, kind.seal(shard, attempt)).won for shard in counted.missing())

    yield _in(sim_controller, "decide", decide)
    yield _in(finalize, "seal_missing", seal)


@mutation
def sealed_beyond_the_limit() -> Iterator[Any]:
    """What is missing is sealed however many failures that makes."""

    def decide(seen: Any, limits: Any) -> Decision:
        decision = _decide(seen, limits)
        return Decision(Step.START_SEALING) if decision.reason == "ShardsExhausted" else decision

    yield _in(sim_controller, "decide", decide)


@mutation
def waves_without_end_of_the_last() -> Iterator[Any]:
    """A wave leaves out the last shard that is missing."""
    to_ranges = waves.to_ranges

    def mutant(shards: Any) -> Any:
        every = list(shards)
        return to_ranges(every[:-1] or every)

    yield _in(sim_controller, "to_ranges", mutant)


@mutation
def index_owns_too_little() -> Iterator[Any]:
    """Shards that do not divide evenly belong to no index."""

    def mutant(ranges: Any, index: int, completions: int) -> Iterator[int]:
        every = [shard for first, last in ranges for shard in range(first, last + 1)]
        step = len(every) // completions
        yield from every[index * step : (index + 1) * step]

    yield _in(sim_worker, "shards_of_index", mutant)


# -- counting --------------------------------------------------------------------------------------------------------


@mutation
def attempts_counted_as_done() -> Iterator[Any]:
    """The tracker takes a shard that was begun for one that is done."""
    look = Tracker._look

    def mutant(self: Tracker, number: int, segment: Any) -> bool:
        for info in self._writer.listing(self._layout.attempts_of_segment(number)):
            shard = keys.shard_of(info.key)
            if keys.segment_of(shard) == number and shard not in segment.done:
                segment.done.add(shard)
                self._shards_done += 1
        return look(self, number, segment)

    yield _in(Tracker, "_look", mutant)


@mutation
def partials_counted() -> Iterator[Any]:
    """Items of unfinished shards are in the totals."""
    poll = Tracker.poll

    def mutant(self: Tracker, *, thorough: bool = True) -> Any:
        partials = self._writer.listing(self._layout.partials_of_segment(0))
        self._items += Counts(planned=len(partials), succeeded=len(partials))
        return poll(self, thorough=thorough)

    yield _in(Tracker, "poll", mutant)


@mutation
def open_segment_folded() -> Iterator[Any]:
    """A rollup is written although markers of its segment are missing."""
    look = Tracker._look

    def mutant(self: Tracker, number: int, segment: Any) -> bool:
        found = look(self, number, segment)
        if found and number in self._open:
            markers = [Marker.from_bytes(data, "") for data in segment.markers]
            rollup.write_rollup(self._writer, self._layout, number, markers)
        return found

    yield _in(Tracker, "_look", mutant)


@mutation_at("_SUCCESS")
def samples_in_the_order_seen() -> Iterator[Any]:
    """Totals depend on the order in which a tracker met the markers."""

    def mutant(self: Tracker, marker: Marker) -> None:
        self._shards_done += 1
        self._items += marker.items
        self._classes.update(marker.failure_classes)
        self._samples.extend((marker.shard, place, sample) for place, sample in enumerate(marker.failures))

    yield _in(Tracker, "_count", mutant)


@mutation
def miscount_unchecked() -> Iterator[Any]:
    """A worker forgets failed items, and the commit does not compare."""
    count = sim_rows.count

    def mutant(rows: Any) -> Counts:
        return count(rows).model_copy(update={"failed": 0})

    yield _in(sim_rows, "count", mutant)
    yield _in(Counts, "add_up", lambda _self: True)


# -- what users see --------------------------------------------------------------------------------------------------


def _put_view(writer: Writer, view: View, seq: int) -> bool:
    meta = {publish.META_SEQ: str(seq), publish.META_CRC32: commit.crc32(view.data)}
    writer.retrying(lambda: writer.store.put(view.key, view.data, meta=meta))
    return True


@mutation_at("ocr_results/")
def view_put_whatever_is_there() -> Iterator[Any]:
    """A view is put without looking at whose is there."""
    yield _in(publish, "publish_view", _put_view)


@mutation_at("ocr_results/")
def view_put_after_looking() -> Iterator[Any]:
    """A view is put after a look, but without the token of what was seen."""

    def mutant(writer: Writer, view: View, seq: int) -> bool:
        info = writer.retrying(lambda: writer.store.head(view.key))
        if info is not None and int(info.meta[publish.META_SEQ]) > seq:
            return False
        return _put_view(writer, view, seq)

    yield _in(publish, "publish_view", mutant)


@mutation
def published_before_commit() -> Iterator[Any]:
    """Views are written from an attempt that has not committed yet."""
    real = commit.commit

    def mutant(writer: Writer, layout: RunLayout, marker: Marker) -> Any:
        for row in sim_rows.decode_results(commit.read_output(writer, marker.outputs[0])):
            if row.status == "succeeded":
                publish.publish_view(writer, sim_rows.view_of(row), layout.seq)
        return real(writer, layout, marker)

    yield _in(commit, "commit", mutant)


@mutation
def recorded_before_published() -> Iterator[Any]:
    """`published/` is written first, and the views after it."""
    real = publish.publish_shard

    def mutant(writer: Writer, layout: RunLayout, shard: int, views: Any) -> Any:
        every = list(views)
        named = [PublishedView(key=view.key, size=0, crc32="") for view in every]
        record = PublishedRecord(shard=shard, seq=layout.seq, views=named)
        writer.put(layout.published(shard), record.to_bytes())
        return real(writer, layout, shard, every)

    yield _in(publish, "publish_shard", mutant)


@mutation
def outputs_shared_by_attempts() -> Iterator[Any]:
    """Two attempts at a shard write the same output key."""
    put_output = commit.put_output

    def mutant(writer: Writer, layout: RunLayout, where: Any, data: bytes, rows: int) -> OutputRef:
        return put_output(writer, layout, (where[0], "shared", where[2]), data, rows)

    yield _in(sim_rows, "put_output", mutant)


@mutation
def missing_views_left_missing() -> Iterator[Any]:
    """The finalizer does not complete views that workers did not get to."""
    yield _in(finalize, "publish_missing", lambda _writer, _layout, _count, _kind: 0)


@mutation_at("ocr_results/")
def views_of_given_up_runs_left_missing() -> Iterator[Any]:
    """Items are left out for a given-up run's success, whose views nobody ever writes."""
    yield _in(finalize, "publish_subtracted", lambda _writer, _pointer, _kind: 0)


@mutation
def success_with_shards_missing() -> Iterator[Any]:
    """`_SUCCESS.json` is written when the last wave ends, whatever is missing."""

    def decide(seen: Any, limits: Any) -> Decision:
        decision = _decide(seen, limits)
        is_early = decision.step is Step.START_WAVE and seen.wave > 0
        return Decision(Step.FINALIZE) if is_early else decision

    def succeed(writer: Writer, layout: RunLayout, pointer: Any, totals: Any, _kind: Any) -> None:
        success = Success(run=layout.run, kind=pointer.kind, totals=totals, fingerprint=pointer.fingerprint, dataset=[])
        writer.store.put_if_absent(layout.success, success.to_bytes())

    yield _in(sim_controller, "decide", decide)
    yield _in(Tracker, "is_complete", property(lambda _self: True))
    yield _in(finalize, "succeed", succeed)
