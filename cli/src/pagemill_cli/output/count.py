"""Counting a run's markers without writing anything, unlike the tracker of whoever drives the run.

Layer: `cli.output`. Each marker is read once, however often `poll` is called.
"""

from __future__ import annotations

from collections import Counter, deque

from pagemill_core.clock import from_iso
from pagemill_core.work import layout as keys
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.records import Counts, FailureSample, Marker, Totals
from pagemill_core.work.rollup import folded_segments, read_rollup

MAX_SAMPLES = 20
RATE_WINDOW_S = 600.0
KEPT_FINISHES = 10_000  # arbitrary; enough for ten minutes of any run


class MarkerCount:
    """The count of one run, by whoever looks at it."""

    def __init__(self, writer: Writer, layout: RunLayout, shard_count: int) -> None:
        self._writer = writer
        self._layout = layout
        self._shard_count = shard_count
        self._done: dict[int, set[int]] = {}
        self._items = Counts()
        self._classes: Counter[str] = Counter()
        self._samples: list[FailureSample] = []
        self._seconds = 0.0
        self._shards = 0
        self._finishes: deque[tuple[float, int]] = deque(maxlen=KEPT_FINISHES)

    def poll(self) -> Totals:
        """Read what is new."""
        folded = folded_segments(self._writer, self._layout)
        for segment in range(-(-self._shard_count // keys.SEGMENT_SHARDS)):
            done = self._done.setdefault(segment, set())
            if len(done) < min(keys.SEGMENT_SHARDS, self._shard_count - segment * keys.SEGMENT_SHARDS):
                self._look(segment, done, folded)
        return Totals(
            shards=self._shard_count,
            shards_done=self._shards,
            items=self._items,
            failure_classes=dict(sorted(self._classes.items())),
            failures=self._samples,
            seconds=round(self._seconds, 3),
        )

    @property
    def rate(self) -> float:
        """Items a second that were committed over the last ten minutes of work seen."""
        if not self._finishes:
            return 0.0
        newest = max(at for at, _ in self._finishes)
        recent = [(at, items) for at, items in self._finishes if at > newest - RATE_WINDOW_S]
        span = newest - min(at for at, _ in recent)
        return sum(items for _, items in recent) / span if span > 0 else 0.0

    def _look(self, segment: int, done: set[int], folded: set[int]) -> None:
        markers = read_rollup(self._writer, self._layout, segment) if segment in folded else None
        for marker in markers if markers is not None else self._new_markers(segment, done):
            if marker.shard not in done:
                done.add(marker.shard)
                self._add(marker)

    def _new_markers(self, segment: int, done: set[int]) -> list[Marker]:
        infos = self._writer.listing(self._layout.markers_of_segment(segment))
        new = sorted(info.key for info in infos if keys.shard_of(info.key) not in done)
        blobs = ((key, self._writer.get(key)) for key in new)
        return [Marker.from_bytes(blob.data, key) for key, blob in blobs if blob is not None]

    def _add(self, marker: Marker) -> None:
        self._shards += 1
        self._items += marker.items
        self._classes.update(marker.failure_classes)
        self._seconds += marker.seconds
        self._samples += marker.failures[: MAX_SAMPLES - len(self._samples)]
        self._finishes.append((from_iso(marker.finished).timestamp(), marker.items.planned))
