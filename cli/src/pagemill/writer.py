"""Tables of vectors and their metadata, written as a run writes them.

Layer: `pagemill`. For vectors that were made elsewhere, or rows of a run that were worked on.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pagemill_cli.output.target import bare_s3
from pagemill_cli.settings import read_settings
from pagemill_core.errors import InvalidSpecError
from pagemill_core.storage.open import open_store, split_uri
from pagemill_core.storage.store import ObjectStore
from pagemill_worker.finalize.part_file import write_tables

BATCH_ROWS = 4096
_TEXTS = ("url", "key", "caption")


def write_parquet(rows: Iterable[Mapping[str, Any]], uri: str) -> int:
    """Write rows as one Parquet file, streaming: `url, key, caption, embedding`, and what else a row has as `meta_…`.

    `embedding` is a sequence or a vector of numbers, the same length in every row; missing texts are empty. The columns
    are those of the first 4,096 rows. `uri`: a path or s3://…; never seen half. Returns: the number of rows.
    Raises: InvalidSpecError for rows of different lengths.
    """
    source = iter(rows)
    first = list(islice(source, BATCH_ROWS))
    schema = _table(first, None).schema
    store, key = _place(uri)
    with tempfile.TemporaryDirectory(prefix="pagemill-") as folder:
        path = Path(folder) / "table.parquet"
        count = write_tables(path, _tables(first, source, schema), schema)
        store.put_file(key, path)
    return count


def write_json(metadata: Mapping[str, Any], uri: str) -> None:
    """Write `metadata` as indented UTF-8 JSON to a path or s3://…"""
    store, key = _place(uri)
    text = json.dumps(metadata, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
    store.put(key, f"{text}\n".encode())


def _tables(first: list[Mapping[str, Any]], rest: Iterator[Mapping[str, Any]], schema: pa.Schema) -> Iterator[pa.Table]:
    batch = first
    while batch:
        yield _table(batch, schema)
        batch = list(islice(rest, BATCH_ROWS))


def _table(rows: list[Mapping[str, Any]], schema: pa.Schema | None) -> pa.Table:
    columns: dict[str, Any] = {name: pa.array([row.get(name, "") for row in rows], pa.string()) for name in _TEXTS}
    columns["embedding"] = _vectors(rows)
    own = ("embedding", *_TEXTS)
    names = schema.names if schema is not None else list(dict.fromkeys(_meta(name) for row in rows for name in row
                                                                        if name not in own))  # fmt: skip
    for name in names:
        if name not in columns:
            values = [row.get(name, row.get(name.removeprefix("meta_"))) for row in rows]
            columns[name] = pa.array(values, schema.field(name).type if schema is not None else None)
    table = pa.table(columns)
    return table if schema is None else table.select(schema.names).cast(schema)


def _meta(name: str) -> str:
    return name if name.startswith("meta_") else f"meta_{name}"


def _vectors(rows: list[Mapping[str, Any]]) -> pa.Array:
    if not rows:
        return pa.array([], pa.list_(pa.float32()))
    try:
        matrix = np.array([row["embedding"] for row in rows], np.float32)
    except (KeyError, ValueError) as error:
        raise InvalidSpecError("every row needs an `embedding` of one and the same length") from error
    offsets = pa.array(np.arange(len(matrix) + 1, dtype=np.int32) * matrix.shape[1])
    return pa.ListArray.from_arrays(offsets, pa.array(matrix.reshape(-1)))


def _place(uri: str) -> tuple[ObjectStore, str]:
    whole = uri if "://" in uri else str(Path(uri).absolute())
    root, key = split_uri(whole)
    if not key:
        raise InvalidSpecError(f"{uri} names no file")
    return open_store(root, bare_s3(read_settings())), key


def _plain(value: object) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"JSON cannot say a {type(value).__name__}")
