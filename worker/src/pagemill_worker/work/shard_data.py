"""A shard's committed rows as Parquet: what attempts write, what views and the dataset are made from.

Layer: `worker.work`; pure bytes in and out. One file holds every planned item of the shard in row order, succeeded,
failed and skipped alike. The same rows give the same bytes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
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
        pa.field("input", pa.string()),  # of failed items, for a retry; the plan has everybody's
        pa.field("data", pa.large_binary()),  # an encoder's rows
    ]
)


def encode(results: Iterable[ItemResult], fingerprint: str) -> bytes:
    """Rows in ascending `row` order as one Parquet file with the fingerprint in its footer."""
    ordered = sorted(results, key=lambda result: result.item.row)
    # A column at a time: a dict a row would cost ten times as much.
    columns = [
        pa.array([write(result) for result in ordered], SCHEMA.field(name).type) for name, write in _WRITERS.items()
    ]
    table = pa.Table.from_arrays(columns, schema=SCHEMA.with_metadata({FINGERPRINT_META: fingerprint.encode()}))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression=_COMPRESSION, use_dictionary=False, write_statistics=False)
    return cast(bytes, sink.getvalue().to_pybytes())


def decode(data: bytes, fingerprint: str, key: str, *, with_data: bool = True) -> list[ItemResult]:
    """The rows of a file that `encode` wrote; without `with_data` what encoders made is left out.

    Raises: as `read_table`.
    """
    table = read_table(data, fingerprint, key, SCHEMA.names if with_data else SCHEMA.names[:-1])
    columns = [table.column(name).to_pylist() for name in table.column_names]
    if not with_data:
        columns.append([None] * len(table))
    return [_from_row(row) for row in zip(*columns, strict=True)]


def read_table(data: bytes, fingerprint: str, key: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The columns of a file that `encode` wrote, as they lie there; all of SCHEMA, or the ones named.

    For readers of a million rows, which need not become objects each.
    Raises: IntegrityError naming `key` when it is damaged, or was made with another fingerprint.
    """
    wanted = SCHEMA if columns is None else pa.schema([SCHEMA.field(name) for name in columns])
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        there = [name for name in wanted.names if name in file.schema_arrow.names]
        table = file.read(columns=there, use_threads=False)
        for field in wanted:  # a column that releases before this one did not write is null
            if field.name not in there and field.nullable:
                table = table.append_column(field, pa.nulls(len(table), field.type))
        table = table.select(wanted.names)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise IntegrityError(f"{key} cannot be read: {error}") from error
    found = (file.schema_arrow.metadata or {}).get(FINGERPRINT_META, b"").decode()
    if found != fingerprint:
        raise IntegrityError(f"{key} was made with fingerprint {found[:12]}, not {fingerprint[:12]}")
    return table


def count(results: Sequence[ItemResult]) -> Counts:
    """How many rows there are, by state."""
    states = Counter(result.status for result in results)
    return Counts(
        planned=len(results), succeeded=states["succeeded"], failed=states["failed"], skipped=states["skipped"]
    )


def stage_seconds(results: Iterable[ItemResult]) -> dict[str, float]:
    """How long the items kept each stage busy, seconds with three decimals."""
    found: dict[str, float] = {}
    for result in results:
        for stage, each in result.seconds.items():
            found[stage] = found.get(stage, 0.0) + each
    return {stage: round(each, 3) for stage, each in sorted(found.items())}


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


def _from_row(row: tuple[Any, ...]) -> ItemResult:
    (number, item_id, uri, page, size_bytes, version, version_read, columns, status) = row[:9]
    (error_class, error_message, payload, seconds, given, data) = row[9:]
    failure = ItemFailure(error_class, error_message or "") if error_class else None
    return ItemResult(
        item=PlannedItem(
            row=number,
            id=item_id,
            uri=uri,
            page=page,
            size_bytes=size_bytes,
            version=version,
            columns=_load(columns),
            failure=failure if status == "failed" else None,
            input=_load(given),
        ),
        status=cast(Status, status),
        payload=None if payload is None else json.loads(payload),
        failure=failure,
        seconds=_load(seconds),
        version_read=version_read,
        data=data,
    )


def _load(text: str | None) -> dict[str, Any]:
    if text is None or text == "{}":
        return {}
    loaded: dict[str, Any] = json.loads(text)
    return loaded


_encode_json = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def _dump(value: object) -> str:
    return _storable(_encode_json(value)) if value else "{}"


def _storable(text: str) -> str:
    """`text` without halves of surrogate pairs, which no UTF-8 file can hold; ids with one are refused at plan time."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _input_of(result: ItemResult) -> str | None:
    return _dump(result.item.input) if result.failure and result.item.input else None


# By the names of SCHEMA and in its order.
_WRITERS: dict[str, Callable[[ItemResult], object]] = {
    "row": lambda result: result.item.row,
    "id": lambda result: _storable(result.item.id),
    "uri": lambda result: _storable(result.item.uri),
    "page": lambda result: result.item.page,
    "size_bytes": lambda result: result.item.size_bytes,
    "version": lambda result: result.item.version,
    "version_read": lambda result: result.version_read,
    "columns": lambda result: _dump(result.item.columns),
    "status": lambda result: result.status,
    "error_class": lambda result: result.failure.error_class if result.failure else None,
    "error_message": lambda result: _storable(result.failure.message) if result.failure else None,
    "payload": lambda result: None if result.payload is None else _dump(result.payload),
    "seconds": lambda result: _dump(result.seconds),
    "input": _input_of,
    "data": lambda result: result.data,
}
# Vectors do not compress, and trying costs more than everything else here.
_COMPRESSION = {name: "none" if name == "data" else "zstd" for name in SCHEMA.names}
