"""Columns of vectors in Arrow, made from matrices without a loop over their numbers.

Layer: `worker.finalize`, its bottom; pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class SideFacts:
    """What one encoder's rows are: `side` is visual or text, `is_unit` whether they must have length 1."""

    side: str
    dim: int
    dtype: str
    is_unit: bool = False

    @property
    def row_bytes(self) -> int:
        return self.dim * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class VectorColumn:
    """Makes the column of one side."""

    side: SideFacts

    def array(self, rows: NDArray[Any], present: NDArray[np.bool_]) -> pa.Array:
        """A FixedSizeList column: the rows of a matrix of shape (present.sum(), dim) where `present`, else null."""
        dim = self.side.dim
        if len(rows) == len(present):
            return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), dim)
        full = np.zeros((len(present), dim), self.side.dtype)
        full[present] = rows
        return pa.FixedSizeListArray.from_arrays(pa.array(full.reshape(-1)), dim, mask=pa.array(~present))


def vector_field(name: str, side: SideFacts) -> pa.Field:
    """The column's field. Nullable: rows that did not succeed have no vector."""
    return pa.field(name, pa.list_(pa.field("element", value_type(side), nullable=False), side.dim))


def value_type(side: SideFacts) -> pa.DataType:
    """The type of a vector's numbers."""
    return pa.float16() if side.dtype == "float16" else pa.float32()


def list_matrix(column: pa.ChunkedArray) -> NDArray[Any]:
    """The vectors of a column without nulls, lists of one length, shape (rows, dim), a view where there is one chunk.

    Raises: ValueError when they have different lengths.
    """
    array = column.combine_chunks()
    array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
    numbers: NDArray[Any] = array.flatten().to_numpy(zero_copy_only=False)
    return numbers.reshape(len(array), -1)
