"""`embeddings.parquet`, `failures.parquet` and `metadata.json`: the vectors of an output as one table, for notebooks.

Layer: `worker.finalize`. Made from the dataset's parts alone, one row group in memory. The table holds what counts of
all runs on the output: of each item the newest success. Up to SINGLE_BYTES of vectors it is one file; beyond that, and
where the job says `files: Partitioned`, a folder of that name with one file for each part of the dataset, which
`pandas.read_parquet` reads by the same call. Files of a folder that need not change are not written again.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pagemill_core.errors import IntegrityError
from pagemill_core.work.commit import crc32
from pagemill_core.work.conditional import Writer
from pagemill_core.work.publish import META_SEQ
from pagemill_worker.finalize.dataset_parts import DatasetPart, open_part
from pagemill_worker.finalize.embedding_dataset import META_PREFIX, NOTES
from pagemill_worker.finalize.embedding_union import CountedPart
from pagemill_worker.finalize.part_file import write_parquet, write_tables
from pagemill_worker.finalize.publish_file import publish_file

TABLE_KEY = "embeddings.parquet"
FAILURES_KEY = "failures.parquet"
METADATA_KEY = "metadata.json"
SINGLE_BYTES = 4 << 30  # of vectors: 2 million rows of 512 float32; a notebook still reads that at once
META_SOURCE = "pagemill-source"

_URLS = (f"{META_PREFIX}url", "url", "source_uri")
_VECTORS = ("embedding", "text_embedding")
_FAILURES = pa.schema(
    [
        pa.field("url", pa.string()),
        pa.field("key", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("message", pa.string()),
        pa.field("id", pa.string()),
        pa.field("row", pa.int64()),
        pa.field("run", pa.int64()),
    ]
)


@dataclass(frozen=True)
class TableFiles:
    """What was written. `keys` are the files of the table, `rows` and `failures` what they hold."""

    keys: list[str]
    rows: int
    failures: int
    columns: list[str]


@dataclass(frozen=True, kw_only=True)
class EmbeddingTable:
    """Writes the files for a run, `seq`, from what counts. `has_captions`: the source has a column of that name."""

    writer: Writer
    seq: int
    parts: Sequence[CountedPart]
    fingerprint: str
    is_partitioned: bool
    has_captions: bool = False
    single_bytes: int = SINGLE_BYTES
    _schemas: dict[str, pa.Schema] = field(default_factory=dict)

    def write(self) -> TableFiles:
        """Write the table and the failures; repeated by another finalizer it writes the same bytes."""
        with_rows = [one for one in self.parts if one.kept_count]
        schema = self._schema(with_rows)
        if self.is_partitioned or self._vector_bytes(with_rows, schema) > self.single_bytes:
            found = self._write_folder(with_rows, schema)
        else:
            found = self._write_file(with_rows, schema)
        failures = self._write_failures()
        rows = sum(one.kept_count for one in with_rows)
        return TableFiles(found, rows, failures, list(schema.names))

    @property
    def schema(self) -> pa.Schema:
        """The table's columns."""
        return self._schema([one for one in self.parts if one.kept_count])

    def tables(self) -> Iterator[pa.Table]:
        """The table's rows, a row group at a time."""
        schema = self.schema
        for one in self.parts:
            if one.kept_count:
                yield from self._rows(one, schema)

    def failures(self) -> pa.Table:
        """What failed, as failures.parquet has it."""
        return pa.concat_tables([_FAILURES.empty_table(), *self._failed_tables()])

    # -- one file -----------------------------------------------------------------------------------------------------

    def _write_file(self, parts: Sequence[CountedPart], schema: pa.Schema) -> list[str]:
        for info in self.writer.listing(f"{TABLE_KEY}/"):  # a file cannot stand where a folder is
            self.writer.retrying(lambda key=info.key: self.writer.store.delete(key))  # type: ignore[misc]
        tables = (table for one in parts for table in self._rows(one, schema))
        self._publish(TABLE_KEY, tables, schema)
        return [TABLE_KEY]

    def _publish(self, key: str, tables: Iterator[pa.Table], schema: pa.Schema) -> None:
        with tempfile.TemporaryDirectory(prefix="pagemill-") as folder:
            path = Path(folder) / "table.parquet"
            write_tables(path, tables, schema)
            publish_file(self.writer, key, path, self.seq)

    # -- a folder -----------------------------------------------------------------------------------------------------

    def _write_folder(self, parts: Sequence[CountedPart], schema: pa.Schema) -> list[str]:
        self.writer.retrying(lambda: self.writer.store.delete(TABLE_KEY))
        named: dict[str, CountedPart | None] = {_file_key(one.part): one for one in parts}
        if not named:
            named = {f"{TABLE_KEY}/{0:08d}-{0:05d}.parquet": None}  # a folder without a file is no table
        for key, one in named.items():
            source = _source_mark(one, schema)
            info = self.writer.retrying(lambda key=key: self.writer.store.head(key))  # type: ignore[misc]
            if info is None or info.meta.get(META_SOURCE) != source:
                tables = self._rows(one, schema) if one is not None else iter(())
                write_parquet(self.writer.store, key, tables, schema, {META_SEQ: str(self.seq), META_SOURCE: source})
        for info in self.writer.listing(f"{TABLE_KEY}/"):
            if info.key not in named:
                self.writer.retrying(lambda key=info.key: self.writer.store.delete(key))  # type: ignore[misc]
        return sorted(named)

    # -- rows ---------------------------------------------------------------------------------------------------------

    def _rows(self, one: CountedPart, schema: pa.Schema) -> Iterator[pa.Table]:
        for table in _groups(self.writer, one, one.kept_mask()):
            yield self._shown(table, schema)

    def _shown(self, table: pa.Table, schema: pa.Schema) -> pa.Table:
        there = set(table.column_names)
        columns: list[pa.ChunkedArray | pa.Array] = []
        for wanted in schema:
            name = wanted.name
            if name == "url":
                columns.append(_urls(table))
            elif name == "key":
                columns.append(pc.coalesce(table.column("key"), table.column("id")))
            elif name == "caption" and not self.has_captions:
                columns.append(pc.fill_null(table.column("caption"), ""))
            elif name in _VECTORS:
                columns.append(_as_lists(table.column(name), wanted.type))
            elif name in there:
                columns.append(table.column(name).cast(wanted.type))
            else:
                columns.append(pa.nulls(len(table), wanted.type))
        return pa.Table.from_arrays(columns, schema=schema)

    def _schema(self, parts: Sequence[CountedPart]) -> pa.Schema:
        """url, key, caption, the vectors, and the further columns of every run's source."""
        fields = {name: pa.field(name, pa.string()) for name in ("url", "key", "caption")}
        fields["embedding"] = pa.field("embedding", pa.list_(pa.float32()))
        later: dict[str, pa.Field] = {}
        for one in parts:
            for found in self._part_schema(one.part):
                if found.name in _VECTORS:
                    fields[found.name] = pa.field(found.name, pa.list_(found.type.value_type))
                elif found.name == NOTES:
                    later.setdefault(NOTES, found)
                elif found.name == "book":
                    later.setdefault("book", found)
                    later.setdefault("page", pa.field("page", pa.int32()))
                elif found.name.startswith(META_PREFIX) and found.name != f"{META_PREFIX}url":
                    known = later.setdefault(found.name, found)
                    if known.type != found.type:  # runs over sources that disagree: text says it all
                        later[found.name] = pa.field(found.name, pa.string())
        meta = {b"pagemill.fingerprint": self.fingerprint.encode()}
        return pa.schema([*fields.values(), *later.values()], metadata=meta)

    def _part_schema(self, part: DatasetPart) -> pa.Schema:
        if part.key not in self._schemas:
            with open_part(self.writer.store, part) as file:
                self._schemas[part.key] = file.schema_arrow
        return self._schemas[part.key]

    def _vector_bytes(self, parts: Sequence[CountedPart], schema: pa.Schema) -> int:
        total = 0
        for one in parts:
            found = self._part_schema(one.part)
            row = sum(
                found.field(name).type.list_size * found.field(name).type.value_type.bit_width // 8
                for name in _VECTORS
                if name in schema.names and name in found.names and pa.types.is_fixed_size_list(found.field(name).type)
            )
            total += row * one.kept_count
        return total

    # -- failures -----------------------------------------------------------------------------------------------------

    def _write_failures(self) -> int:
        self._publish(FAILURES_KEY, self._failed_tables(), _FAILURES)
        return sum(one.failed_count for one in self.parts)

    def _failed_tables(self) -> Iterator[pa.Table]:
        columns = ["row", "id", "key", "error_class", "error_message", *_URLS]
        for one in self.parts:
            if one.failed_count:
                for table in _groups(self.writer, one, one.failed_mask(), columns):
                    yield _failures(table, one.part.seq)


@dataclass(frozen=True, slots=True)
class ShownTable:
    """What metadata.json says of the table that is shown: of which run, in which files."""

    run: str
    files: list[str]


def parse_metadata(data: bytes) -> ShownTable:
    """Read metadata.json as far as it names files. Raises: IntegrityError when it is none of ours."""
    try:
        found = json.loads(data)
        return ShownTable(str(found["run"]), [str(name) for name in found["files"]])
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"{METADATA_KEY} is not what a run wrote", advice="make it again: pagemill verify --repair"
        ) from error


def part_tables(writer: Writer, one: CountedPart) -> Iterator[pa.Table]:
    """The rows of a part that count, with all of its columns."""
    return _groups(writer, one, one.kept_mask())


def _groups(
    writer: Writer, one: CountedPart, mask: NDArray[np.bool_], columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """The marked rows of a part, a row group at a time; groups without one are not fetched."""
    at = 0
    with open_part(writer.store, one.part) as file:
        names = [name for name in columns or file.schema_arrow.names if name in file.schema_arrow.names]
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            wanted = mask[at : at + count]
            at += count
            if wanted.all():
                yield file.read_row_group(group, columns=names, use_threads=False)
            elif wanted.any():
                table = file.read_row_group(group, columns=names, use_threads=False)
                yield table.filter(pa.array(wanted))


def _as_lists(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    """Fixed-size vectors without nulls as lists, which every reader knows, over the same numbers."""
    array = column.combine_chunks()
    array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
    if not pa.types.is_fixed_size_list(array.type):
        return array.cast(kind)
    dim = array.type.list_size
    offsets = pa.array(np.arange(len(array) + 1, dtype=np.int32) * dim)
    return pa.ListArray.from_arrays(offsets, array.flatten()).cast(kind)


def _urls(table: pa.Table) -> pa.ChunkedArray:
    """The source's own column, else what it was read by, else where it lies."""
    there = [table.column(name).cast(pa.string()) for name in _URLS if name in table.column_names]
    return pc.coalesce(*there)


def _failures(table: pa.Table, seq: int) -> pa.Table:
    columns = {
        "url": _urls(table),
        "key": pc.coalesce(table.column("key"), table.column("id")),
        "reason": table.column("error_class"),
        "message": table.column("error_message"),
        "id": table.column("id"),
        "row": table.column("row"),
        "run": pa.array([seq] * len(table), pa.int64()),
    }
    return pa.Table.from_arrays([columns[name] for name in _FAILURES.names], schema=_FAILURES)


def _file_key(part: DatasetPart) -> str:
    return f"{TABLE_KEY}/{part.seq:08d}-{part.segment:05d}.parquet"


def _source_mark(one: CountedPart | None, schema: pa.Schema) -> str:
    """What a file of the folder is made from: the part's size, the rows taken, the columns."""
    if one is None:
        return f"none-{crc32(str(schema).encode())}"
    return f"{one.part.size}-{zlib.crc32(one.kept.tobytes()):08x}-{crc32(str(schema).encode())}"
