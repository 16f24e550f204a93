"""Which rows may be handed out now, so that a death can be blamed on the page that caused it.

Layer: `worker.work`, below `session`; pure decisions, no I/O. The pool sees its own children die. What it cannot see is
the death of the whole group, supervisor included: at a memory limit the kernel kills all at once. Whoever comes next
knows only what was written before. So from a shard's second attempt on

- rows are handed out only after the attempt's record names them as in flight;
- rows that were named when an earlier attempt died are suspects: each is tried with nothing else at work, named alone,
  after all that is not suspect is done and saved. A death then can be blamed on nobody else.

How often is a record written? A note names as many rows as were used up in about a second: the number doubles whenever
a note was used up faster.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from pagemill_worker.items import PlannedItem
from pagemill_worker.work.open_shard import OpenShard

MAX_NOTED = 256  # arbitrary: each may have to be tried alone after a death


@dataclass(frozen=True, slots=True)
class Wish:
    """A note to be written: `rows` of `shard`; `is_alone` for a suspect, before which all results are saved."""

    shard: OpenShard
    rows: tuple[int, ...]
    is_alone: bool = False


@dataclass(slots=True)
class _Notes:
    size: int
    asked_at: float = 0.0


@dataclass
class Caution:
    """Decides for one session. `capacity` is how many items keep the pool busy, `note_every_s` how often to write."""

    capacity: int
    max_deaths: int
    note_every_s: float
    _notes: dict[int, _Notes] = field(default_factory=dict)

    def take(self, shard: OpenShard) -> PlannedItem | None:
        """The next row of a shard that may be handed out beside others, None when there is none (yet)."""
        if not shard.waiting:
            return self._hopeless(shard)
        if shard.history.deaths and shard.waiting[0].row not in shard.noted:
            return None
        return shard.waiting.popleft()

    def wish(self, shard: OpenShard, in_hand: Iterable[int], now: float) -> Wish | None:
        """The note without which `shard` gets no further, None when it needs none."""
        if not shard.history.deaths or not shard.waiting or shard.waiting[0].row in shard.noted:
            return None
        notes = self._notes.get(shard.number)
        if notes is None:
            notes = self._notes[shard.number] = _Notes(max(1, self.capacity), now)
        else:
            if now - notes.asked_at < self.note_every_s:
                notes.size = min(MAX_NOTED, 2 * notes.size)
            notes.asked_at = now
        following = [item.row for _, item in zip(range(notes.size), shard.waiting, strict=False)]
        return Wish(shard, (*in_hand, *following))

    def next_suspect(self, shards: Collection[OpenShard]) -> Wish | None:
        """The suspect to try next, once nothing is at work and nothing else can be.

        First the notes of other shards are cleared: what they name is done, and must not be blamed for the suspect.
        """
        if any(shard.waiting for shard in shards):
            return None
        suspected = next((shard for shard in shards if shard.suspects), None)
        if suspected is None:
            return None
        stale = next((shard for shard in shards if shard.noted and shard is not suspected), None)
        if stale is not None:
            return Wish(stale, ())
        return Wish(suspected, (suspected.suspects[0].row,), is_alone=True)

    def _hopeless(self, shard: OpenShard) -> PlannedItem | None:
        """A suspect with more deaths than allowed: the pool gives it up without trying, so it needs no care."""
        for item in shard.suspects:
            if shard.history.in_flight[item.row] > self.max_deaths:
                shard.suspects.remove(item)
                return item
        return None
