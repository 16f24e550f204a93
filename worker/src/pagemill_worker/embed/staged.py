"""Encoding what stages of the job's own have made of an item: several pieces become one row again.

Layer: `worker.embed`, beside `runner`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagemill_core.errors import EncoderFailed, ItemError
from pagemill_worker.embed.runner import EncodedRow, Encoders, RowInput, encode_sides
from pagemill_worker.stages.chain import Chain, Passed
from pagemill_worker.stages.contract import StageItem, Vector


def encode_pieces(
    encoders: Encoders, items: Sequence[Sequence[RowInput]], unit_sides: Sequence[str]
) -> list[EncodedRow | ItemError]:
    """One row a side for each item, all pieces encoded together; `unit_sides` are scaled to length 1 again."""
    flat = iter(encode_sides(encoders, [piece for pieces in items for piece in pieces]))
    return [_one([next(flat) for _ in pieces], unit_sides) for pieces in items]


def _one(found: Sequence[EncodedRow | ItemError], unit_sides: Sequence[str]) -> EncodedRow | ItemError:
    rows: list[EncodedRow] = []
    for row in found:
        if isinstance(row, ItemError):
            return row
        rows.append(row)
    if len(rows) == 1:
        return rows[0]
    sides: dict[str, NDArray[Any]] = {}
    for side, first in rows[0].sides.items():
        mean = np.mean([row.sides[side].astype(np.float32) for row in rows], axis=0)
        length = float(np.linalg.norm(mean))
        if side in unit_sides and not length:
            return EncoderFailed(f"the {side} rows of its {len(rows)} pieces cancel one another out")
        sides[side] = (mean / length if side in unit_sides else mean).astype(first.dtype)
    return EncodedRow(sides, _facts(rows))


def _facts(rows: Sequence[EncodedRow]) -> Mapping[str, Any]:
    """What is told of the first piece, the tokens of all, and how many pieces there were."""
    facts = {**rows[0].facts, "pieces": len(rows)}
    if "tokens" in facts:
        facts["tokens"] = sum(row.facts.get("tokens", 0) for row in rows)
    if any(row.facts.get("truncated") for row in rows):
        facts["truncated"] = True
    return facts


def after_encoding(
    chain: Chain, passed: Sequence[Passed], found: Sequence[EncodedRow | ItemError]
) -> list[tuple[Passed, EncodedRow | ItemError]]:
    """Send rows through the stages behind the encoder, which look at them and may filter; rows stay as they are."""
    items = [_with_row(one, row) for one, row in zip(passed, found, strict=True)]
    return [
        (one, one.failure if one.failure is not None else row) for one, row in zip(chain.run(items), found, strict=True)
    ]


def _with_row(passed: Passed, row: EncodedRow | ItemError) -> Passed:
    if isinstance(row, ItemError):
        return replace(passed, failure=row)
    side = "visual" if "visual" in row.sides else "text"
    values = row.sides[side].view()
    values.flags.writeable = False
    vector = Vector(values, "visual" if side == "visual" else "text")
    return replace(passed, pieces=(StageItem(id=passed.id, value=vector),))
