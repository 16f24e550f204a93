"""Publishing: user-facing files, written from committed data only, so that repeating it is harmless.

Layer: `core.work`. A view's key does not name the run, so runs on one output follow each other on it: the run's
sequence number travels with the object, and a view only ever moves upwards.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pagemill_core.errors import StoreUnavailableError
from pagemill_core.storage.store import ObjectInfo
from pagemill_core.work.commit import crc32
from pagemill_core.work.conditional import UNDECIDED, Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.records import PublishedRecord, PublishedView

META_SEQ = "pagemill-seq"
META_CRC32 = "pagemill-crc32"


@dataclass(frozen=True, slots=True)
class View:
    """A user-facing file: its key below the output and its bytes, a pure function of committed data."""

    key: str
    data: bytes


def publish_view(writer: Writer, view: View, seq: int) -> bool:
    """Write `view` unless a newer run's is there. Returns: whether ours (or the same bytes of ours) is what stays.

    Absent: created. Of this or an older run: replaced while unchanged. Of a newer run: left alone. A file that
    Pagemill did not write counts as older than every run.
    """
    backoff = writer.backoff()
    meta = {META_SEQ: str(seq), META_CRC32: crc32(view.data)}
    while True:
        try:
            if writer.store.put_if_absent(view.key, view.data, meta=meta) is not None:
                return True
            info = writer.store.head(view.key)
            if info is None:
                raise StoreUnavailableError(f"{view.key} exists and is not there: it was deleted meanwhile")
            there = _seq_of(info)
            if there > seq:
                return False
            if there == seq and info.meta.get(META_CRC32) == meta[META_CRC32] and info.size == len(view.data):
                return True
            if writer.store.put_if_match(view.key, view.data, info.token, meta=meta) is not None:
                return True
        except UNDECIDED as error:
            backoff.wait(error)


def _seq_of(info: ObjectInfo) -> int:
    """The run whose view this is, 0 for a file that Pagemill did not write."""
    text = info.meta.get(META_SEQ, "")
    return int(text) if text.isdecimal() and text.isascii() else 0


def publish_shard(writer: Writer, layout: RunLayout, shard: int, views: Iterable[View]) -> PublishedRecord:
    """Write all views of a committed shard, then the record that they are written."""
    written = []
    for view in views:
        publish_view(writer, view, layout.seq)
        written.append(PublishedView(key=view.key, size=len(view.data), crc32=crc32(view.data)))
    record = PublishedRecord(shard=shard, seq=layout.seq, views=written)
    writer.put(layout.published(shard), record.to_bytes())
    return record


def read_published(writer: Writer, layout: RunLayout, shard: int) -> PublishedRecord | None:
    """The views of a shard as they were written, None while they are not all there."""
    key = layout.published(shard)
    blob = writer.get(key)
    return None if blob is None else PublishedRecord.from_bytes(blob.data, key)
