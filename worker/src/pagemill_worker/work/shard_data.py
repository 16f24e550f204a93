"""A shard's committed rows as Parquet: what attempts write, what views and the dataset are made from.

Layer: `worker.work`; pure bytes in and out. One file holds every planned item of the shard in row order, succeeded,
failed and skipped alike. The same rows give the same bytes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from pagemill_core.errors import IntegrityError
from pagemill_core.work.records import Counts, FailureSample
from pagemill_worker.items import ItemFailure, ItemResult, PlannedItem, Status

DATA_NAME = "items.parquet"
FINGERPRINT_META = b"pagemill.fingerprint"
MAX_FAILURES_IN_MARKER = 3
MAX_SAMPLE_CHARS = 200
MAX_CLASSES_IN_MARKER = 16
_TRACEBACK = re.compile(r"\(traceback ([0-9a-f]{12})\)\s*$")  # as `ocr.guard` ends its messages

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("page", pa.int32()),
        pa.field("size_bytes", pa.int64()),
        pa.field("version", pa.string()),
        pa.field("version_read", pa.string()),
        pa.field("columns", pa.string(), nullable=False),  # the source's own columns as JSON
        pa.field("status", pa.string(), nullable=False),
        pa.field("error_class", pa.string()),
        pa.field("error_message", pa.string()),
        pa.field("payload", pa.string()),  # the engine's result as JSON
        pa.field("seconds", pa.string(), nullable=False),  # seconds by stage as JSON
    ]
)


def encode(results: Iterable[ItemResult], fingerprint: str) -> bytes:
    """Rows in ascending `row` order as one Parquet file with the fingerprint in its footer."""
    ordered = sorted(results, key=lambda result: result.item.row)
    table = pa.Table.from_pylist([_to_row(result) for result in ordered], schema=SCHEMA)
    table = table.replace_schema_metadata({FINGERPRINT_META: fingerprint.encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", use_dictionary=False, write_statistics=False)
    return cast(bytes, sink.getvalue().to_pybytes())


def decode(data: bytes, fingerprint: str, key: str) -> list[ItemResult]:
    """The rows of a file that `encode` wrote.

    Raises: IntegrityError naming `key` when it is damaged, or was made with another fingerprint.
    """
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowInvalid, OSError) as error:
        raise IntegrityError(f"{key} cannot be read: {error}") from error
    found = (table.schema.metadata or {}).get(FINGERPRINT_META, b"").decode()
    if found != fingerprint:
        raise IntegrityError(f"{key} was made with fingerprint {found[:12]}, not {fingerprint[:12]}")
    return [_from_row(row) for row in table.to_pylist()]


def count(results: Sequence[ItemResult]) -> Counts:
    """How many rows there are, by state."""
    states = Counter(result.status for result in results)
    return Counts(
        planned=len(results), succeeded=states["succeeded"], failed=states["failed"], skipped=states["skipped"]
    )


def failure_classes(results: Iterable[ItemResult]) -> dict[str, int]:
    """Failed items by class; engine failures by class and traceback digest, so that one bug shows as one class."""
    counter = Counter(failure_class(result.failure) for result in results if result.failure is not None)
    common = dict(counter.most_common(MAX_CLASSES_IN_MARKER))
    rest = sum(counter.values()) - sum(common.values())
    return {**common, "Other": common.get("Other", 0) + rest} if rest else common


def failure_class(failure: ItemFailure) -> str:
    """The name a failure is counted under: its class, with the traceback's digest when the message ends in one."""
    found = _TRACEBACK.search(failure.message) if failure.error_class == "EngineFailed" else None
    return f"{failure.error_class}#{found[1]}" if found else failure.error_class


def failure_samples(results: Iterable[ItemResult]) -> list[FailureSample]:
    """The first failed items, shortened for a marker."""
    failed = [result for result in results if result.failure is not None][:MAX_FAILURES_IN_MARKER]
    return [
        FailureSample(
            item=result.item.id[:MAX_SAMPLE_CHARS],
            error_class=result.failure.error_class,
            message=result.failure.message[:MAX_SAMPLE_CHARS],
        )
        for result in failed
        if result.failure is not None
    ]


def _to_row(result: ItemResult) -> dict[str, Any]:
    item, failure = result.item, result.failure
    return {
        "row": item.row,
        "id": _storable(item.id),
        "uri": _storable(item.uri),
        "page": item.page,
        "size_bytes": item.size_bytes,
        "version": item.version,
        "version_read": result.version_read,
        "columns": _dump(item.columns),
        "status": result.status,
        "error_class": failure.error_class if failure else None,
        "error_message": _storable(failure.message) if failure else None,
        "payload": _dump(result.payload) if result.payload is not None else None,
        "seconds": _dump(result.seconds),
    }


def _from_row(row: Mapping[str, Any]) -> ItemResult:
    failure = ItemFailure(row["error_class"], row["error_message"] or "") if row["error_class"] else None
    return ItemResult(
        item=PlannedItem(
            row=row["row"],
            id=row["id"],
            uri=row["uri"],
            page=row["page"],
            size_bytes=row["size_bytes"],
            version=row["version"],
            columns=json.loads(row["columns"]),
            failure=failure if row["status"] == "failed" else None,
        ),
        status=cast(Status, row["status"]),
        payload=json.loads(row["payload"]) if row["payload"] is not None else None,
        failure=failure,
        seconds=json.loads(row["seconds"]),
        version_read=row["version_read"],
    )


def _dump(value: object) -> str:
    return _storable(json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False))


def _storable(text: str) -> str:
    """`text` without halves of surrogate pairs, which no UTF-8 file can hold; ids with one are refused at plan time."""
    return text.encode("utf-8", "replace").decode()
