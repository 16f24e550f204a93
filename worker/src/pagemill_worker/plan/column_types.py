"""What the types of a source's own columns are called, so that results can be written with the same ones.

Layer: `worker.plan`; pure. Values travel as JSON; the type says what to make of them again: `int64`, `uint64`,
`double`, `bool` or `string`. A value that does not fit its column's type is written as its JSON text.
"""

from __future__ import annotations

import pyarrow as pa

NULL = "null"  # nothing but nulls so far; decides nothing
_NUMBERS = frozenset({"int64", "double"})


def arrow_type_name(kind: pa.DataType) -> str:
    """The name for a column of an Arrow table."""
    if pa.types.is_dictionary(kind):
        return arrow_type_name(kind.value_type)
    if pa.types.is_null(kind):
        return NULL
    if pa.types.is_boolean(kind):
        return "bool"
    if pa.types.is_uint64(kind):
        return "uint64"
    if pa.types.is_integer(kind):
        return "int64"
    return "double" if pa.types.is_floating(kind) else "string"


def value_type_name(value: object) -> str:
    """The name for a value of a JSON object."""
    if value is None:
        return NULL
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64" if -(1 << 63) <= value < 1 << 63 else "string"
    return "double" if isinstance(value, float) else "string"


def widened(known: str | None, found: str) -> str:
    """One name for values of both types: whole numbers fit among fractions, all else only in text."""
    if known is None or known in (NULL, found):
        return found
    if found == NULL:
        return known
    return "double" if {known, found} == _NUMBERS else "string"


def settled(columns: dict[str, str]) -> dict[str, str]:
    """`columns` with a type for those that hold nothing but nulls."""
    return {name: "string" if kind == NULL else kind for name, kind in columns.items()}
