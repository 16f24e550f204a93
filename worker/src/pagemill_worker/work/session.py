"""One pod's work: loop over its shards, feed the pool, commit what is complete, leave partial results behind.

Layer: `worker.work`. The main thread feeds the pool and sorts answers; everything that waits for the store (opening,
committing, publishing, partial results) runs in a few threads, so that children never starve.
"""

from __future__ import annotations

import concurrent.futures as cf
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from pagemill_core.clock import iso
from pagemill_core.errors import NonRetriableError, PagemillError
from pagemill_core.ids import ulid
from pagemill_core.work import attempts
from pagemill_core.work import layout as keys
from pagemill_core.work.attempts import SegmentScan, ShardHistory
from pagemill_core.work.commit import commit, put_output
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.publish import View, publish_shard
from pagemill_core.work.records import AttemptRecord, Ending, Marker
from pagemill_worker.items import ItemResult, PlannedItem
from pagemill_worker.metrics import WorkerMetrics
from pagemill_worker.work import shard_data
from pagemill_worker.work.partials import verified_partials
from pagemill_worker.work.pool import Answer, Pool

STORE_THREADS = 4
OPEN_AHEAD = 2
POLL_S = 0.1
log = logging.getLogger("pagemill.work")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What a session needs to know. `worker` names the pod in records, `plan` is the attempt that planned."""

    worker: str
    plan: str
    fingerprint: str
    partial_every_s: float = 30.0
    note_every_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the session is told by its surroundings.

    `items(shard)` are the planned rows, `views(marker, results)` the user-facing files of a committed shard,
    `progress` hears every answer, `should_stop` is asked several times a second.
    """

    items: Callable[[int], list[PlannedItem]]
    views: Callable[[Marker, list[ItemResult]], Iterable[View]]
    progress: Callable[[Answer], None] = lambda _: None
    committed: Callable[[Marker], None] = lambda _: None
    should_stop: Callable[[], bool] = lambda: False
    metrics: WorkerMetrics = field(default_factory=WorkerMetrics)


@dataclass(slots=True)
class _Shard:
    number: int
    record: AttemptRecord
    waiting: deque[PlannedItem]
    planned: int
    history: ShardHistory
    results: dict[int, ItemResult] = field(default_factory=dict)
    fresh: int = 0
    since_partial: float = 0.0


@dataclass(slots=True)
class SessionResult:
    """How a session ended: shards committed, shards that failed with the reason, whether it was stopped."""

    committed: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    stopped: bool = False


class Session:
    """Works through shards with one pool. Use once."""

    def __init__(self, writer: Writer, layout: RunLayout, pool: Pool, settings: SessionSettings, hooks: Hooks) -> None:
        self._writer = writer
        self._layout = layout
        self._pool = pool
        self._settings = settings
        self._hooks = hooks
        self._scans: dict[int, SegmentScan] = {}
        self._open: dict[int, _Shard] = {}
        self._row_shard: dict[int, int] = {}
        self._opening: dict[cf.Future[_Shard | None], int] = {}
        self._storing: dict[cf.Future[bool], int] = {}
        self._saving: set[cf.Future[None]] = set()
        self._result = SessionResult()
        self._noted_at = 0.0

    def run(self, shards: Iterable[int]) -> SessionResult:
        """Do `shards` in order, those already done excepted. One bad shard does not end the rest.

        Raises: NonRetriableError (access denied, engine missing, a plan that does not match): nothing here can go on.
        """
        todo = iter(shards)
        with cf.ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="store") as executor:
            try:
                self._loop(todo, executor)
            finally:
                self._save_partials(executor, force=True)
                cf.wait(self._saving)
        for saved in self._saving:
            saved.result()
        return self._result

    # -- the loop ---------------------------------------------------------------------------------------------------

    def _loop(self, todo: Iterator[int], executor: cf.Executor) -> None:
        while True:
            if not self._result.stopped and self._hooks.should_stop():
                self._stop(executor)
            if not self._result.stopped:
                self._open_more(todo, executor)
            if self._is_over():
                return
            self._feed(executor)
            for answer in self._pool.poll(POLL_S if self._pool_has_work() else POLL_S / 5):
                self._take(answer, executor)
            self._collect()
            self._measure()
            self._note_in_flight(executor)
            self._save_partials(executor)

    def _is_over(self) -> bool:
        if self._result.stopped:
            return self._pool.is_idle and not self._storing and not self._opening
        return not (self._open or self._opening or self._storing)

    def _pool_has_work(self) -> bool:
        return not self._pool.is_idle

    def _open_more(self, todo: Iterator[int], executor: cf.Executor) -> None:
        while (
            len(self._opening) < OPEN_AHEAD and sum(bool(shard.waiting) for shard in self._open.values()) < OPEN_AHEAD
        ):
            number = next(todo, None)
            if number is None:
                return
            if number not in self._scan(number).done:
                self._opening[executor.submit(self._begin, number)] = number

    def _scan(self, shard: int) -> SegmentScan:
        segment = keys.segment_of(shard)
        if segment not in self._scans:
            self._scans = {segment: attempts.scan_segment(self._writer, self._layout, segment)}
        return self._scans[segment]

    def _begin(self, number: int) -> _Shard | None:
        """In a store thread: record the attempt, read the plan's rows, take over verified partial rows."""
        now = self._writer.clock.now()
        scan = self._scans.get(keys.segment_of(number)) or attempts.scan_segment(
            self._writer, self._layout, keys.segment_of(number)
        )
        attempt = ulid(int(now.timestamp() * 1000))
        record = attempts.begin(self._writer, self._layout, number, attempt, self._settings.worker)
        history = attempts.history(self._writer, scan.attempts.get(number, ()))
        items = self._hooks.items(number)
        prior = verified_partials(self._writer, scan.partials.get(number, ()), items, self._settings.fingerprint)
        shard = _Shard(number, record, deque(), len(items), history, prior)
        for item in items:
            if item.failure is not None:
                shard.results[item.row] = ItemResult(item, "failed", failure=item.failure)
            elif item.row not in prior:
                shard.waiting.append(item)
        shard.since_partial = self._writer.clock.monotonic_s()
        return shard

    def _feed(self, executor: cf.Executor) -> None:
        for shard in list(self._open.values()):
            while shard.waiting and self._pool.hunger > 0:
                item = shard.waiting.popleft()
                self._row_shard[item.row] = shard.number
                self._pool.submit(item, shard.history.in_flight.get(item.row, 0))
            if not shard.waiting and len(shard.results) == shard.planned:
                self._finish(shard, executor)

    def _take(self, answer: Answer, executor: cf.Executor) -> None:
        shard = self._open[self._row_shard.pop(answer.result.item.row)]
        shard.results[answer.result.item.row] = answer.result
        shard.fresh += 1
        self._hooks.metrics.count_item(answer.result, answer.size_bytes, answer.api_cost)
        self._hooks.progress(answer)
        if not shard.waiting and len(shard.results) == shard.planned:
            self._finish(shard, executor)

    def _finish(self, shard: _Shard, executor: cf.Executor) -> None:
        del self._open[shard.number]
        self._storing[executor.submit(self._commit, shard)] = shard.number

    # -- in store threads -------------------------------------------------------------------------------------------

    def _commit(self, shard: _Shard) -> bool:
        results = [shard.results[row] for row in sorted(shard.results)]
        started = self._writer.clock.monotonic_s()
        marker = self._marker(shard, results)
        committed = commit(self._writer, self._layout, marker)
        if committed.won:
            publish_shard(self._writer, self._layout, shard.number, self._hooks.views(marker, results))
            self._hooks.committed(marker)
        seconds = self._writer.clock.monotonic_s() - started
        self._hooks.metrics.count_shard(seconds, won=committed.won)
        log.info(
            "Committed shard" if committed.won else "Found shard committed by another attempt",
            extra={
                "run": self._layout.run,
                "shardIndex": shard.number,
                "attempt": shard.record.attempt,
                "items": marker.items.planned,
                "failed": marker.items.failed,
                "durationSeconds": round(seconds, 3),
            },
        )
        return committed.won

    def _marker(self, shard: _Shard, results: list[ItemResult]) -> Marker:
        data = shard_data.encode(results, self._settings.fingerprint)
        where = (shard.number, shard.record.attempt, shard_data.DATA_NAME)
        output = put_output(self._writer, self._layout, where, data, len(results))
        return Marker(
            shard=shard.number,
            attempt=shard.record.attempt,
            plan=self._settings.plan,
            fingerprint=self._settings.fingerprint,
            items=shard_data.count(results),
            failures=shard_data.failure_samples(results),
            failure_classes=shard_data.failure_classes(results),
            outputs=[output],
            started=shard.record.started,
            finished=iso(self._writer.clock.now()),
            worker=self._settings.worker,
            seconds=round(sum(sum(result.seconds.values()) for result in results), 3),
        )

    def _save(self, shard: _Shard, results: list[ItemResult]) -> None:
        succeeded = [result for result in results if result.status == "succeeded"]
        data = shard_data.encode(succeeded, self._settings.fingerprint)
        self._writer.put(self._layout.partial(shard.number, shard.record.attempt), data)

    def _end(self, shard: _Shard, ending: Ending, reason: str = "") -> None:
        attempts.end(self._writer, self._layout, shard.record, ending, reason)

    def _note(self, shard: _Shard, rows: list[int]) -> None:
        shard.record = attempts.note_in_flight(self._writer, self._layout, shard.record, rows)

    # -- around it --------------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        for opened in [future for future in self._opening if future.done()]:
            number = self._opening.pop(opened)
            shard = self._outcome(opened, number)
            if shard is not None:
                self._open[number] = shard
        for stored in [future for future in self._storing if future.done()]:
            number = self._storing.pop(stored)
            won = self._outcome(stored, number)
            self._result.committed += won is True
        for saved in [future for future in self._saving if future.done()]:
            self._saving.discard(saved)
            saved.result()

    def _measure(self) -> None:
        metrics = self._hooks.metrics
        metrics.queue.set(len(self._row_shard))
        metrics.open_shards.set(len(self._open) + len(self._storing))
        metrics.processes.set(len(self._pool.pids()))

    def _outcome(self, future: cf.Future[T], number: int) -> T | None:
        try:
            return future.result()
        except NonRetriableError:
            raise
        except PagemillError as error:
            self._result.failed[number] = f"{error.reason}: {error.message}"
            self._hooks.metrics.shards.labels("failed").inc()
            log.error("Failed shard", extra={"run": self._layout.run, "shardIndex": number, "reason": error.reason})
            return None

    def _note_in_flight(self, executor: cf.Executor) -> None:
        """From a shard's second attempt on, say at most once a second which rows are at work."""
        now = self._writer.clock.monotonic_s()
        if self._result.stopped or now - self._noted_at < self._settings.note_every_s:
            return
        self._noted_at = now
        at_work = self._pool.in_flight()
        for shard in self._open.values():
            rows = [row for row in at_work if self._row_shard.get(row) == shard.number]
            if shard.history.deaths and rows != shard.record.in_flight:
                self._saving.add(executor.submit(self._note, shard, rows))

    def _save_partials(self, executor: cf.Executor, *, force: bool = False) -> None:
        now = self._writer.clock.monotonic_s()
        for shard in self._open.values():
            due = now - shard.since_partial >= self._settings.partial_every_s
            if shard.fresh and (force or due):
                shard.fresh, shard.since_partial = 0, now
                self._saving.add(executor.submit(self._save, shard, list(shard.results.values())))

    def _stop(self, executor: cf.Executor) -> None:
        """Hand out nothing more; what is in a child's hands is still finished, then saved as partial results."""
        self._result.stopped = True
        cf.wait(self._saving)  # a note of what is in flight must not land after the ending that clears it
        for item in self._pool.drain():
            self._row_shard.pop(item.row, None)
        for shard in self._open.values():
            shard.waiting.clear()
            shard.planned = -1  # never complete: it ends as partial results
            self._saving.add(executor.submit(self._end, shard, "Drained"))
