"""Rows of img2dataset's Parquet shards: addresses of pictures, or the pictures themselves, with all they come with.

Layer: `worker.plan`. Decides from the row alone what its item reads, or why there is nothing to read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pagemill_worker.items import ItemFailure, Scalar
from pagemill_worker.plan.parquet_scan import ParquetScan
from pagemill_worker.plan.paths import SETTLED, PathRules, base_of, check_uri
from pagemill_worker.plan.rows import Row, encode_columns
from pagemill_worker.plan.source_bytes import SourceBytes

Note = Callable[[str, str], None]
"""Told each further column's name and type as it is met."""

SUCCESS = "success"


def row_id(stem: str, row: int) -> str:
    """The id of row `row`, from 0, of the shard `stem`: keys may repeat, places cannot."""
    return f"{stem}#{row:09d}"


def parquet_rows(source: SourceBytes, stem: str, note: Note) -> Iterator[Row]:
    """A row an item. Raises: SourceError when the file is damaged, after the rows before that place."""
    scan = ParquetScan(source, source.uri)
    for name, kind in scan.types.items():
        if name != "url" or scan.picture:
            note(name, kind)
    address = Addresses.of(source.uri)
    for batch in scan.batches():
        names = list(batch.columns)
        cells = zip(*batch.columns.values(), strict=True) if names else iter([()] * batch.rows)
        for row, values in enumerate(cells, batch.first_row):
            columns = dict(zip(names, values, strict=True))
            if scan.picture:
                yield _cell_row(source, row_id(stem, row), columns, row, scan.picture)
            else:
                yield address.row(row_id(stem, row), columns)


def unusable(columns: Mapping[str, Scalar]) -> ItemFailure | None:
    """Why img2dataset itself could not get this row's picture, or None."""
    status = columns.get("status")
    if status is None or status == SUCCESS:
        return None
    reason = columns.get("error_message")
    return ItemFailure("RowUnusable", f"the data set says {status}" + (f": {reason}" if reason else ""))


@dataclass(frozen=True, slots=True)
class Addresses:
    """How the addresses of one shard are read; relative ones start where the shard lies."""

    rules: PathRules

    @classmethod
    def of(cls, uri: str) -> Addresses:
        return cls(PathRules("", "", base_of(uri)))

    def row(self, item_id: str, columns: dict[str, Scalar]) -> Row:
        """The item of a row that names its picture by `url`; that column is taken out of `columns`."""
        url = columns.pop("url", None)
        failure = unusable(columns)
        uri = url if isinstance(url, str) else ""
        if not uri:
            said = "its url is missing" if url is None or url == "" else f"its url is {url!r:.80}, not text"
            failure = failure or ItemFailure("RowUnusable", f"the row names no picture: {said}")
        elif not uri.startswith(SETTLED) or "\0" in uri:
            uri = self.rules.resolve(uri)
            failure = failure or check_uri(uri)
        return Row(0, item_id, uri, columns=encode_columns(columns) if columns else None, failure=failure)


def _cell_row(source: SourceBytes, item_id: str, columns: dict[str, Scalar], row: int, picture: str) -> Row:
    return Row(
        0,
        item_id,
        source.uri,
        version=source.version,
        columns=encode_columns(columns) if columns else None,
        failure=unusable(columns),
        input=encode_columns({"column": picture, "row": row}),
    )
