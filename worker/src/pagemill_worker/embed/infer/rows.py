"""Predictions of one item on their way to the store: bytes, and JSON that says what they are.

Layer: `worker.embed.infer`; pure, numpy only. What `pack` makes is an item's `payload["predictions"]` and `data`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from pagemill_core.errors import IntegrityError


class PredictionFacts(BaseModel):
    """The shape of an item's predictions, and whether the true values come with them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    values: int
    labels: bool = False

    @property
    def size_bytes(self) -> int:
        """What `pack` makes of it: four bytes a value, eight a label."""
        return self.rows * (4 * self.values + 8 * self.labels)


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions, float32 of shape (rows, values), and the true values, float64 of shape (rows,), or None."""

    values: NDArray[np.float32]
    labels: NDArray[np.float64] | None = None


def pack(predictions: Predictions) -> tuple[dict[str, Any], bytes]:
    """(facts, bytes): little endian, row major, the predictions and then the labels."""
    values, labels = predictions.values, predictions.labels
    facts = PredictionFacts(rows=values.shape[0], values=values.shape[1], labels=labels is not None)
    data = _little(np.ascontiguousarray(values, np.float32))
    return facts.model_dump(), data if labels is None else data + _little(np.ascontiguousarray(labels, np.float64))


def unpack(facts: PredictionFacts, data: bytes | None, where: str) -> Predictions:
    """What `pack` was given, read-only. Raises: IntegrityError naming `where` when facts and bytes do not agree."""
    held = data or b""
    if len(held) != facts.size_bytes:
        raise IntegrityError(f"{where}: {len(held)} bytes do not hold {facts.rows} rows of {facts.values} predictions")
    count = facts.rows * facts.values
    values = np.frombuffer(held, "<f4", count).reshape(facts.rows, facts.values)
    labels = np.frombuffer(held, "<f8", facts.rows, offset=4 * count) if facts.labels else None
    return Predictions(values, labels)


def _little(rows: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(rows if sys.byteorder == "little" else rows.byteswap()).tobytes()
