"""Committing a shard: one marker, created once, after its outputs are in place.

Layer: `core.work`. Compute is at-least-once; this module is why results are exactly-once.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from pagemill_core.errors import IntegrityError
from pagemill_core.work.conditional import Writer, create_once
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.records import Marker, OutputRef

MAX_MARKER_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Committed:
    """The marker that counts, ours when `won`, else the one that was there first."""

    won: bool
    marker: Marker


def crc32(data: bytes) -> str:
    """CRC-32 (zlib's polynomial) as eight hexadecimal digits."""
    return f"{zlib.crc32(data):08x}"


def put_output(
    writer: Writer, layout: RunLayout, marker_key: tuple[int, str, str], data: bytes, rows: int
) -> OutputRef:
    """Write one output of an attempt under the attempt's own prefix; `marker_key` is (shard, attempt, name).

    Nothing else ever writes that key, so repeating the call is safe.
    """
    key = layout.data(*marker_key)
    token = writer.put(key, data)
    return OutputRef(key=key, size=len(data), token=token, crc32=crc32(data), rows=rows)


def commit(writer: Writer, layout: RunLayout, marker: Marker) -> Committed:
    """Create the shard's marker, or learn whose it is. The moment this returns, the shard is done.

    Raises: IntegrityError when the marker's counts do not add up or it is over 4 KB, before anything is written.
    """
    if not marker.items.add_up():
        counts = marker.items
        raise IntegrityError(
            f"shard {marker.shard}: {counts.planned} planned items, but {counts.succeeded} succeeded, "
            f"{counts.failed} failed and {counts.skipped} skipped",
            advice="this is a bug: nothing was committed; please report it with the worker's log",
        )
    body = marker.to_bytes()
    if len(body) > MAX_MARKER_BYTES:
        raise IntegrityError(f"shard {marker.shard}: the marker has {len(body)} bytes, {MAX_MARKER_BYTES} are allowed")
    key = layout.marker(marker.shard)
    created = create_once(writer, key, body, lambda data: Marker.from_bytes(data, key).attempt == marker.attempt)
    return Committed(created.won, marker if created.won else Marker.from_bytes(created.data, key))


def read_marker(writer: Writer, layout: RunLayout, shard: int) -> Marker | None:
    """The shard's marker, None while it is not done."""
    blob = writer.get(layout.marker(shard))
    return None if blob is None else Marker.from_bytes(blob.data, layout.marker(shard))


def read_output(writer: Writer, output: OutputRef) -> bytes:
    """A committed output, checked against its marker. Raises: IntegrityError when it is gone or damaged."""
    blob = writer.get(output.key)
    if blob is None:
        raise IntegrityError(f"{output.key} is named by a marker, but is gone")
    if len(blob.data) != output.size or crc32(blob.data) != output.crc32:
        raise IntegrityError(f"{output.key} does not match its marker: {len(blob.data)} bytes, crc {crc32(blob.data)}")
    return blob.data
