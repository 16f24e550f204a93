"""A shard at work, and what is done for it in the store: begin, save, note, commit, end.

Layer: `worker.work`, below `session`. Everything here waits for the store and runs in the session's store threads; one
shard is in one thread's hands at a time, but for its results, which only the session's main thread adds to.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from pagemill_core.clock import iso
from pagemill_core.errors import RetriableError
from pagemill_core.ids import ulid
from pagemill_core.work import attempts
from pagemill_core.work.attempts import SegmentScan, ShardHistory
from pagemill_core.work.commit import commit, put_output
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.publish import View, publish_shard
from pagemill_core.work.records import AttemptRecord, Ending, Marker
from pagemill_worker.items import ItemResult, PlannedItem
from pagemill_worker.work import shard_data
from pagemill_worker.work.partials import verified_partials

LAST_WORDS_S = 30.0  # patience for what is only nice to have once something else has failed
log = logging.getLogger("pagemill.work")


@dataclass(slots=True)
class OpenShard:
    """One attempt at a shard.

    `waiting` are rows nobody was given yet; `suspects` those of them that were in flight when earlier attempts died.
    `noted` are the rows that the attempt's record names as in flight. `fresh` counts results not yet saved. `left`
    are rows that need more memory than this pod has; such a shard is not committed here.
    """

    number: int
    record: AttemptRecord
    planned: int
    history: ShardHistory
    waiting: deque[PlannedItem] = field(default_factory=deque)
    suspects: deque[PlannedItem] = field(default_factory=deque)
    results: dict[int, ItemResult] = field(default_factory=dict)
    noted: frozenset[int] = frozenset()
    left: set[int] = field(default_factory=set)
    fresh: int = 0
    saved_at: float = 0.0

    @property
    def is_complete(self) -> bool:
        return not self.waiting and not self.suspects and len(self.results) + len(self.left) == self.planned

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.suspects)


@dataclass(frozen=True, slots=True)
class ShardFacts:
    """What records say of who made them: `worker` is the pod, `plan` the attempt that planned."""

    worker: str
    plan: str
    fingerprint: str
    memory_rung: int = 0


class ShardStore:
    """Reads and writes the shards of one run. `items` and `views` are the session's hooks of these names."""

    def __init__(
        self,
        writer: Writer,
        layout: RunLayout,
        facts: ShardFacts,
        items: Callable[[int], list[PlannedItem]],
        views: Callable[[Marker, list[ItemResult]], Iterable[View]],
    ) -> None:
        self._writer = writer
        self._layout = layout
        self._facts = facts
        self._items = items
        self._views = views

    def scan(self, segment: int) -> SegmentScan:
        return attempts.scan_segment(self._writer, self._layout, segment)

    def begin(self, number: int, scan: SegmentScan) -> OpenShard:
        """Record the attempt, read the plan's rows, take over verified partial rows."""
        attempt = ulid(int(self._writer.clock.now().timestamp() * 1000))
        worker, rung, started = self._facts.worker, self._facts.memory_rung, iso(self._writer.clock.now())
        record = AttemptRecord(shard=number, attempt=attempt, worker=worker, started=started, memory_rung=rung)
        attempts.put_beginning(self._writer, self._layout, record)
        history = attempts.history(self._writer, scan.attempts.get(number, ()), memory_rung=rung)
        items = self._items(number)
        prior = verified_partials(self._writer, scan.partials.get(number, ()), items, self._facts.fingerprint)
        shard = OpenShard(number, record, len(items), history, results=prior)
        for item in items:
            if item.failure is not None:
                shard.results[item.row] = ItemResult(item, "failed", failure=item.failure)
            elif item.row not in prior:
                (shard.suspects if item.row in history.in_flight else shard.waiting).append(item)
        shard.saved_at = self._writer.clock.monotonic_s()
        return shard

    def commit(self, shard: OpenShard) -> tuple[Marker, bool]:
        """Write outputs and marker, publish. Returns: the marker we made, and whether it is the one that counts."""
        results = [shard.results[row] for row in sorted(shard.results)]
        marker = self._marker(shard, results)
        committed = commit(self._writer, self._layout, marker)
        if committed.won:
            publish_shard(self._writer, self._layout, shard.number, self._views(marker, results))
        else:
            self.end(shard, "Lost")
        return marker, committed.won

    def save(self, shard: OpenShard, results: Sequence[ItemResult]) -> None:
        """Write the succeeded of `results` as the attempt's partial rows, replacing those written before."""
        succeeded = [result for result in results if result.status == "succeeded"]
        data = shard_data.encode(succeeded, self._facts.fingerprint)
        self._writer.put(self._layout.partial(shard.number, shard.record.attempt), data)

    def note(self, shard: OpenShard, rows: Sequence[int], results: Sequence[ItemResult] = ()) -> frozenset[int]:
        """Record which rows are about to be in flight, after saving `results`. Returns: the rows."""
        if results:
            self.save(shard, results)
        shard.record = attempts.note_in_flight(self._writer, self._layout, shard.record, rows)
        return frozenset(rows)

    def end(self, shard: OpenShard, ending: Ending, reason: str = "") -> None:
        """Record how the attempt ended without a commit, so that nobody is blamed for it."""
        attempts.end(self._writer, self._layout, shard.record, ending, reason)

    def fail(self, shard: OpenShard, reason: str) -> None:
        """Save what there is and record the failure, if the store lets us; nothing depends on it."""
        brief = ShardStore(
            replace(self._writer, deadline_s=min(LAST_WORDS_S, self._writer.deadline_s)),
            self._layout,
            self._facts,
            self._items,
            self._views,
        )
        try:
            brief.save(shard, list(shard.results.values()))
            brief.end(shard, "Failed", reason)
        except RetriableError as error:
            fields = {"run": self._layout.run, "shardIndex": shard.number, "reason": error.reason}
            log.warning("Left a failed attempt without its ending", extra=fields)

    def _marker(self, shard: OpenShard, results: list[ItemResult]) -> Marker:
        data = shard_data.encode(results, self._facts.fingerprint)
        where = (shard.number, shard.record.attempt, shard_data.DATA_NAME)
        output = put_output(self._writer, self._layout, where, data, len(results))
        return Marker(
            shard=shard.number,
            attempt=shard.record.attempt,
            plan=self._facts.plan,
            fingerprint=self._facts.fingerprint,
            items=shard_data.count(results),
            failures=shard_data.failure_samples(results),
            failure_classes=shard_data.failure_classes(results),
            outputs=[output],
            started=shard.record.started,
            finished=iso(self._writer.clock.now()),
            worker=self._facts.worker,
            seconds=round(sum(sum(result.seconds.values()) for result in results), 3),
            stage_seconds=shard_data.stage_seconds(results),
        )
