"""Rows as single files: Parquet with all columns, or a NumPy matrix with its ids beside it.

Layer: `worker.export`. Written to a temporary file first, so that the destination is the old file or the new one.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pagemill_core.storage.open import open_store, split_uri
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_worker.export.rows import Exported, ExportRows

IDS_SUFFIX = ".ids.json"


def export_to_parquet(rows: ExportRows, uri: str, s3: S3Settings, scratch: Path) -> Exported:
    """Write one Parquet file, locally or to s3://."""
    started = time.monotonic()
    path, count = scratch / "rows.parquet", 0
    with pq.ParquetWriter(path, rows.schema, compression="zstd", use_dictionary=False) as writer:
        for batch in rows.batches():
            writer.write_batch(batch)
            count += batch.num_rows
    _put(uri, path, s3)
    return Exported(uri, count, rows.dim, round(time.monotonic() - started, 2))


def export_to_numpy(rows: ExportRows, uri: str, s3: S3Settings, scratch: Path) -> Exported:
    """Write `<name>.npy`, float32 of shape (rows, dim), and `<name>.ids.json`, the list of ids in the same order.

    The ids are written first; as long as both files say as many rows, they belong together.
    """
    started = time.monotonic()
    raw, ids = scratch / "rows.f32", []
    with raw.open("wb") as file:
        for columns, vectors in rows.pairs():
            ids += [row["id"] for row in columns]
            file.write(np.ascontiguousarray(vectors, "<f4").tobytes())
    matrix = scratch / "rows.npy"
    shape = (len(ids), rows.dim)
    if ids:
        target = np.lib.format.open_memmap(matrix, "w+", np.dtype("<f4"), shape)  # type: ignore[no-untyped-call]
        target[:] = np.memmap(raw, "<f4", "r", shape=shape)
        target.flush()
    else:
        np.save(matrix, np.empty(shape, np.float32))
    names = scratch / "ids.json"
    names.write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    _put(uri.removesuffix(".npy") + IDS_SUFFIX, names, s3)
    _put(uri, matrix, s3)
    return Exported(uri, len(ids), rows.dim, round(time.monotonic() - started, 2))


def _put(uri: str, path: Path, s3: S3Settings) -> None:
    root, key = split_uri(uri)
    open_store(root, s3).put_file(key, path)
