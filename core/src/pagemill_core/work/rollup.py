"""Rollups: the markers of one full segment in one object, read with one call and without pyarrow.

Layer: `core.work`. A rollup is written only when all of its segment's markers exist; since markers never change, its
content is a pure function of them, and whoever writes it first is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import zstandard

from pagemill_core.work.conditional import Writer, create_once
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.records import Marker


def write_rollup(writer: Writer, layout: RunLayout, segment: int, markers: Iterable[Marker]) -> None:
    """Fold the markers of a full segment, as JSON lines ordered by shard, zstd."""
    lines = b"".join(marker.to_bytes() + b"\n" for marker in sorted(markers, key=lambda marker: marker.shard))
    create_once(writer, layout.rollup(segment), zstandard.compress(lines), lambda _: True)


def read_rollup(writer: Writer, layout: RunLayout, segment: int) -> list[Marker] | None:
    """The markers of a folded segment by shard, None while it is not folded."""
    key = layout.rollup(segment)
    blob = writer.get(key)
    if blob is None:
        return None
    lines = zstandard.decompress(blob.data).splitlines()
    return [Marker.from_bytes(line, key) for line in lines]


def folded_segments(writer: Writer, layout: RunLayout) -> set[int]:
    """Which segments have a rollup."""
    infos = writer.listing(layout.rollup_prefix)
    return {int(info.key.removeprefix(layout.rollup_prefix).split(".")[0]) for info in infos}


def segment_markers(writer: Writer, layout: RunLayout, segment: int) -> Iterator[Marker]:
    """The markers that a segment has now, by shard, from its rollup when there is one."""
    folded = read_rollup(writer, layout, segment)
    if folded is not None:
        yield from folded
        return
    infos = writer.listing(layout.markers_of_segment(segment))
    for key in sorted(info.key for info in infos):
        blob = writer.get(key)
        if blob is not None:
            yield Marker.from_bytes(blob.data, key)
