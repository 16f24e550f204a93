"""The rows, in the order of the table."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.harness.row import Row
from benchmarks.rows import (
    embeddings,
    engines,
    first_result,
    memory,
    operator,
    paddleocr,
    plan,
    protocol,
    search,
    tensors,
    tesseract,
    vectors,
)

ROWS: Mapping[str, Row] = {
    row.name: row
    for row in (
        engines.ROW,
        tesseract.ROW,
        paddleocr.ROW,
        memory.ROW,
        plan.ROW,
        protocol.ROW,
        first_result.ROW,
        embeddings.ROW,
        operator.ROW,
        search.ROW,
        tensors.ROW,
        vectors.ROW,
    )
}
