"""CSV rows by the strict reading of RFC 4180: what is ambiguous is refused with its line, never repaired.

Layer: `worker.plan`; pure. Python's own reader does the cutting at C speed; strict mode refuses what it would otherwise
alter silently (text after a closing quote, a quote that is never closed).
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from json.encoder import encode_basestring_ascii as _quote

from pagemill_core.errors import SourceError
from pagemill_worker.plan.request import ManifestRequest
from pagemill_worker.plan.rows import BATCH_ROWS, ManifestBatch

MAX_SHOWN_NAMES = 40
MAX_ROW_CHARS = 4 << 20  # quoted cells may hold line ends, but a row of four million characters is an open quote


class CsvTable:
    """A CSV file whose header has been read. `extra_names` are its columns beside id and path."""

    def __init__(self, line_lists: Iterator[list[str]], request: ManifestRequest) -> None:
        self._uri = request.uri
        self._line = 1
        self._open_line = 0
        self._open_chars = 0
        self._reader = csv.reader(chain.from_iterable(self._bounded(line_lists)), strict=True)
        self._rows = self._numbered_rows()
        header = next(self._rows, None)
        if header is None:
            raise SourceError(
                f"{request.uri}: line 1: the manifest is empty, not even a header names its columns",
                advice=f"write a header with {request.id_column!r} and {request.path_column!r}",
            )
        self._names = _checked_names(header[1], header[0], request.uri)
        where = f"{request.uri}: line {header[0]}"
        self._id_at = find_column(self._names, request.id_column, where, request.columns_field)
        self._path_at = find_column(self._names, request.path_column, where, request.columns_field)
        self._extra_at = [at for at in range(len(self._names)) if at not in (self._id_at, self._path_at)]
        self.extra_names = [self._names[at] for at in self._extra_at]

    def batches(self) -> Iterator[ManifestBatch]:
        """All rows. Raises: SourceError with the first bad line's number."""
        lines: list[int] = []
        rows: list[list[str]] = []
        try:
            for line, row in self._rows:
                lines.append(line)
                rows.append(row)
                if len(rows) >= BATCH_ROWS:
                    yield self._batch(lines, rows)
                    lines, rows = [], []
        except SourceError:
            # A ragged row before the bad line is the first bad line.
            self._check_widths(lines, rows)
            raise
        if rows:
            yield self._batch(lines, rows)

    def _batch(self, lines: list[int], rows: list[list[str]]) -> ManifestBatch:
        self._check_widths(lines, rows)
        by_column = list(zip(*rows, strict=True))
        columns: list[str | None] = [None] * len(rows)
        if self._extra_at:
            columns = self._encoded([by_column[at] for at in self._extra_at])
        return ManifestBatch(lines, by_column[self._id_at], by_column[self._path_at], columns)

    def _encoded(self, columns: Sequence[Sequence[str]]) -> list[str | None]:
        """Each row's further columns as a JSON object: as `rows.encode_columns` writes them, several times as fast."""
        names = (json.dumps(name).replace("%", "%%") for name in self.extra_names)
        template = "{" + ",".join(f"{name}:%s" for name in names) + "}"
        return [template % cells for cells in zip(*(map(_quote, column) for column in columns), strict=True)]

    def _check_widths(self, lines: list[int], rows: list[list[str]]) -> None:
        want = len(self._names)
        if set(map(len, rows)) <= {want}:
            return
        line, row = next((line, row) for line, row in zip(lines, rows, strict=True) if len(row) != want)
        raise SourceError(
            f"{self._uri}: line {line} has {len(row)} cells, the header has {want}",
            advice='put cells that hold a comma or a line end in double quotes, and double every " inside them',
        )

    def _numbered_rows(self) -> Iterator[tuple[int, list[str]]]:
        """Rows with the line they start at; blank lines are no rows."""
        try:
            for row in self._reader:
                if row:
                    yield self._line, row
                self._line = self._reader.line_num + 1
        except csv.Error as error:
            raise SourceError(f"{self._uri}: line {self._line}: {_explain(error)}", advice=_CELL_ADVICE) from error

    def _bounded(self, line_lists: Iterator[list[str]]) -> Iterator[list[str]]:
        """The lists of lines, as long as no row stays open for too many of them: a row is held in memory whole."""
        for lines in line_lists:
            if self._line != self._open_line:
                self._open_line, self._open_chars = self._line, 0
            elif self._open_chars > MAX_ROW_CHARS:
                raise SourceError(
                    f"{self._uri}: line {self._line}: the row from here on is longer than {MAX_ROW_CHARS:,} characters",
                    advice=_CELL_ADVICE,
                )
            self._open_chars += sum(map(len, lines))
            yield lines


_CELL_ADVICE = 'close every double quote, and double every " inside a quoted cell'


def find_column(names: list[str], wanted: str, where: str, columns_field: str) -> int:
    """Where column `wanted` stands. Raises: SourceError naming it, those present, and the field that names it."""
    if wanted in names:
        return names.index(wanted)
    shown = ", ".join(repr(name) for name in names[:MAX_SHOWN_NAMES]) or "none"
    more = f" and {len(names) - MAX_SHOWN_NAMES} more" if len(names) > MAX_SHOWN_NAMES else ""
    raise SourceError(
        f"{where}: there is no column {wanted!r}; the columns are {shown}{more}",
        advice=f"set {columns_field} to the file's own names",
    )


def _checked_names(header: list[str], line: int, uri: str) -> list[str]:
    """The header's names; a column without one is called by its place.

    Raises: SourceError when a name stands twice.
    """
    names = [name or f"column_{place}" for place, name in enumerate(header, 1)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise SourceError(f"{uri}: line {line}: the column {twice[0]!r} stands in the header more than once")
    return names


def _explain(error: csv.Error) -> str:
    text = str(error)
    if "field limit" in text:
        return f"a cell is longer than {csv.field_size_limit():,} characters; is a double quote not closed?"
    if "unexpected end" in text:
        return "a double quote is opened here and never closed"
    return text
