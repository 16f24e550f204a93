"""Encoded rows on their way from a child process to the store: bytes, and JSON that says what they are.

Layer: `worker.embed`; pure, numpy only. What `pack` makes is an item's `payload["rows"]` and `data`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagemill_core.errors import IntegrityError

Rows = NDArray[Any]
_DTYPES = ("float32", "float16")


def pack(sides: Mapping[str, Rows]) -> tuple[dict[str, Any], bytes]:
    """Matrices by side, as (facts, bytes): little endian, row major, one side after the other by name.

    By name and not in the order given, because JSON on its way sorts the names of `facts`.

    Each is of shape (rows, dim), dtype float32 or float16. `facts` maps a side to its rows, dim and dtype.
    """
    facts: dict[str, Any] = {}
    parts = []
    for side, rows in sorted(sides.items()):
        if rows.ndim != 2 or str(rows.dtype) not in _DTYPES:
            raise ValueError(f"{side}: {rows.dtype} of shape {rows.shape} is no matrix of rows")
        facts[side] = {"rows": rows.shape[0], "dim": rows.shape[1], "dtype": str(rows.dtype)}
        parts.append(np.ascontiguousarray(rows if sys.byteorder == "little" else rows.byteswap()).tobytes())
    return facts, b"".join(parts)


def unpack(facts: Mapping[str, Any], data: bytes | None, where: str = "") -> dict[str, Rows]:
    """The matrices that `pack` was given, read-only views of `data`.

    Raises: IntegrityError naming `where` when facts and bytes do not belong together.
    """
    sides: dict[str, Rows] = {}
    at = 0
    held = memoryview(data or b"")
    for side, fact in sorted(facts.items()):
        dtype = np.dtype(fact["dtype"]).newbyteorder("<")
        size = fact["rows"] * fact["dim"] * dtype.itemsize
        if fact["dtype"] not in _DTYPES or at + size > len(held):
            raise IntegrityError(f"{where}: {len(held)} bytes do not hold the rows they should")
        sides[side] = np.frombuffer(held[at : at + size], dtype).reshape(fact["rows"], fact["dim"])
        at += size
    if at != len(held):
        raise IntegrityError(f"{where}: {len(held) - at} bytes too many")
    return sides
