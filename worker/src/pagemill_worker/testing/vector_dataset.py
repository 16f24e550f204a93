"""A dataset of vectors as finalizing an EmbeddingJob leaves it, with rows that have neighbours.

Layer: `worker.testing`; for tests and benchmarks of whatever reads such a dataset.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pagemill_core.storage.store import ObjectStore
from pagemill_core.work.layout import dataset_part

FINGERPRINT = "f" * 64


def clustered(rows: int, dim: int, *, clusters: int = 50, spread: float = 0.35, seed: int = 0) -> NDArray[np.float32]:
    """Rows of length 1 in Gaussian clusters: uniform random ones would have no neighbours worth finding."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(clusters, dim)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    found = centres[rng.integers(clusters, size=rows)]
    found = found + rng.normal(size=(rows, dim)).astype(np.float32) * np.float32(spread / np.sqrt(dim))
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class MadePart:
    """One part to write. Rows whose id is in `failed` have no vector; `columns` are further columns by name."""

    ids: Sequence[str]
    vectors: NDArray[np.floating]
    seq: int = 1
    number: int = 0
    fingerprint: str = FINGERPRINT
    failed: frozenset[str] = frozenset()
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    metadata: Mapping[bytes, bytes] = field(default_factory=dict)
    first_row: int = 0


def write_vectors(store: ObjectStore, part: MadePart) -> str:
    """Write the part. Returns: its key."""
    count, dim = part.vectors.shape
    missing = np.asarray([item in part.failed for item in part.ids], np.bool_)
    element = pa.float16() if part.vectors.dtype == np.float16 else pa.float32()
    vectors = pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(part.vectors).reshape(-1), element), dim, mask=pa.array(missing)
    )
    given: dict[str, Any] = {
        "row": pa.array(np.arange(count) + part.first_row, pa.int64()),
        "id": pa.array(part.ids, pa.string()),
        "status": pa.array(np.where(missing, "failed", "succeeded").tolist(), pa.string()),
        "error_class": pa.array(["NotAnImage" if gone else None for gone in missing], pa.string()),
        "error_message": pa.array(["no picture" if gone else None for gone in missing], pa.string()),
        "source_uri": pa.array([f"s3://photos/{item}.jpg" for item in part.ids], pa.string()),
        "page": pa.nulls(count, pa.int32()),
        "version": pa.array(["v1"] * count, pa.string()),
        "key": pa.array(part.ids, pa.string()),
        "caption": pa.array([f"caption of {item}" for item in part.ids], pa.string()),
        "width_px": pa.array([640] * count, pa.int32()),
        "height_px": pa.array([480] * count, pa.int32()),
        "embedding": vectors,
    }
    given.update({name: pa.array(values) for name, values in part.columns.items()})
    metadata = {b"pagemill.fingerprint": part.fingerprint.encode(), **part.metadata}
    table = pa.table(given).replace_schema_metadata(metadata)
    key = dataset_part(part.seq, part.number)
    with tempfile.TemporaryDirectory(prefix="pagemill-") as folder:
        path = Path(folder) / "part.parquet"
        pq.write_table(
            table, path, compression="zstd", use_dictionary=False, write_statistics=False, row_group_size=5000
        )
        store.put_file(key, path)
    return key
