"""A whole-run file of any size, published by the rule of views: only ever upwards, never seen half.

Layer: `worker.finalize`. What fits into memory is written conditionally, as a view is. A larger file goes up in parts,
and stores take those without a condition: then the rule is kept by looking first. Two finalizers of different runs are
at work on one output only when one of them slept through the end of its run, so the gap is small; `pagemill verify`
sees it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pagemill_core.work.conditional import Writer
from pagemill_core.work.publish import META_CRC32, META_SEQ, View, publish_view
from pagemill_worker.finalize.part_file import crc32_of

CONDITIONAL_BYTES = 64 << 20


def publish_file(writer: Writer, key: str, path: Path, seq: int, *, max_conditional: int = CONDITIONAL_BYTES) -> bool:
    """Write the file as `key` unless a newer run's is there. Returns: whether ours is what stays."""
    size = path.stat().st_size
    if size <= max_conditional:
        return publish_view(writer, View(key, path.read_bytes()), seq)
    checksum = crc32_of(path)
    info = writer.retrying(lambda: writer.store.head(key))
    if info is not None and shown_seq(info.meta) > seq:
        return False
    if info is not None and (shown_seq(info.meta), info.meta.get(META_CRC32), info.size) == (seq, checksum, size):
        return True
    meta = {META_SEQ: str(seq), META_CRC32: checksum}
    writer.retrying(lambda: writer.store.put_file(key, path, meta=meta))
    return True


def shown_seq(meta: Mapping[str, str]) -> int:
    """The run that an object with this metadata shows, 0 for one that Pagemill did not write."""
    text = meta.get(META_SEQ, "")
    return int(text) if text.isdecimal() and text.isascii() else 0
