"""A manifest's rows, whatever its form, with exact line numbers and in constant memory.

Layer: `worker.plan`, above `source_bytes` and `text_lines`. Reads; decides nothing about ids or paths. A row is
delivered whole and unaltered, or the reading ends with a SourceError that names its line.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field

from pagemill_core.errors import SourceError
from pagemill_worker.plan.csv_rows import CsvTable
from pagemill_worker.plan.json_rows import read_json_lines
from pagemill_worker.plan.parquet_rows import ParquetTable
from pagemill_worker.plan.request import ManifestFormat, ManifestRequest
from pagemill_worker.plan.rows import ManifestBatch
from pagemill_worker.plan.source_bytes import RangeFile, SourceBytes, read_blocks
from pagemill_worker.plan.text_lines import read_lines

_BY_SUFFIX: dict[str, ManifestFormat] = {
    ".csv": "csv",
    ".jsonl": "jsonLines",
    ".ndjson": "jsonLines",
    ".json": "jsonLines",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_PARQUET_MAGIC = b"PAR1"


@dataclass(slots=True)
class Manifest:
    """An opened manifest. `columns` are the names of its further columns, known once the rows have been read."""

    request: ManifestRequest
    source: SourceBytes
    columns: dict[str, str] = field(default_factory=dict)

    def batches(self) -> Iterator[ManifestBatch]:
        """All rows, in order.

        Raises: SourceError naming the first bad line, or the missing column and those present.
        """
        form = manifest_format(self.request, self.source)
        if form == "parquet":
            table = ParquetTable(RangeFile(self.source), self.request)
            self.columns.update(table.columns)
            yield from table.batches()
            return
        lines = read_lines(read_blocks(self.source), self.request.uri)
        if form == "jsonLines":
            yield from read_json_lines(lines, self.request, self.columns)
            return
        rows = CsvTable(lines, self.request)
        self.columns.update(dict.fromkeys(rows.extra_names, "string"))
        yield from rows.batches()


def manifest_format(request: ManifestRequest, source: SourceBytes) -> ManifestFormat:
    """The form asked for, else by the name, else Parquet by its first bytes, else CSV.

    Raises: SourceError for a compressed Parquet file's name.
    """
    if request.format != "auto":
        return request.format
    name = request.uri.lower()
    stem, suffix = posixpath.splitext(name)
    if suffix in (".gz", ".zst"):
        form = _BY_SUFFIX.get(posixpath.splitext(stem)[1], "csv")
        if form == "parquet":
            raise SourceError(f"{request.uri}: a Parquet file must not be compressed again", advice="unpack it")
        return form
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    return "parquet" if source.read(0, 4) == _PARQUET_MAGIC else "csv"
