"""One pod's work: loop over its shards, feed the pool, commit what is complete, leave partial results behind.

Layer: `worker.work`. The main thread feeds the pool and sorts answers; everything that waits for the store (opening,
committing, publishing, partial results) runs in a few threads, so that children never starve.
"""

from __future__ import annotations

import concurrent.futures as cf
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from pagemill_core.errors import NonRetriableError, PagemillError
from pagemill_core.work import layout as keys
from pagemill_core.work.attempts import SegmentScan
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.publish import View
from pagemill_core.work.records import Marker
from pagemill_worker.items import ItemResult, PlannedItem
from pagemill_worker.metrics import WorkerMetrics
from pagemill_worker.work.caution import Caution, Wish
from pagemill_worker.work.open_shard import OpenShard, ShardFacts, ShardStore
from pagemill_worker.work.pool import Answer, Pool

STORE_THREADS = 4
OPEN_AHEAD = 2
POLL_S = 0.1
MEASURE_EVERY_S = 1.0  # a look at /proc for each process
MAX_FAILURES_IN_A_ROW = 2 * STORE_THREADS  # one bad shard is its own; this many one after the other are the store's
log = logging.getLogger("pagemill.work")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What a session needs to know. `worker` names the pod in records, `plan` is the attempt that planned.

    `can_have_more_memory`: somebody will try again with more, so an item that runs out of it is left undone.
    """

    worker: str
    plan: str
    fingerprint: str
    partial_every_s: float = 30.0
    note_every_s: float = 1.0
    max_deaths: int = 2
    memory_rung: int = 0
    can_have_more_memory: bool = False


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
class SessionResult:
    """How a session ended: shards committed, shards that failed with the reason, whether it was stopped.

    `left` are shards that were done but for items that want more memory.
    """

    committed: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    left: set[int] = field(default_factory=set)
    stopped: bool = False


class Session:
    """Works through shards with one pool. Use once."""

    def __init__(self, writer: Writer, layout: RunLayout, pool: Pool, settings: SessionSettings, hooks: Hooks) -> None:
        self._clock = writer.clock
        self._layout = layout
        self._pool = pool
        self._settings = settings
        self._hooks = hooks
        facts = ShardFacts(settings.worker, settings.plan, settings.fingerprint, settings.memory_rung)
        self._store = ShardStore(writer, layout, facts, hooks.items, hooks.views)
        self._caution = Caution(pool.hunger, settings.max_deaths, settings.note_every_s)
        self._scans: dict[int, SegmentScan] = {}
        self._open: dict[int, OpenShard] = {}
        self._row_shard: dict[int, int] = {}
        self._alone: int | None = None  # the suspect that has the pool to itself
        self._opening: dict[cf.Future[OpenShard], int] = {}
        self._storing: dict[cf.Future[bool], OpenShard] = {}
        self._noting: dict[cf.Future[frozenset[int]], Wish] = {}
        self._saving: set[cf.Future[None]] = set()
        self._failures_in_a_row = 0
        self._measured_at = -MEASURE_EVERY_S
        self._result = SessionResult()

    def run(self, shards: Iterable[int]) -> SessionResult:
        """Do `shards` in order, those already done excepted. One bad shard does not end the rest.

        Raises: NonRetriableError (access denied, engine missing, a plan that does not match): nothing here can go on.
        RetriableError when shard after shard fails: the store is away.
        """
        todo = iter(shards)
        with cf.ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="store") as executor:
            try:
                self._loop(todo, executor)
            except PagemillError as error:
                self._fail_open_shards(error, executor)
                raise
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
            if not self._result.stopped:
                self._feed(executor)
            for answer in self._pool.poll(POLL_S / 5 if self._pool.is_idle else POLL_S):
                self._take(answer, executor)
            self._collect(executor)
            self._measure()
            self._save_partials(executor)

    def _is_over(self) -> bool:
        if self._result.stopped:
            return self._pool.is_idle and not self._storing and not self._opening
        return not (self._open or self._opening or self._storing)

    def _open_more(self, todo: Iterator[int], executor: cf.Executor) -> None:
        while len(self._opening) < OPEN_AHEAD and sum(shard.has_work for shard in self._open.values()) < OPEN_AHEAD:
            number = next(todo, None)
            if number is None:
                return
            scan = self._scan(number)
            if number not in scan.done:
                self._opening[executor.submit(self._store.begin, number, scan)] = number

    def _scan(self, shard: int) -> SegmentScan:
        segment = keys.segment_of(shard)
        if segment not in self._scans:
            self._scans = {segment: self._store.scan(segment)}
        return self._scans[segment]

    # -- handing out ------------------------------------------------------------------------------------------------

    def _feed(self, executor: cf.Executor) -> None:
        if self._alone is not None:
            return
        for shard in list(self._open.values()):
            while self._pool.hunger > 0 and (item := self._caution.take(shard)) is not None:
                self._submit(shard, item)
            if shard.is_complete:
                self._finish(shard, executor)
            elif self._pool.hunger > 0:
                self._ask_note(shard, executor)
        # Also a shard that waits for its commit still names rows as in flight.
        if not (self._row_shard or self._noting or self._storing):
            self._ask_suspect(executor)

    def _submit(self, shard: OpenShard, item: PlannedItem) -> None:
        self._row_shard[item.row] = shard.number
        self._pool.submit(item, shard.history.in_flight.get(item.row, 0))

    def _ask_note(self, shard: OpenShard, executor: cf.Executor) -> None:
        if any(wish.shard is shard for wish in self._noting.values()):
            return
        in_hand = [row for row, number in self._row_shard.items() if number == shard.number]
        wish = self._caution.wish(shard, in_hand, self._clock.monotonic_s())
        if wish is not None:
            self._noting[executor.submit(self._store.note, shard, wish.rows)] = wish

    def _ask_suspect(self, executor: cf.Executor) -> None:
        wish = self._caution.next_suspect(self._open.values())
        if wish is not None:
            results = list(wish.shard.results.values()) if wish.shard.fresh else []
            wish.shard.fresh = 0
            self._noting[executor.submit(self._store.note, wish.shard, wish.rows, results)] = wish

    def _noted(self, wish: Wish, rows: frozenset[int]) -> None:
        wish.shard.noted = rows
        if wish.is_alone and not self._result.stopped:
            item = wish.shard.suspects.popleft()
            self._alone = item.row
            self._submit(wish.shard, item)

    # -- answers ----------------------------------------------------------------------------------------------------

    def _take(self, answer: Answer, executor: cf.Executor) -> None:
        row = answer.result.item.row
        shard = self._open[self._row_shard.pop(row)]
        if self._alone == row:
            self._alone = None
        if answer.wants_memory and self._settings.can_have_more_memory:
            shard.left.add(row)
        else:
            shard.results[row] = answer.result
            shard.fresh += 1
        self._hooks.metrics.count_item(answer.result, answer.size_bytes, answer.api_cost)
        self._hooks.progress(answer)
        if shard.is_complete and not self._result.stopped:
            self._finish(shard, executor)

    def _finish(self, shard: OpenShard, executor: cf.Executor) -> None:
        del self._open[shard.number]
        if shard.left:
            self._leave(shard, executor)
        else:
            self._storing[executor.submit(self._commit, shard)] = shard

    def _leave(self, shard: OpenShard, executor: cf.Executor) -> None:
        """Keep what is done of a shard for the wave that has more memory."""
        self._result.left.add(shard.number)
        self._hooks.metrics.shards.labels("failed").inc()
        extra = {"run": self._layout.run, "shardIndex": shard.number, "items": len(shard.left)}
        log.warning("Left a shard to a wave with more memory", extra=extra)
        reason = f"{len(shard.left)} items want more memory"
        self._saving.add(executor.submit(self._store.fail, shard, reason))

    def _commit(self, shard: OpenShard) -> bool:
        """In a store thread."""
        started = self._clock.monotonic_s()
        marker, won = self._store.commit(shard)
        if won:
            self._hooks.committed(marker)
        seconds = self._clock.monotonic_s() - started
        self._hooks.metrics.count_shard(seconds, won=won)
        log.info(
            "Committed shard" if won else "Found shard committed by another attempt",
            extra={
                "run": self._layout.run,
                "shardIndex": shard.number,
                "attempt": shard.record.attempt,
                "items": marker.items.planned,
                "failed": marker.items.failed,
                "durationSeconds": round(seconds, 3),
            },
        )
        return won

    # -- what the store threads have done ---------------------------------------------------------------------------

    def _collect(self, executor: cf.Executor) -> None:
        for opened in [future for future in self._opening if future.done()]:
            number = self._opening.pop(opened)
            shard = self._outcome(opened, number)
            if shard is not None and self._result.stopped:
                self._saving.add(executor.submit(self._store.end, shard, "Drained"))
            elif shard is not None:
                self._open[number] = shard
        for stored in [future for future in self._storing if future.done()]:
            stored_shard = self._storing.pop(stored)
            won = self._outcome(stored, stored_shard.number)
            if won is not None:
                self._failures_in_a_row = 0
            else:
                reason = self._result.failed[stored_shard.number]
                self._saving.add(executor.submit(self._store.fail, stored_shard, reason))
            self._result.committed += won is True
        for noted in [future for future in self._noting if future.done()]:
            self._noted(self._noting.pop(noted), noted.result())
        for saved in [future for future in self._saving if future.done()]:
            self._saving.discard(saved)
            saved.result()

    def _outcome(self, future: cf.Future[T], number: int) -> T | None:
        try:
            return future.result()
        except NonRetriableError:
            raise
        except PagemillError as error:
            self._result.failed[number] = f"{error.reason}: {error.message}"
            self._hooks.metrics.shards.labels("failed").inc()
            log.error("Failed shard", extra={"run": self._layout.run, "shardIndex": number, "reason": error.reason})
            self._failures_in_a_row += 1
            if self._failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
                raise
            return None

    def _measure(self) -> None:
        metrics = self._hooks.metrics
        metrics.queue.set(len(self._row_shard))
        metrics.open_shards.set(len(self._open) + len(self._storing))
        metrics.processes.set(len(self._pool.pids()))
        now = self._clock.monotonic_s()
        if now - self._measured_at >= MEASURE_EVERY_S:
            self._measured_at = now
            metrics.measure_pool(self._pool.usage(), sum(shard.planned for shard in self._storing.values()))

    # -- leaving ----------------------------------------------------------------------------------------------------

    def _save_partials(self, executor: cf.Executor, *, force: bool = False) -> None:
        now = self._clock.monotonic_s()
        for shard in self._open.values():
            due = now - shard.saved_at >= self._settings.partial_every_s
            if shard.fresh and (force or due):
                shard.fresh, shard.saved_at = 0, now
                self._saving.add(executor.submit(self._store.save, shard, list(shard.results.values())))

    def _stop(self, executor: cf.Executor) -> None:
        """Hand out nothing more; what is in a child's hands is still finished, then saved as partial results."""
        self._result.stopped = True
        self._wait_for_notes()
        for item in self._pool.drain():
            self._row_shard.pop(item.row, None)
        for shard in self._open.values():
            self._saving.add(executor.submit(self._store.end, shard, "Drained"))

    def _fail_open_shards(self, error: PagemillError, executor: cf.Executor) -> None:
        """Nothing here can go on: keep what is done, and clear what is in flight, since no page is to blame."""
        self._wait_for_notes()
        failing = [
            executor.submit(self._store.fail, shard, f"{error.reason}: {error.message}")
            for shard in self._open.values()
        ]
        cf.wait(failing)

    def _wait_for_notes(self) -> None:
        """A note of what is in flight must not land after the ending that clears it."""
        cf.wait(self._noting)
        cf.wait(self._saving)
