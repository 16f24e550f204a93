"""JSON Lines: one object a line, every name once, values carried as they are.

Layer: `worker.plan`; pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn

from pagemill_core.errors import SourceError
from pagemill_worker.plan.column_types import value_type_name, widened
from pagemill_worker.plan.csv_rows import MAX_SHOWN_NAMES
from pagemill_worker.plan.request import ManifestRequest
from pagemill_worker.plan.rows import BATCH_ROWS, ManifestBatch, encode_columns


def read_json_lines(
    line_lists: Iterator[list[str]], request: ManifestRequest, columns: dict[str, str]
) -> Iterator[ManifestBatch]:
    """All rows; puts the names of further columns into `columns` as they turn up, with the type of their values.

    A missing value (null) of id or path is an empty text; a whole number becomes its digits.
    Raises: SourceError with the first bad line's number.
    """
    batch = ManifestBatch([], [], [], [])
    lines, ids, paths, extras = [], [], [], []
    number = 0
    for text_lines in line_lists:
        for text in text_lines:
            number += 1
            if text.isspace():
                continue
            row = parse_line(text, number, request.uri)
            ids.append(_take(row, request.id_column, number, request))
            paths.append(_take_path(row, request, number, ids[-1]))
            extras.append(encode_further(row, number, request.uri))
            lines.append(number)
            for name, value in row.items():
                columns[name] = widened(columns.get(name), value_type_name(value))
            if len(lines) >= BATCH_ROWS:
                batch = ManifestBatch(lines, ids, paths, extras)
                lines, ids, paths, extras = [], [], [], []
                yield batch
    if lines:
        yield ManifestBatch(lines, ids, paths, extras)


class _BadLine(ValueError):
    """Something JSON allows and a manifest does not."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _BadLine("a name stands in one object twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise _BadLine(f"{name} is not JSON")


_DECODE = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_refuse_constant).decode
_ENCODE_FINITE = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def parse_line(text: str, line: int, uri: str) -> dict[str, Any]:
    """The object that a line holds. Raises: SourceError when it holds none."""
    try:
        value = _DECODE(text)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "nested too deep"
        raise SourceError(f"{uri}: line {line} is not a JSON object: {reason}") from error
    if not isinstance(value, dict):
        raise SourceError(
            f"{uri}: line {line} is not a JSON object", advice="write one object a line, without brackets around them"
        )
    return value


def _take(row: dict[str, Any], name: str, line: int, request: ManifestRequest) -> str:
    """Remove `name` from `row` and give its value as text."""
    check_column(row, name, f"{request.uri}: line {line}", request.columns_field)
    return as_text(row.pop(name), name, line, request.uri)


def check_column(row: dict[str, Any], name: str, where: str, columns_field: str) -> None:
    """Raises: SourceError naming `where`, the column, those present, and the field that names it."""
    if name not in row:
        shown = ", ".join(repr(key) for key in list(row)[:MAX_SHOWN_NAMES]) or "none"
        raise SourceError(
            f"{where}: there is no column {name!r}; the columns are {shown}",
            advice=f"set {columns_field} to the file's own names",
        )


def _take_path(row: dict[str, Any], request: ManifestRequest, line: int, item_id: str) -> str:
    if request.path_column == request.id_column:
        return item_id
    return _take(row, request.path_column, line, request)


def as_text(value: object, name: str, line: int, uri: str) -> str:
    """An id or a path as text. Raises: SourceError when it is neither text, a whole number nor missing."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise SourceError(f"{uri}: line {line}: {name!r} is a {type(value).__name__}, not text")


def encode_further(row: dict[str, Any], line: int, uri: str) -> str | None:
    """What is left of `row` as a JSON object; values that are lists or objects become their JSON text.

    Raises: SourceError for a number that JSON cannot say.
    """
    if not row:
        return None
    flat = {name: encode_columns(value) if isinstance(value, dict | list) else value for name, value in row.items()}
    try:
        return _ENCODE_FINITE(flat)
    except ValueError as error:
        raise SourceError(f"{uri}: line {line}: a number is out of range") from error
