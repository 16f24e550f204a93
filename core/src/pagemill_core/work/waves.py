"""Waves: one Indexed Job each over the shards still missing, cut into contiguous ranges.

Layer: `core.work`. A wave's shards are written once, so that every pod of it, and every pod that replaces one, sees
the same list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import zstandard

from pagemill_core.work.conditional import Writer, create_once
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.records import WaveRecord

MAX_COMPLETIONS = 1000
Range = tuple[int, int]


def to_ranges(shards: Iterable[int]) -> list[Range]:
    """Ascending shards as inclusive ranges."""
    ranges: list[Range] = []
    for shard in shards:
        if ranges and ranges[-1][1] == shard - 1:
            ranges[-1] = (ranges[-1][0], shard)
        else:
            ranges.append((shard, shard))
    return ranges


def count(ranges: Sequence[Range]) -> int:
    return sum(last - first + 1 for first, last in ranges)


def completions_for(shard_count: int, parallelism: int) -> int:
    """How many indexes a wave gets: enough that a slow one does not hold up the end, never one a shard.

    min(shards, max(parallelism, min(1000, 4 x parallelism))).
    """
    return min(shard_count, max(parallelism, min(MAX_COMPLETIONS, 4 * parallelism)))


def shards_of_index(ranges: Sequence[Range], index: int, completions: int) -> Iterator[int]:
    """The shards that index `index` of `completions` owns: contiguous in the wave's list, sizes differing by at most 1.

    Every shard of the wave belongs to exactly one index.
    """
    total = count(ranges)
    start, stop = index * total // completions, (index + 1) * total // completions
    position = 0
    for first, last in ranges:
        length = last - first + 1
        low, high = max(start, position), min(stop, position + length)
        yield from range(first + low - position, first + high - position)
        position += length


def create_wave(writer: Writer, layout: RunLayout, record: WaveRecord) -> WaveRecord:
    """Write a wave unless it exists; what exists counts."""
    body = zstandard.compress(record.to_bytes())
    created = create_once(writer, layout.wave(record.number), body, lambda found: found == body)
    return _decode(created.data, layout.wave(record.number))


def read_wave(writer: Writer, layout: RunLayout, number: int) -> WaveRecord | None:
    """Wave `number`, None when there is none."""
    key = layout.wave(number)
    blob = writer.get(key)
    return None if blob is None else _decode(blob.data, key)


def newest_wave(writer: Writer, layout: RunLayout) -> int:
    """The number of the newest wave, 0 before the first."""
    infos = writer.listing(layout.waves_prefix)
    return max((int(info.key.removeprefix(layout.waves_prefix).split(".")[0]) for info in infos), default=0)


def _decode(data: bytes, key: str) -> WaveRecord:
    return WaveRecord.from_bytes(zstandard.decompress(data), key)
