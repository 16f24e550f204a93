"""Attempts at shards: who began what, and what an attempt that died had in its hands.

Layer: `core.work`. An attempt record is put before any work. It is ended with its outcome when the attempt ends
without a commit; an attempt that committed is known by its marker and needs no second write. One without ending and
without marker is a death.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pagemill_core.clock import iso
from pagemill_core.work import layout as keys
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.records import AttemptRecord, Ending


@dataclass(frozen=True, slots=True)
class SegmentScan:
    """What a worker sees of a segment when it enters it: three LIST calls for up to a thousand shards.

    `attempts` and `partials` hold keys by shard. All of it may be out of date a moment later; only markers decide.
    """

    done: frozenset[int]
    attempts: Mapping[int, Sequence[str]]
    partials: Mapping[int, Sequence[str]]


@dataclass(frozen=True, slots=True)
class ShardHistory:
    """What earlier attempts at a shard left: how many died, and how often each row was in flight then.

    Deaths with another amount of memory make a row a suspect and do not count against it.
    """

    deaths: int = 0
    in_flight: Mapping[int, int] = field(default_factory=dict)


def scan_segment(writer: Writer, layout: RunLayout, segment: int) -> SegmentScan:
    """Read which shards of a segment are done, were attempted, and left partial results."""

    def by_shard(prefix: str) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for info in writer.listing(prefix):
            found.setdefault(keys.shard_of(info.key), []).append(info.key)
        return found

    return SegmentScan(
        done=frozenset(by_shard(layout.markers_of_segment(segment))),
        attempts=by_shard(layout.attempts_of_segment(segment)),
        partials=by_shard(layout.partials_of_segment(segment)),
    )


def begin(writer: Writer, layout: RunLayout, shard: int, attempt: str, worker: str) -> AttemptRecord:
    """Record that `attempt` begins, before it does anything that could kill its process."""
    started = iso(writer.clock.now())
    return put_beginning(writer, layout, AttemptRecord(shard=shard, attempt=attempt, worker=worker, started=started))


def put_beginning(writer: Writer, layout: RunLayout, record: AttemptRecord) -> AttemptRecord:
    """The same for an attempt of which there is more to say."""
    writer.put(layout.attempt(record.shard, record.attempt), record.to_bytes())
    return record


def note_in_flight(writer: Writer, layout: RunLayout, record: AttemptRecord, rows: Sequence[int]) -> AttemptRecord:
    """Record which rows are at work now, so that a death can be blamed on one of them."""
    noted = record.model_copy(update={"in_flight": list(rows)})
    writer.put(layout.attempt(record.shard, record.attempt), noted.to_bytes())
    return noted


def end(writer: Writer, layout: RunLayout, record: AttemptRecord, ending: Ending, reason: str = "") -> None:
    """Record how an attempt ended that did not commit; clears what was in flight, so that nobody is blamed."""
    ended = record.model_copy(update={"ending": ending, "reason": reason[:500], "in_flight": []})
    writer.put(layout.attempt(record.shard, record.attempt), ended.to_bytes())


def history(writer: Writer, attempt_keys: Sequence[str], *, memory_rung: int = 0) -> ShardHistory:
    """Read the attempts at one shard as one with this amount of memory sees them.

    One that still runs elsewhere counts as a death: that only makes its successor more careful.
    """
    deaths = 0
    in_flight: Counter[int] = Counter()
    for key in attempt_keys:
        blob = writer.get(key)
        if blob is None:
            continue
        record = AttemptRecord.from_bytes(blob.data, key)
        if record.ending is None:
            deaths += 1
            in_flight.update({row: int(record.memory_rung == memory_rung) for row in record.in_flight})
    return ShardHistory(deaths, dict(in_flight))
