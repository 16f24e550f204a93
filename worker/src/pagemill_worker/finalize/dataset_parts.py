"""The dataset's parts of all runs on an output, read by columns and row groups, never as a whole.

Layer: `worker.finalize`. The dataset is a function of committed data and is written before everything that needs the
whole run, so whoever merges reads it and not a thousand shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pagemill_core.errors import IntegrityError
from pagemill_core.storage.store import ObjectStore
from pagemill_core.work import layout as keys
from pagemill_core.work.conditional import Writer
from pagemill_core.work.ledger import COLLECTED
from pagemill_core.work.records import RunEntry
from pagemill_worker.plan.source_bytes import RangeFile, StoreBytes

DATASET_PREFIX = "dataset/"


@dataclass(frozen=True, slots=True)
class DatasetPart:
    """One part: of which run, which segment, where, how large."""

    seq: int
    segment: int
    key: str
    size: int
    token: str


def dataset_parts(writer: Writer, *, up_to: int | None = None) -> list[DatasetPart]:
    """The parts of every run that was not collected, oldest first; `up_to` leaves newer runs out."""
    found = []
    for info in writer.listing(DATASET_PREFIX):
        part = _parsed(info.key)
        if part is not None and (up_to is None or part[0] <= up_to):
            found.append(DatasetPart(*part, info.key, info.size, info.token))
    collected = {seq for seq in {part.seq for part in found} if _is_collected(writer, seq)}
    return sorted((part for part in found if part.seq not in collected), key=lambda part: (part.seq, part.segment))


@contextmanager
def open_part(store: ObjectStore, part: DatasetPart) -> Iterator[pq.ParquetFile]:
    """The part as a Parquet file whose columns are fetched as they are asked for.

    Raises: IntegrityError when it is gone or no Parquet file.
    """
    with closing(StoreBytes(store, part.key, part.key)) as source:
        try:
            file = pq.ParquetFile(RangeFile(source))
        except (pa.ArrowException, OSError) as error:
            raise IntegrityError(
                f"{part.key} cannot be read: {error}", advice="make it again: pagemill verify --repair"
            ) from error
        yield file


def fingerprint_of(file: pq.ParquetFile) -> str:
    """The fingerprint in a part's footer."""
    return str((file.schema_arrow.metadata or {}).get(b"pagemill.fingerprint", b"").decode())


def column_tables(store: ObjectStore, part: DatasetPart, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The named columns of a part, those of them that it has, one row group at a time."""
    with open_part(store, part) as file:
        there = [name for name in columns if name in file.schema_arrow.names]
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=there, use_threads=False)


def _parsed(key: str) -> tuple[int, int] | None:
    run, _, name = key.removeprefix(f"{DATASET_PREFIX}run=").partition("/part-")
    segment = name.removesuffix(".parquet")
    if not (run.isdecimal() and segment.isdecimal()) or keys.dataset_part(int(run), int(segment)) != key:
        return None
    return int(run), int(segment)


def _is_collected(writer: Writer, seq: int) -> bool:
    blob = writer.get(keys.run_entry(seq))
    return blob is not None and RunEntry.from_bytes(blob.data, keys.run_entry(seq)).reason == COLLECTED
