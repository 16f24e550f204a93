"""The simulated worker and finalizer: each loops over shards with the protocol's own steps.

Layer: `core.testing.sim`. Whoever commits is asked at once whether it knows how that went.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pagemill_core.errors import StoreUnavailableError
from pagemill_core.testing.sim.invariants import Rules
from pagemill_core.testing.sim.rows import Commission, PlanRow, ResultRow, SimKind, encode_partial, read_table
from pagemill_core.testing.sim.scheduler import Process
from pagemill_core.testing.sim.world import World
from pagemill_core.work import attempts, commit, finalize, publish
from pagemill_core.work import layout as keys
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.plan import read_plan
from pagemill_core.work.records import PlanPointer, RunEntry, Totals, UsageRecord
from pagemill_core.work.tracker import Tracker
from pagemill_core.work.usage import put_usage
from pagemill_core.work.waves import read_wave, shards_of_index


def _load(writer: Writer, layout: RunLayout) -> tuple[PlanPointer, list[list[PlanRow]]]:
    pointer = read_plan(writer, layout)
    if pointer is None:
        raise StoreUnavailableError(f"{layout.run} has no plan, but its pods run")
    return pointer, read_table(writer, pointer)


@dataclass(frozen=True)
class Worker:
    """One pod of a wave: owns index `index` of `completions`."""

    world: World
    rules: Rules
    run: str
    wave: int
    index: int
    completions: int

    def __call__(self, process: Process) -> None:
        writer = self.world.writer()
        layout = RunLayout(self.run)
        pod = f"pod-{self.wave}-{self.index}-{process.name}"
        wave = read_wave(writer, layout, self.wave)
        if wave is None:
            raise StoreUnavailableError(f"wave {self.wave} is not there")
        pointer, table = _load(writer, layout)
        work = Commission(writer, layout, pointer)
        began_s = writer.clock.monotonic_s()
        owned = list(shards_of_index(wave.ranges, self.index, self.completions))
        self.rules.owns((self.run, self.wave), self.index, self.completions, owned)
        for shard in owned:
            if process.stop_asked or (self.world.habits.reads_entry and self._is_called_off(writer, layout)):
                break
            self._shard(process, work, shard, table[shard])
            self._pay(writer, layout, pod, began_s)

    def _pay(self, writer: Writer, layout: RunLayout, pod: str, began_s: float) -> None:
        price = self.world.habits.price_per_hour
        if price != "0":
            seconds = writer.clock.monotonic_s() - began_s
            put_usage(writer, layout, UsageRecord(pod=pod, price_per_hour=price, seconds=seconds))

    def _is_called_off(self, writer: Writer, layout: RunLayout) -> bool:
        key = keys.run_entry(layout.seq)
        blob = writer.get(key)
        if blob is None:
            return True
        entry = RunEntry.from_bytes(blob.data, key)
        return entry.state != "Open" or entry.desired != "Run"

    def _shard(self, process: Process, work: Commission, shard: int, planned: Sequence[PlanRow]) -> None:
        writer, layout = work.writer, work.layout
        scan = attempts.scan_segment(writer, layout, keys.segment_of(shard))
        if shard in scan.done:
            return
        attempt = f"{process.name}-{self.world.new_id()}"
        attempts.history(writer, scan.attempts.get(shard, ()))
        record = attempts.begin(writer, layout, shard, attempt, process.name)
        results = work.kept_rows(scan.partials.get(shard, ()), planned)
        for row in planned:
            if row.row not in results:
                results[row.row] = self._compute(row, attempt)
            if self.world.rng.random() < self.world.habits.partial_chance:
                good = [result for result in results.values() if result.status == "succeeded"]
                writer.put(layout.partial(shard, attempt), encode_partial(work.pointer.fingerprint, good))
            if process.stop_asked:
                attempts.end(writer, layout, record, "Drained")
                return
        marker = work.write_marker(shard, attempt, [results[row.row] for row in planned])
        committed = commit.commit(writer, layout, marker)
        self.rules.told(layout, attempt, committed)
        if committed.won:
            publish.publish_shard(writer, layout, shard, SimKind(work, ()).views(committed.marker))
        else:
            attempts.end(writer, layout, record, "Lost")

    def _compute(self, row: PlanRow, attempt: str) -> ResultRow:
        world = self.world
        world.computed.append((self.run, row.id))
        if world.habits.item_s:
            world.scheduler.sleep(world.rng.random() * world.habits.item_s)
        if world.deadly_items.get(row.id, 0) > 0:
            world.deadly_items[row.id] -= 1
            world.scheduler.kill_self()
        if row.id in world.bad_items:
            return ResultRow(*row, "failed", "NotAnImage", attempt)
        if world.rng.random() < world.habits.flaky_chance:
            return ResultRow(*row, "failed", "ItemTimeout", attempt)
        return ResultRow(*row, "succeeded", "", attempt)


@dataclass(frozen=True)
class Finalizer:
    """One finalize pod: `role` is publish (only what is committed), seal or succeed.

    `counted` is a complete count that whoever started it hands over, None when it counts for itself.
    """

    world: World
    rules: Rules
    run: str
    role: str
    counted: Totals | None = None

    def __call__(self, process: Process) -> None:
        writer = self.world.writer()
        layout = RunLayout(self.run)
        pointer, table = _load(writer, layout)
        kind = SimKind(Commission(writer, layout, pointer), table)
        if self.role == "publish":
            finalize.publish_missing(writer, layout, pointer.shards, kind)
            return
        if self.role == "succeed" and self.counted is not None:
            finalize.succeed(writer, layout, pointer, self.counted, kind)
            return
        tracker = Tracker(writer, layout, pointer.shards)
        tracker.poll()
        if self.role == "seal":
            finalize.seal_missing(writer, layout, tracker, kind, f"{process.name}-{self.world.new_id()}")
        elif tracker.is_complete:
            finalize.succeed(writer, layout, pointer, tracker.totals, kind)
