"""Searching without an index: every row of the dataset against the query, a batch in memory at a time.

Layer: `worker.embed.search`; numpy alone. Exact, and what an index is measured against.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pagemill_worker.embed.search.finder import merge_best
from pagemill_worker.embed.search.hits import Hit
from pagemill_worker.embed.search.ids import SHOWN, RowFacts, facts_table
from pagemill_worker.embed.search.parts import Matrix, open_part, unit_rows
from pagemill_worker.embed.search.rows import LiveRows, RowBatch
from pagemill_worker.embed.search.space import Space
from pagemill_worker.embed.search.vectors import Positions


@dataclass(slots=True)
class ParquetSearcher:
    """A `Searcher` that reads the dataset anew at each search."""

    rows: LiveRows
    space: Space
    dim: int
    how: str = "exact, through Parquet"
    notes: tuple[str, ...] = ()
    _looked_at: int | None = None

    @property
    def count(self) -> int:
        """An upper bound until a search has looked: rows that failed or were replaced are told only by reading."""
        if self._looked_at is not None:
            return self._looked_at
        return sum(open_part(self.rows.store, part).metadata.num_rows for part in self.rows.parts)

    def search(self, queries: Matrix, k: int) -> list[list[Hit]]:
        best = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
        facts: dict[int, RowFacts] = {}
        first = 0
        for batch in self.rows.batches(SHOWN):
            unit, usable = unit_rows(batch.vectors)
            best = merge_best(best, np.asarray(queries @ unit.T, np.float32), first, k)
            facts = _kept(facts, best[1], _facts(batch, np.flatnonzero(usable)), first)
            first += len(unit)
        self._looked_at = first
        return [_hits(scores, places, facts) for scores, places in zip(*best, strict=True)]

    def vector_of(self, item_id: str) -> Matrix | None:
        for batch in self.rows.batches(["id"]):
            at = batch.columns.column("id").to_pylist()
            if item_id in at:
                unit, _ = unit_rows(batch.vectors[[at.index(item_id)]])
                return unit[0] if len(unit) else None
        return None


def _facts(batch: RowBatch, usable: Positions) -> pa.Table:
    return facts_table(batch.columns, batch.part).take(pa.array(usable))


def _kept(known: dict[int, RowFacts], places: Positions, table: pa.Table, first: int) -> dict[int, RowFacts]:
    """The facts of the places that are the best so far; those of the latest batch stand in `table`."""
    needed = {int(place) for place in places.flat if place >= 0}
    new = sorted(place for place in needed if place >= first)
    rows = table.take(pa.array([place - first for place in new], pa.int64())).to_pylist()
    found = {place: RowFacts.of(row) for place, row in zip(new, rows, strict=True)}
    return {place: fact for place, fact in known.items() if place in needed} | found


def _hits(scores: Matrix, places: Positions, facts: dict[int, RowFacts]) -> list[Hit]:
    pairs = [(float(score), facts[int(place)]) for score, place in zip(scores, places, strict=True) if place >= 0]
    return [Hit(rank, score, fact) for rank, (score, fact) in enumerate(pairs, 1)]
