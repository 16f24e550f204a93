"""Counting what is done without listing everything.

Layer: `core.work`. Each marker is read once; a full segment is folded into a rollup and never looked at again. The
cost of a poll is one LIST page an open segment, or a few GETs when nearly everything is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pagemill_core.work import layout as keys
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.records import Counts, FailureSample, Marker, Totals
from pagemill_core.work.rollup import folded_segments, read_rollup, write_rollup

GET_INSTEAD_OF_LIST = 8  # up to here single GETs are cheaper than one LIST page and the GETs that follow it
MAX_SAMPLES = 20
PROMPT_SEGMENTS = 30  # so many open ones are all looked at in every poll: their markers are known within seconds


class _Segment:
    """One segment's share of the count. `idle` polls in a row found nothing; it is looked at less often then.

    `markers` are kept as they were read: parsed they would take seven times the room, in a process that watches many
    runs at once.
    """

    __slots__ = ("done", "idle", "markers", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.done: set[int] = set()
        self.markers: list[bytes] = []
        self.idle = 0


class Tracker:
    """The running count of one run's markers, kept by whoever watches it. Memory grows with open segments only."""

    def __init__(self, writer: Writer, layout: RunLayout, shard_count: int) -> None:
        self._writer = writer
        self._layout = layout
        self._shard_count = shard_count
        self._folded: set[int] | None = None
        self._loaded = 0  # segments below this number are counted or open
        self._open: dict[int, _Segment] = {}
        self._polls = 0
        self._items = Counts()
        self._classes: Counter[str] = Counter()
        self._samples: list[tuple[int, int, FailureSample]] = []
        self._shards_done = 0
        self._milliseconds = 0
        self._stage_milliseconds: Counter[str] = Counter()

    @property
    def totals(self) -> Totals:
        """What the last poll saw. O(1) in the number of shards.

        Equal for equal sets of markers, in whatever order they were seen: merged views are made of it, and a late
        finalizer must write the same bytes.
        """
        return Totals(
            shards=self._shard_count,
            shards_done=self._shards_done,
            items=self._items,
            failure_classes=dict(sorted(self._classes.items())),
            failures=[sample for _, _, sample in self._samples],
            seconds=self._milliseconds / 1000,
            stage_seconds={stage: count / 1000 for stage, count in sorted(self._stage_milliseconds.items())},
        )

    @property
    def is_complete(self) -> bool:
        return self._shards_done == self._shard_count

    def poll(self, *, thorough: bool = True) -> Totals:
        """Read the markers that are new.

        Unless `thorough`, of more than `PROMPT_SEGMENTS` open ones those that stood still are looked at less often.
        """
        self._polls += 1
        segments = sorted(self._load().items())
        is_lazy = not thorough and len(segments) > PROMPT_SEGMENTS
        for number, segment in segments:
            if is_lazy and segment.idle and self._polls % min(8, 2**segment.idle):
                continue
            found = self._look(number, segment)
            segment.idle = 0 if found else segment.idle + 1
        return self.totals

    def missing(self) -> Iterator[int]:
        """Shards without a marker as of the last poll, ascending."""
        for number, segment in sorted(self._load().items()):
            first = number * keys.SEGMENT_SHARDS
            yield from (shard for shard in range(first, first + segment.size) if shard not in segment.done)

    def _load(self) -> dict[int, _Segment]:
        """The open segments, after counting the folded ones: each as a whole, so that a read that fails is repeated
        without counting anything twice."""
        if self._folded is None:
            self._folded = folded_segments(self._writer, self._layout)
        while self._loaded * keys.SEGMENT_SHARDS < self._shard_count:
            number = self._loaded
            markers = read_rollup(self._writer, self._layout, number) if number in self._folded else None
            if markers is None:
                size = min(keys.SEGMENT_SHARDS, self._shard_count - number * keys.SEGMENT_SHARDS)
                self._open[number] = _Segment(size)
            for marker in markers or ():
                self._count(marker)
            self._loaded += 1
        return self._open

    def _look(self, number: int, segment: _Segment) -> bool:
        found = {shard: self._writer.get(self._layout.marker(shard)) for shard in self._candidates(number, segment)}
        new = [(self._parsed(shard, blob.data), blob.data) for shard, blob in found.items() if blob is not None]
        for marker, data in new:
            segment.done.add(marker.shard)
            segment.markers.append(data)
            self._count(marker)
        if len(segment.done) == segment.size:
            markers = (Marker.from_bytes(data, self._layout.rollup(number)) for data in segment.markers)
            write_rollup(self._writer, self._layout, number, markers)
            del self._open[number]
        return bool(new)

    def _candidates(self, number: int, segment: _Segment) -> list[int]:
        first = number * keys.SEGMENT_SHARDS
        if segment.size - len(segment.done) <= GET_INSTEAD_OF_LIST:
            return [shard for shard in range(first, first + segment.size) if shard not in segment.done]
        prefix = self._layout.markers_of_segment(number)
        infos = self._writer.listing(prefix)
        return sorted({keys.shard_of(info.key) for info in infos} - segment.done)

    def _parsed(self, shard: int, data: bytes) -> Marker:
        return Marker.from_bytes(data, self._layout.marker(shard))

    def _count(self, marker: Marker) -> None:
        self._shards_done += 1
        self._items += marker.items
        self._classes.update(marker.failure_classes)
        self._milliseconds += round(marker.seconds * 1000)
        self._stage_milliseconds.update({stage: round(each * 1000) for stage, each in marker.stage_seconds.items()})
        if marker.failures:
            numbered = ((marker.shard, place, sample) for place, sample in enumerate(marker.failures))
            self._samples = sorted([*self._samples, *numbered], key=lambda found: found[:2])[:MAX_SAMPLES]
