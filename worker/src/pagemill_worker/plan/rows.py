"""Rows on their way through the planner, held by column: a million rows pass here, and objects per row cost seconds.

Layer: `worker.plan`; pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pagemill_core.errors import IntegrityError
from pagemill_worker.items import ItemFailure, Scalar

BATCH_ROWS = 16_384  # arbitrary: large enough to hide the cost per batch, small enough to be a few megabytes
BATCH_CHARS = 8 << 20  # of texts that go along; a full batch of long ones would be a gigabyte

# ASCII, so that half a surrogate pair in a JSON source survives a table that is UTF-8.
encode_columns = json.JSONEncoder(separators=(",", ":"), allow_nan=True).encode


def decode_columns(text: str | None) -> dict[str, Scalar]:
    """The source's own columns as written by `encode_columns`. Raises: IntegrityError when `text` is no object."""
    if text is None:
        return {}
    value = json.loads(text)
    if not isinstance(value, dict):
        raise IntegrityError("a plan row's own columns are not a JSON object")
    return value


@dataclass(slots=True)
class Row:
    """One row that may become an item; `columns` and `input` are JSON objects as text."""

    line: int
    id: str
    uri: str
    page: int | None = None
    size_bytes: int | None = None
    version: str | None = None
    columns: str | None = None
    failure: ItemFailure | None = None
    input: str | None = None


def batches_of(rows: Iterable[Row]) -> Iterator[Candidates]:
    """Batches of all `rows`, in order. A batch ends sooner when its texts are large."""
    held: list[Row] = []
    chars = 0
    for row in rows:
        held.append(row)
        chars += len(row.input or "") + len(row.columns or "")
        if len(held) >= BATCH_ROWS or chars >= BATCH_CHARS:
            yield _batch_of(held)
            held, chars = [], 0
    if held:
        yield _batch_of(held)


def _batch_of(rows: Sequence[Row]) -> Candidates:
    return Candidates(
        [row.line for row in rows],
        [row.id for row in rows],
        [row.uri for row in rows],
        [row.page for row in rows],
        [row.size_bytes for row in rows],
        [row.version for row in rows],
        [row.columns for row in rows],
        {at: row.failure for at, row in enumerate(rows) if row.failure is not None},
        inputs={at: row.input for at, row in enumerate(rows) if row.input is not None},
    )


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One row of a manifest; `line` is where it starts, from 1 (for Parquet the row, from 1)."""

    line: int
    id: str
    path: str
    columns: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(slots=True)
class ManifestBatch:
    """Rows of a manifest by column; `columns` holds each row's further columns as a JSON object, or None."""

    lines: Sequence[int]
    ids: Sequence[str]
    paths: Sequence[str]
    columns: Sequence[str | None]

    def rows(self) -> Iterator[ManifestRow]:
        for line, item_id, path, columns in zip(self.lines, self.ids, self.paths, self.columns, strict=True):
            yield ManifestRow(line, item_id, path, decode_columns(columns))


@dataclass(slots=True)
class Candidates:
    """Rows that may become items, by column, in the source's order.

    `failures` maps an index in this batch to why that item cannot be done, `earlier` to the version that an earlier run
    read of an item whose version now is not known, `inputs` to a JSON object of what a runner needs besides the URI.
    """

    lines: list[int]
    ids: list[str]
    uris: list[str]
    pages: list[int | None]
    sizes: list[int | None]
    versions: list[str | None]
    columns: list[str | None]
    failures: dict[int, ItemFailure] = field(default_factory=dict)
    earlier: dict[int, str] = field(default_factory=dict)
    inputs: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, indices: Iterable[int]) -> Candidates:
        """The rows at `indices`, in that order."""
        chosen = list(indices)
        return Candidates(
            [self.lines[at] for at in chosen],
            [self.ids[at] for at in chosen],
            [self.uris[at] for at in chosen],
            [self.pages[at] for at in chosen],
            [self.sizes[at] for at in chosen],
            [self.versions[at] for at in chosen],
            [self.columns[at] for at in chosen],
            {new: self.failures[old] for new, old in enumerate(chosen) if old in self.failures},
            {new: self.earlier[old] for new, old in enumerate(chosen) if old in self.earlier},
            {new: self.inputs[old] for new, old in enumerate(chosen) if old in self.inputs},
        )
