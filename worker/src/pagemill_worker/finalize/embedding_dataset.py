"""The user-facing dataset of an EmbeddingJob: every item with its status, those that succeeded with their vectors.

Layer: `worker.finalize`. Works on columns: a row becomes Python objects only for its JSON, its numbers never do. An
item of books becomes one row a page; `row` is the plan's row, so all pages of a book share it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pagemill_core.errors import IntegrityError
from pagemill_worker.embed.rows import unpack
from pagemill_worker.fetch.fetched import shown_uri
from pagemill_worker.finalize.embedding_vectors import SideFacts, VectorColumn, vector_field
from pagemill_worker.finalize.label_columns import label_fields, label_values
from pagemill_worker.finalize.part_file import GROUP_BYTES
from pagemill_worker.views.vectors import check_rows

META_PREFIX = "meta_"
NOTES = "notes"
OWN_COLUMNS = ("key", "caption")  # of the source; they keep their names
NEEDED = (
    "row", "id", "uri", "page", "version", "version_read", "columns", "status",
    "error_class", "error_message", "payload", "data",
)  # fmt: skip
_META_TYPES: Mapping[str, pa.DataType] = {
    "int64": pa.int64(), "uint64": pa.uint64(), "double": pa.float64(), "bool": pa.bool_(), "string": pa.string(),
}  # fmt: skip
_HEAD = [
    pa.field("row", pa.int64(), nullable=False),
    pa.field("id", pa.string(), nullable=False),
    pa.field("status", pa.string(), nullable=False),
    pa.field("error_class", pa.string()),
    pa.field("error_message", pa.string()),
    pa.field("source_uri", pa.string(), nullable=False),
    pa.field("page", pa.int32()),
    pa.field("version", pa.string()),
    pa.field("key", pa.string()),
    pa.field("caption", pa.string()),
    pa.field("width_px", pa.int32()),
    pa.field("height_px", pa.int32()),
    pa.field("tokens", pa.int32()),
    pa.field("truncated", pa.bool_()),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetShape:
    """What decides a dataset's columns.

    `sides` are the encoders', in the order visual, text; none where nothing of the run succeeded. `columns` maps the
    source's own columns to their types. `has_urls`: the source names pictures by a column `url`, which is kept
    verbatim, while `source_uri` is without what may be a signature. `labels` are those of a job that classifies pages.
    `has_notes`: the job has stages of its own, and what they noted is a column of JSON.
    """

    sides: tuple[SideFacts, ...]
    columns: Mapping[str, str]
    fingerprint: str
    has_books: bool = False
    has_urls: bool = False
    labels: tuple[str, ...] = ()
    has_notes: bool = False

    @property
    def vector_names(self) -> list[str]:
        """The columns of the sides: the first is `embedding`, a second one `text_embedding`."""
        return ["embedding", "text_embedding"][: len(self.sides)]

    @property
    def meta_types(self) -> dict[str, pa.DataType]:
        """The source's further columns, as they are typed in the dataset."""
        given = {name: kind for name, kind in self.columns.items() if name not in OWN_COLUMNS}
        return {name: _META_TYPES.get(kind, pa.string()) for name, kind in given.items()}

    @property
    def schema(self) -> pa.Schema:
        fields = [*_HEAD, *([pa.field("book", pa.string())] if self.has_books else [])]
        fields += [pa.field("url", pa.string())] if self.has_urls else []
        fields += [pa.field(NOTES, pa.string())] if self.has_notes else []
        fields += [vector_field(name, side) for name, side in zip(self.vector_names, self.sides, strict=True)]
        fields += label_fields(self.labels)
        if not self.sides and not self.labels:  # nothing succeeded, so nobody knows the rows' length
            fields.append(pa.field("embedding", pa.list_(pa.float32())))
        fields += [pa.field(META_PREFIX + name, kind) for name, kind in self.meta_types.items()]
        return pa.schema(fields, metadata={b"pagemill.fingerprint": self.fingerprint.encode()})


def dataset_tables(shards: Iterable[pa.Table], shape: DatasetShape) -> Iterator[pa.Table]:
    """The dataset's rows of committed shards, a table or more a shard; `shards` have the columns NEEDED.

    Raises: IntegrityError for a success whose vectors are missing, of another shape, all zero, not finite, or not of
    length 1 where they should be.
    """
    for shard in shards:
        if not shape.has_books:
            yield _item_rows(shard, shape)
            continue
        for books in _slices(shard):
            yield _book_rows(books, shape)


def side_facts(payloads: Iterable[str | None], unit_sides: Iterable[str]) -> tuple[SideFacts, ...]:
    """What the first payload that has rows says of them; nothing when none has."""
    for text in payloads:
        facts: dict[str, Any] = json.loads(text).get("rows", {}) if text else {}
        if facts:
            unit = set(unit_sides)
            ordered = [side for side in ("visual", "text") if side in facts]
            return tuple(SideFacts(side, facts[side]["dim"], facts[side]["dtype"], side in unit) for side in ordered)
    return ()


# -- one row an item --------------------------------------------------------------------------------------------------


def _item_rows(shard: pa.Table, shape: DatasetShape) -> pa.Table:
    payloads = [payload or {} for payload in _parsed(shard.column("payload"))]
    own = _parsed(shard.column("columns"))
    succeeded = pc.equal(shard.column("status"), "succeeded").to_numpy()
    ids = shard.column("id")
    columns: dict[str, Any] = {
        "row": shard.column("row"),
        "id": ids,
        "status": shard.column("status"),
        "error_class": shard.column("error_class"),
        "error_message": shard.column("error_message"),
        "source_uri": _shown(shard.column("uri")),
        "url": shard.column("uri"),
        "page": shard.column("page"),
        "version": pc.coalesce(shard.column("version_read"), shard.column("version")),
        "width_px": _values([payload.get("width") for payload in payloads], pa.int32(), "width_px"),
        "height_px": _values([payload.get("height") for payload in payloads], pa.int32(), "height_px"),
        "tokens": _values([payload.get("tokens") for payload in payloads], pa.int32(), "tokens"),
        "truncated": _values([payload.get("truncated") for payload in payloads], pa.bool_(), "truncated"),
        NOTES: pa.array([_notes(payload) for payload in payloads], pa.string()),
        **_own(own, shape),
    }
    for number, payload in enumerate(payloads):
        if succeeded[number]:
            _check_facts(payload.get("rows"), shape, ids[number])
    packed = _packed(shard.column("data"), succeeded, shape, ids)
    for name, side, rows in zip(shape.vector_names, shape.sides, packed, strict=True):
        columns[name] = VectorColumn(side).array(rows, succeeded)
        _check(rows, side, ids.filter(pa.array(succeeded)))
    return _table(columns, shape, len(shard))


def _packed(
    data: pa.ChunkedArray, succeeded: NDArray[np.bool_], shape: DatasetShape, ids: pa.ChunkedArray
) -> list[NDArray[Any]]:
    """The sides' matrices of a shard, one row for each success, cut out of the column's own bytes."""
    count, want = int(succeeded.sum()), sum(side.row_bytes for side in shape.sides)
    array = data.filter(pa.array(succeeded)).combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) and array.num_chunks else array
    lengths = pc.fill_null(pc.binary_length(array), 0).to_numpy(zero_copy_only=False)
    if count and (lengths != want).any():
        at = int(np.argmax(lengths != want))
        name = ids.filter(pa.array(succeeded))[at]
        raise IntegrityError(f"{name}: {lengths[at]} bytes do not hold the rows they should, which take {want}")
    if not count:
        return [np.empty((0, side.dim), side.dtype) for side in shape.sides]
    offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset :]
    raw = np.frombuffer(array.buffers()[2], np.uint8)[offsets[0] : offsets[0] + count * want].reshape(count, want)
    found: dict[str, NDArray[Any]] = {}
    at = 0
    for side in sorted(shape.sides, key=lambda side: side.side):  # as `embed.rows.pack` lays them out
        cut = np.ascontiguousarray(raw[:, at : at + side.row_bytes])
        found[side.side] = cut.view(np.dtype(side.dtype).newbyteorder("<")).astype(side.dtype, copy=False)
        at += side.row_bytes
    return [found[side.side] for side in shape.sides]


def _check(rows: NDArray[Any], side: SideFacts, names: pa.ChunkedArray) -> None:
    if len(rows):
        check_rows(rows, f"{side.side} rows of {names[0]} and the {len(rows) - 1} after it", is_unit=side.is_unit)


def _check_facts(facts: Mapping[str, Any] | None, shape: DatasetShape, name: object) -> None:
    for side in shape.sides:
        given = (facts or {}).get(side.side)
        if given != {"rows": 1, "dim": side.dim, "dtype": side.dtype}:
            raise IntegrityError(f"{name}: its {side.side} row is {given}, others have {side.dim} {side.dtype}")
    if len(facts or {}) != len(shape.sides):
        raise IntegrityError(f"{name}: it has rows of {', '.join(sorted(facts or {}))}, others do not")


# -- one row a page ---------------------------------------------------------------------------------------------------


def _book_rows(shard: pa.Table, shape: DatasetShape) -> pa.Table:
    rows: list[dict[str, Any]] = []
    vectors: dict[str, list[NDArray[Any]]] = {name: [] for name in shape.vector_names}
    for item in shard.to_pylist():
        payload = json.loads(item["payload"]) if item["payload"] else {}
        pages = payload.get("pages") or []
        if item["status"] != "succeeded" or not pages:
            rows.append({**_book_fields(item), "id": item["id"], "page": None, "has_vector": False})
            continue
        sides = unpack(payload["rows"], item["data"], item["id"])
        good = [page for page in pages if page["status"] == "succeeded"]
        for name, side in zip(shape.vector_names, shape.sides, strict=True):
            vectors[name].append(_book_vectors(sides, side, good, item["id"]))
        labels = label_values(sides, pages, shape.labels)
        rows += [{**_page(item, number, page), **labels[number]} for number, page in enumerate(pages)]
    own = [_loaded(row["columns"]) for row in rows]
    columns: dict[str, Any] = _own(own, shape)
    for field in (*_HEAD, *label_fields(shape.labels)):
        if field.name not in columns:
            columns[field.name] = _values([row.get(field.name) for row in rows], field.type, field.name)
    columns[NOTES] = _values([row.get(NOTES) for row in rows], pa.string(), NOTES)
    columns["book"] = _values([row["book"] for row in rows], pa.string(), "book")
    present = np.array([row["has_vector"] for row in rows], np.bool_)
    for name, side in zip(shape.vector_names, shape.sides, strict=True):
        stacked = np.concatenate(vectors[name]) if vectors[name] else np.empty((0, side.dim), side.dtype)
        columns[name] = VectorColumn(side).array(stacked, present)
    return _table(columns, shape, len(rows))


def _slices(shard: pa.Table) -> Iterator[pa.Table]:
    """A shard's books, as many at a time as have GROUP_BYTES of rows: a shard of them may be a gigabyte."""
    sizes = pc.fill_null(pc.binary_length(shard.column("data")), 0).to_pylist()
    start = held = 0
    for at, size in enumerate(sizes):
        held += size
        if held >= GROUP_BYTES or at == len(sizes) - 1:
            yield shard.slice(start, at + 1 - start)
            start, held = at + 1, 0


def _book_vectors(
    sides: Mapping[str, NDArray[Any]], side: SideFacts, good: Sequence[Mapping[str, Any]], book: str
) -> NDArray[Any]:
    rows = sides.get(side.side)
    if rows is None or rows.shape != (len(good), side.dim) or str(rows.dtype) != side.dtype:
        shown = "missing" if rows is None else f"{rows.dtype} of shape {rows.shape}"
        raise IntegrityError(f"{book}: its {side.side} rows are {shown}, {len(good)} × {side.dim} {side.dtype} are due")
    order = [page["row"] for page in good]
    if order != list(range(len(good))):
        raise IntegrityError(f"{book}: its pages do not stand in the order of their rows")
    check_rows(rows, f"{book} ({side.side})", is_unit=side.is_unit)
    return rows


def _book_fields(item: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "row": item["row"],
        "status": item["status"],
        "error_class": item["error_class"],
        "error_message": item["error_message"],
        "source_uri": shown_uri(item["uri"]),
        "version": item["version_read"] or item["version"],
        "columns": item["columns"],
        "book": item["id"],
    }


def _page(item: Mapping[str, Any], number: int, page: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_book_fields(item),
        "id": f"{item['id']}/{page['name']}",
        "status": page["status"],
        "error_class": page.get("errorClass"),
        "error_message": page.get("errorMessage"),
        "source_uri": f"{shown_uri(item['uri']).rstrip('/')}/{page['name']}",
        "page": number,
        "width_px": page.get("width"),
        "height_px": page.get("height"),
        "tokens": page.get("tokens"),
        "truncated": page.get("truncated"),
        "has_vector": page["status"] == "succeeded",
        NOTES: _notes(page),
    }


def _table(columns: Mapping[str, Any], shape: DatasetShape, count: int) -> pa.Table:
    schema = shape.schema
    arrays = [columns[field.name] if field.name in columns else pa.nulls(count, field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


# -- the source's own columns -----------------------------------------------------------------------------------------


def _own(rows: Sequence[Mapping[str, Any]], shape: DatasetShape) -> dict[str, pa.Array]:
    columns = {name: _values([_as_text(row.get(name)) for row in rows], pa.string(), name) for name in OWN_COLUMNS}
    for name, kind in shape.meta_types.items():
        values = [row.get(name) for row in rows]
        if kind == pa.string():
            values = [_as_text(value) for value in values]
        columns[META_PREFIX + name] = _values(values, kind, name)
    return columns


def _values(values: list[Any], kind: pa.DataType, name: str) -> pa.Array:
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, OverflowError) as error:
        raise IntegrityError(f"the column {name} is not of type {kind} throughout: {error}") from error


def _parsed(texts: pa.ChunkedArray) -> list[Any]:
    """The JSON of a column, parsed in one go: a call a row takes three times as long."""
    parsed: list[Any] = json.loads(f"[{','.join(text or 'null' for text in texts.to_pylist())}]")
    return parsed


def _loaded(text: str) -> dict[str, Any]:
    return json.loads(text) if text != "{}" else {}


def _notes(facts: Mapping[str, Any]) -> str | None:
    """What stages of the job's own noted, by stage, as JSON."""
    notes = facts.get(NOTES)
    return json.dumps(notes, ensure_ascii=False, sort_keys=True) if notes else None


def _as_text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _shown(uris: pa.ChunkedArray) -> pa.Array:
    return pa.array([shown_uri(uri) for uri in uris.to_pylist()], pa.string())
