"""The user-facing dataset of an OcrJob: every item, succeeded or not, one Parquet part a segment.

Layer: `worker.finalize`. Streams: one shard's rows in memory at a time.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pagemill_core.storage.store import ObjectStore
from pagemill_core.work.commit import crc32
from pagemill_core.work.records import OutputRef
from pagemill_worker.fetch.fetched import shown_uri
from pagemill_worker.items import ItemResult
from pagemill_worker.views.ocr_json import texts
from pagemill_worker.views.row import OcrRow, from_payload, real_confidence

META_PREFIX = "meta_"

_FIELDS = [
    pa.field("row", pa.int64(), nullable=False),
    pa.field("id", pa.string(), nullable=False),
    pa.field("status", pa.string(), nullable=False),
    pa.field("error_class", pa.string()),
    pa.field("error_message", pa.string()),
    pa.field("source_uri", pa.string(), nullable=False),
    pa.field("page", pa.int32()),
    pa.field("version", pa.string()),
    pa.field("text", pa.string()),
    pa.field("num_regions", pa.int32()),
    pa.field("mean_confidence", pa.float64()),
    pa.field("regions", pa.string()),  # JSON, as in the page's own file
    pa.field("width_px", pa.int32()),
    pa.field("height_px", pa.int32()),
    pa.field("engine", pa.string()),
    pa.field("engine_version", pa.string()),
    pa.field("languages", pa.list_(pa.string())),
    pa.field("finished_at", pa.timestamp("us", tz="UTC")),
]


def schema(columns: Sequence[str], fingerprint: str, *, has_notes: bool = False) -> pa.Schema:
    """The dataset's columns: fixed ones, `notes` where the job has stages of its own, then the source's own as
    `meta_<name>` strings."""
    notes = [pa.field("notes", pa.string())] if has_notes else []
    fields = [*_FIELDS, *notes, *(pa.field(META_PREFIX + name, pa.string()) for name in columns)]
    return pa.schema(fields, metadata={b"pagemill.fingerprint": fingerprint.encode()})


def write_part(
    store: ObjectStore, key: str, shards: Iterable[list[ItemResult]], table_schema: pa.Schema, columns: Sequence[str]
) -> OutputRef:
    """Write the rows of consecutive shards as one object. The same rows give the same bytes."""
    rows = 0
    with tempfile.TemporaryDirectory(prefix="pagemill-") as folder:
        path = Path(folder) / "part.parquet"
        with pq.ParquetWriter(path, table_schema, compression="zstd", use_dictionary=False) as writer:
            for results in shards:
                writer.write_table(pa.Table.from_pylist([_row(result, columns) for result in results], table_schema))
                rows += len(results)
        size, checksum = path.stat().st_size, _crc_of(path)
        token = store.put_file(key, path)
    return OutputRef(key=key, size=size, token=token, crc32=checksum, rows=rows)


def _crc_of(path: Path) -> str:
    return crc32(path.read_bytes())


def _row(result: ItemResult, columns: Sequence[str]) -> dict[str, Any]:
    item = result.item
    row: dict[str, Any] = {
        "row": item.row,
        "id": item.id,
        "status": result.status,
        "error_class": result.failure.error_class if result.failure else None,
        "error_message": result.failure.message if result.failure else None,
        "source_uri": shown_uri(item.uri),
        "page": item.page,
        "version": result.version_read or item.version,
        **{META_PREFIX + name: _text(item.columns.get(name)) for name in columns},
    }
    if result.payload is not None:
        row |= _page(from_payload(result.payload))
    return row


def _page(page: OcrRow) -> dict[str, Any]:
    given = (real_confidence(page, region) for region in page.regions)
    confidences = [confidence for confidence in given if confidence is not None]
    notes = page.metadata.get("stages")
    regions = [
        {
            "text": region.text,
            "confidence": real_confidence(page, region),
            "bbox": region.bbox,
            "polygon": region.polygon,
        }
        for region in page.regions
    ]
    return {
        "text": " ".join(texts(page)),
        "num_regions": len(page.regions),
        "mean_confidence": sum(confidences) / len(confidences) if confidences else None,
        "regions": json.dumps(regions, ensure_ascii=False, separators=(",", ":")),
        "width_px": page.width_px,
        "height_px": page.height_px,
        "engine": page.engine_name,
        "engine_version": page.engine_version,
        "languages": list(page.languages),
        "finished_at": page.finished_at,
        "notes": json.dumps(notes, ensure_ascii=False, sort_keys=True) if notes else None,
    }


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
