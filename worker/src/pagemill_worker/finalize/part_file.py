"""One Parquet object, written row group by row group through a local file, so that no table need fit in memory.

Layer: `worker.finalize`, its bottom; knows no kind of job. The same tables in the same order give the same bytes.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pagemill_core.storage.store import ObjectStore
from pagemill_core.work.publish import META_CRC32
from pagemill_core.work.records import OutputRef

T = TypeVar("T")
GROUP_BYTES = 16 << 20  # arbitrary; readers that stream hold one group
_CHUNK_BYTES = 8 << 20


def write_parquet(
    store: ObjectStore,
    key: str,
    tables: Iterable[pa.Table],
    schema: pa.Schema,
    marks: Mapping[str, str] | None = None,
) -> OutputRef:
    """Write `tables` one after the other as the object `key`, never seen half.

    Columns of vectors have neither dictionary nor statistics. `marks` become the object's metadata, its checksum beside
    them.
    """
    with tempfile.TemporaryDirectory(prefix="pagemill-") as folder:
        path = Path(folder) / "part.parquet"
        rows = write_tables(path, tables, schema, packs_vectors=True)
        checksum = crc32_of(path)
        token = store.put_file(key, path, meta={**marks, META_CRC32: checksum} if marks else None)
        return OutputRef(key=key, size=path.stat().st_size, token=token, crc32=checksum, rows=rows)


def ahead(tables: Iterable[T]) -> Iterator[T]:
    """The same, one made in a thread while the one before it is used: reading and compressing take a core each."""
    source = iter(tables)
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as executor:
        following = executor.submit(_next, source)
        while (found := following.result()) is not None:
            following = executor.submit(_next, source)
            yield found[0]


def _next(source: Iterator[T]) -> tuple[T] | None:
    for one in source:
        return (one,)
    return None


def crc32_of(path: Path) -> str:
    """CRC-32 of a file as eight hexadecimal digits, as `core.work.commit.crc32` gives it of bytes."""
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            checksum = zlib.crc32(chunk, checksum)
    return f"{checksum:08x}"


def is_vector(kind: pa.DataType) -> bool:
    """Whether a column holds rows of an encoder."""
    return bool(pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind))


def write_tables(path: Path, tables: Iterable[pa.Table], schema: pa.Schema, *, packs_vectors: bool = False) -> int:
    """Write `tables` as one local file. Returns: the number of rows.

    `packs_vectors`: numbers are compressed too, which saves a twelfth of the space and costs half of the time.
    """
    plain = [field.name for field in schema if not is_vector(field.type)]
    statistics = [name for name in plain if name in ("row", "id")] or False
    compression = "zstd" if packs_vectors else dict.fromkeys(plain, "zstd")
    rows, held, held_bytes = 0, list[pa.Table](), 0
    with pq.ParquetWriter(
        path, schema, compression=compression, use_dictionary=plain or False, write_statistics=statistics
    ) as writer:
        for table in ahead(tables):
            held.append(table)
            held_bytes += table.nbytes
            rows += len(table)
            if held_bytes >= GROUP_BYTES:
                writer.write_table(pa.concat_tables(held))
                held, held_bytes = [], 0
        if held:
            writer.write_table(pa.concat_tables(held))
    return rows
