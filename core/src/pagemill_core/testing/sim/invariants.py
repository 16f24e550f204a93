"""The rules that hold at every write: checked against what is there the moment it is written.

Layer: `core.testing.sim`. Reads the memory store behind the faults, never through them. What only holds once
everything is at rest is in `verdict`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import zstandard

from pagemill_core.storage.memory import MemoryStore
from pagemill_core.storage.store import Blob
from pagemill_core.testing.sim import rows as tables
from pagemill_core.testing.sim.rows import PlanRow, ResultRow, view_key, view_of
from pagemill_core.testing.sim.world import World
from pagemill_core.work import layout as keys
from pagemill_core.work.commit import Committed
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.ledger import EXPIRY_S, Held
from pagemill_core.work.publish import META_SEQ
from pagemill_core.work.records import (
    Counts,
    Marker,
    PlanPointer,
    PublishedRecord,
    RunEntry,
    Success,
    Totals,
    WaveRecord,
)

_NEXT_STATES = {
    "Open": {"Open", "Sealing", "Finished", "GivenUp"},
    "Sealing": {"Sealing", "Finished", "GivenUp"},
    "Finished": set[str](),
    "GivenUp": set[str](),
}


class RuleBrokenError(AssertionError):
    """A promise of the protocol was broken."""


def require(holds: bool, promise: str, *values: object) -> None:
    """Raise RuleBrokenError saying `promise`, its {} filled from `values`, unless it `holds`."""
    if not holds:
        raise RuleBrokenError(promise.format(*values))


@dataclass
class RunFacts:
    """What is true of one run, kept as it happens."""

    pointer: PlanPointer | None = None
    table: list[list[PlanRow]] = field(default_factory=list)
    markers: dict[int, Marker] = field(default_factory=dict)
    rows: dict[int, list[ResultRow]] = field(default_factory=dict)
    views: dict[str, bytes] = field(default_factory=dict)  # what the views of committed rows must hold
    late_markers: set[int] = field(default_factory=set)  # committed after the run was given up
    once: dict[str, bytes] = field(default_factory=dict)  # dataset parts and merged views: the same bytes for ever

    @property
    def is_complete(self) -> bool:
        return self.pointer is not None and len(self.markers) == self.pointer.shards

    def counts(self) -> Counts:
        total = Counts()
        for marker in self.markers.values():
            total += marker.items
        return total


class Rules:
    """Observes every write of a world and raises RuleBrokenError at the first wrong one."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._memory: MemoryStore = world.memory
        self.runs: dict[str, RunFacts] = {}
        self.entries: dict[int, RunEntry] = {}
        self._changed_s: dict[int, float] = {}
        self._waves: dict[tuple[str, int], list[int]] = {}  # (run, wave) -> its shards
        self._owners: dict[tuple[str, int], dict[int, list[int]]] = {}  # (run, wave) -> shards by index
        self._by_folder: dict[str, Callable[[str, RunFacts, Blob | None, Blob], None]] = {
            "plan": self._plan_written,
            "waves": self._wave_written,
            "data": self._data_written,
            "commit": self._marker_written,
            "published": self._published_written,
            "rollup": self._rollup_written,
            "_SUCCESS.json": self._success_written,
        }

    def facts(self, run: str) -> RunFacts:
        return self.runs.setdefault(run, RunFacts())

    # -- told by processes ------------------------------------------------------------------------------------------

    def told(self, layout: RunLayout, attempt: str, committed: Committed) -> None:
        """A commit returned: its attempt knows whether it won."""
        marker = self.facts(layout.run).markers.get(committed.marker.shard)
        require(marker is not None, "{}: a commit returned, but there is no marker", layout.run)
        assert marker is not None
        has_won = marker.attempt == attempt
        require(
            committed.won == has_won,
            "{}: {} was told won={}, but won is {}",
            layout.run,
            attempt,
            committed.won,
            has_won,
        )
        require(
            committed.marker == marker, "{}: {} was shown another marker than the one that counts", layout.run, attempt
        )

    def counted(self, layout: RunLayout, totals: Totals) -> None:
        """A tracker counted: never more than what is committed, never anything else."""
        facts = self.facts(layout.run)
        truth = facts.counts()
        require(totals.items.add_up(), "{}: counted items do not add up: {}", layout.run, totals.items)
        require(
            totals.shards_done <= len(facts.markers), "{}: counted {} shards as done", layout.run, totals.shards_done
        )
        if totals.shards_done == len(facts.markers):
            require(totals.items == truth, "{}: counted {}, committed are {}", layout.run, totals.items, truth)

    def completed(self, held: Held) -> None:
        """A request was answered with work that is done."""
        require(
            held.entry.state == "Finished", "{} answered a request as complete, but is {}", held.run, held.entry.state
        )

    def owns(self, key: tuple[str, int], index: int, completions: int, shards: list[int]) -> None:
        """An index of wave `key` began: together the indexes own each of the wave's shards once."""
        owners = self._owners.setdefault(key, {})
        require(owners.setdefault(index, shards) == shards, "index {} of {} owns other shards now", index, key)
        if len(owners) == completions:
            owned = sorted(shard for of_index in owners.values() for shard in of_index)
            require(owned == self._waves[key], "the indexes of {} own {} of {}", key, owned, self._waves[key])

    # -- every write ------------------------------------------------------------------------------------------------

    def wrote(self, key: str, before: Blob | None, after: Blob) -> None:
        seq = keys.seq_of_run_entry(key)
        if seq is not None:
            self._entry_written(seq, before, RunEntry.from_bytes(after.data, key))
        elif key.startswith(f"{keys.ROOT}/"):
            _, run, folder, *_ = key.split("/")
            check = self._by_folder.get(folder)
            if check is not None:
                check(key, self.facts(run), before, after)
        elif key.startswith("dataset/"):
            self._dataset_written(key, after)
        else:
            self._view_written(key, before, after)

    def _run_of(self, seq: int) -> str:
        return keys.run_id(seq, self.entries[seq].work_key)

    # -- the ledger -------------------------------------------------------------------------------------------------

    def _entry_written(self, seq: int, before: Blob | None, entry: RunEntry) -> None:
        old = self.entries.get(seq)
        now_s = self._world.scheduler.now_s
        if old is None or before is None:
            require(before is None and old is None, "run {} was created twice", seq)
            previous = self.entries.get(seq - 1)
            require(
                seq == 1 or (previous is not None and previous.is_final),
                "run {} was claimed before {} ended",
                seq,
                seq - 1,
            )
            require(entry.state == "Open" and bool(entry.owner), "run {} was claimed as {}", seq, entry.state)
        else:
            require(entry.state in _NEXT_STATES[old.state], "run {} went from {} to {}", seq, old.state, entry.state)
            same = (entry.seq, entry.work_key, entry.kind) == (old.seq, old.work_key, old.kind)
            require(same, "run {} became other work", seq)
            require(entry.active_seconds >= old.active_seconds, "run {} lost seconds at work", seq)
            self._check_hands(seq, old, entry, now_s)
            if entry.state != old.state:
                self._check_ending(seq, old, entry, now_s)
        self.entries[seq] = entry
        self._changed_s[seq] = now_s

    def _check_hands(self, seq: int, old: RunEntry, entry: RunEntry, now_s: float) -> None:
        """A run passes to another owner only when nobody has it, or nothing was heard for the expiry."""
        if entry.owner == old.owner or not entry.owner:
            return
        require(entry.epoch == old.epoch + 1, "run {} was taken over within its epoch", seq)
        unheard_s = now_s - self._changed_s[seq]
        require(
            not old.owner or unheard_s >= EXPIRY_S, "run {} was taken over {} s after a renewal", seq, round(unheard_s)
        )

    def _check_ending(self, seq: int, old: RunEntry, entry: RunEntry, now_s: float) -> None:
        run = self._run_of(seq)
        facts = self.facts(run)
        if entry.state == "Finished":
            require(facts.is_complete, "{} was finished with shards missing", run)
            require(self._memory.head(RunLayout(run).success) is not None, "{} was finished before its success", run)
        elif entry.state == "Sealing":
            self._check_sealing(run, facts)
        elif entry.state == "GivenUp" and entry.reason == "Superseded":
            job = self._world.job(old.owner)
            is_replaced = any(job.spec.replace for job in self._world.jobs)
            is_unowned = not old.owner or now_s - self._changed_s[seq] >= EXPIRY_S
            is_edited = job is not None and any(spec.work_key != entry.work_key for spec in job.specs)
            require(is_replaced or is_unowned or is_edited, "{} was given up by somebody else", run)

    def _check_sealing(self, run: str, facts: RunFacts) -> None:
        assert facts.pointer is not None
        counts = facts.counts()
        failing = counts.failed + facts.pointer.items - counts.planned
        work_key = facts.pointer.work_key
        allowed = max(
            spec.limits.allowed_failures(facts.pointer.items)
            for job in self._world.jobs
            for spec in job.specs
            if spec.work_key == work_key
        )
        require(failing <= allowed, "{} was sealed with {} failures, {} may be", run, failing, allowed)

    # -- one run ----------------------------------------------------------------------------------------------------

    def _plan_written(self, key: str, facts: RunFacts, before: Blob | None, after: Blob) -> None:
        if not key.endswith("plan.json"):
            return
        require(before is None, "{} was written twice", key)
        pointer = PlanPointer.from_bytes(after.data, key)
        table: list[list[PlanRow]] = []
        for part in pointer.parts:
            require(self._memory.head(part.key) is not None, "{} names a table that is not there", key)
            table += tables.decode_plan(self._memory.get(part.key).data)
        require(len(table) == pointer.shards, "{} names other tables than it counts", key)
        facts.pointer, facts.table = pointer, table
        self._check_subtraction(key, pointer, table)

    def _check_subtraction(self, key: str, pointer: PlanPointer, table: list[list[PlanRow]]) -> None:
        """What a given-up run of the same work committed before it was given up is not planned again."""
        planned = {(row.id, row.version) for shard in table for row in shard}
        for seq in range(int(pointer.run[:8]) - 1, 0, -1):
            entry = self.entries[seq]
            if entry.state == "Finished":
                return
            facts = self.facts(self._run_of(seq))
            is_same = entry.work_key == pointer.work_key and facts.pointer is not None
            if not is_same or facts.pointer is None or facts.pointer.fingerprint != pointer.fingerprint:
                continue
            for shard, rows in facts.rows.items():
                done = {(row.id, row.version) for row in rows if row.status == "succeeded"}
                is_timely = shard not in facts.late_markers
                require(not (is_timely and done & planned), "{} plans again what run {} committed", key, seq)

    def _wave_written(self, key: str, facts: RunFacts, before: Blob | None, after: Blob) -> None:
        require(before is None, "{} was written twice", key)
        wave = WaveRecord.from_bytes(zstandard.decompress(after.data), key)
        inside = {shard for first, last in wave.ranges for shard in range(first, last + 1)}
        self._waves[key.split("/")[1], wave.number] = sorted(inside)
        missing = set(range(len(facts.table))) - set(facts.markers)
        require(missing <= inside, "{} leaves out shards {}", key, sorted(missing - inside))
        require(inside <= set(range(len(facts.table))), "{} names shards that the plan does not have", key)

    def _data_written(self, key: str, _facts: RunFacts, before: Blob | None, after: Blob) -> None:
        require(before is None or before.data == after.data, "{} was overwritten with other bytes", key)

    def _marker_written(self, key: str, facts: RunFacts, before: Blob | None, after: Blob) -> None:
        require(before is None, "{} was overwritten", key)
        marker = Marker.from_bytes(after.data, key)
        pointer = facts.pointer
        require(pointer is not None, "{} was committed without a plan", key)
        assert pointer is not None
        require(marker.shard == keys.shard_of(key), "{} holds the marker of shard {}", key, marker.shard)
        require(
            (marker.plan, marker.fingerprint) == (pointer.attempt, pointer.fingerprint), "{} is of another plan", key
        )
        (output,) = marker.outputs
        require(self._memory.head(output.key) is not None, "{} was committed before its output was there", key)
        rows = tables.decode_results(self._memory.get(output.key).data)
        planned = [(row.row, row.id, row.version) for row in facts.table[marker.shard]]
        require([row[:3] for row in rows] == planned, "{}: planned {}, committed {}", key, planned, rows)
        statuses = Counter(row.status for row in rows)
        want = Counts(planned=len(rows), succeeded=statuses["succeeded"], failed=statuses["failed"])
        require(marker.items == want, "{} counts {}, but has {}", key, marker.items, want)
        entry = self.entries[int(pointer.run[:8])]
        if marker.sealed:
            require(entry.state in ("Sealing", "GivenUp"), "{} was sealed while its run was {}", key, entry.state)
        require(entry.state != "Finished", "{} was committed into a finished run", key)
        if entry.state == "GivenUp":
            facts.late_markers.add(marker.shard)
        facts.markers[marker.shard] = marker
        facts.rows[marker.shard] = rows
        facts.views.update({view_key(row.id): view_of(row).data for row in rows if row.status == "succeeded"})

    def _published_written(self, key: str, facts: RunFacts, _before: Blob | None, after: Blob) -> None:
        record = PublishedRecord.from_bytes(after.data, key)
        require(record.shard in facts.markers, "{} was published before it was committed", key)
        want = {view_key(row.id) for row in facts.rows[record.shard] if row.status == "succeeded"}
        require({view.key for view in record.views} == want, "{} names other views than the committed rows have", key)
        for view in record.views:
            require(self.view_seq(view.key) >= record.seq, "{} says that {} is there", key, view.key)

    def _rollup_written(self, key: str, facts: RunFacts, before: Blob | None, after: Blob) -> None:
        require(before is None, "{} was overwritten", key)
        segment = int(key.rsplit("/", 1)[1].split(".", maxsplit=1)[0])
        first = segment * keys.SEGMENT_SHARDS
        last = min(first + keys.SEGMENT_SHARDS, len(facts.table))
        lines = zstandard.decompress(after.data).splitlines()
        want = [facts.markers.get(shard) for shard in range(first, last)]
        require([Marker.from_bytes(line, key) for line in lines] == want, "{} is not the markers of its segment", key)

    def _success_written(self, key: str, facts: RunFacts, before: Blob | None, after: Blob) -> None:
        require(before is None, "{} was overwritten", key)
        success = Success.from_bytes(after.data, key)
        require(facts.is_complete, "{} was written with shards missing", key)
        require(success.totals.items == facts.counts(), "{}: {} is not {}", key, success.totals.items, facts.counts())
        for segment in range(-(-len(facts.table) // keys.SEGMENT_SHARDS)):
            part = keys.dataset_part(int(success.run[:8]), segment)
            require(part in facts.once, "{} was written before {}", key, part)
        for view in facts.views:
            require(self.view_seq(view) >= int(success.run[:8]), "{} was written before {}", key, view)

    # -- what users see ---------------------------------------------------------------------------------------------

    def view_seq(self, key: str) -> int:
        """The run that a view is of, 0 when there is none."""
        info = self._memory.head(key)
        return 0 if info is None else int(info.meta.get(META_SEQ, "0"))

    def _view_written(self, key: str, before: Blob | None, after: Blob) -> None:
        seq = int(after.meta[META_SEQ])
        if before is not None:
            there = int(before.meta.get(META_SEQ, "0"))
            require(there <= seq, "{} went back from run {} to run {}", key, there, seq)
        facts = self.facts(self._run_of(seq))
        if key == tables.SUMMARY_KEY:
            self._write_once(key, facts, after)
        else:
            require(facts.views.get(key) == after.data, "{} does not show what run {} committed", key, seq)

    def _dataset_written(self, key: str, after: Blob) -> None:
        seq, segment = int(key[12:20]), int(key[26:31])
        facts = self.facts(self._run_of(seq))
        self._write_once(key, facts, after)
        first = segment * keys.SEGMENT_SHARDS
        last = min(first + keys.SEGMENT_SHARDS, len(facts.table))
        want = [row for shard in range(first, last) for row in facts.rows[shard]]
        require(tables.decode_results(after.data) == want, "{} is not the committed rows of its segment", key)

    def _write_once(self, key: str, facts: RunFacts, after: Blob) -> None:
        require(facts.is_complete, "{} was written with shards missing", key)
        require(facts.once.setdefault(key, after.data) == after.data, "{} was written again with other bytes", key)
