"""An index together with what scores its candidates: the one search that is measured, tuned and served.

Layer: `worker.embed.search`, above `shapes` and `vectors`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pagemill_worker.embed.search.manifest import Effort
from pagemill_worker.embed.search.parts import Flags, Matrix
from pagemill_worker.embed.search.shapes import Found, Shape
from pagemill_worker.embed.search.vectors import BLOCK_ROWS, Positions, Rows, blocks


@dataclass(slots=True)
class Finder:
    """Searches a shape. `rows` are its rows for scoring, needed of a compressed shape alone; `alive` None: all live."""

    shape: Shape
    effort: Effort
    rows: Rows | None = None
    alive: Flags | None = None

    @property
    def living(self) -> int:
        """How many positions can be found."""
        return self.shape.count if self.alive is None else int(self.alive.sum())

    def search(self, queries: Matrix, k: int) -> Found:
        """The `k` nearest living rows of each query, by cosine, equal scores by position."""
        k = max(1, min(k, self.shape.count))
        if self.rows is None or self.shape.is_exact:
            return ordered(*self.shape.search(queries, k, self.effort, self.alive))
        wanted = min(self.shape.count, k * self.effort.candidates)
        _, candidates = self.shape.search(queries, wanted, self.effort, self.alive)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        positions = np.full((len(queries), k), -1, np.int64)
        for number, query in enumerate(queries):
            found = candidates[number]
            found = found[found >= 0]
            exact = self.rows.take(found) @ query
            best = np.lexsort((found, -exact))[:k]
            scores[number, : len(best)], positions[number, : len(best)] = exact[best], found[best]
        return scores, positions

    def all_rows(self) -> Iterator[tuple[int, Matrix]]:
        """(first position, rows) over every position, as they are scored."""
        if self.rows is not None:
            yield from blocks(self.rows)
            return
        for first in range(0, self.shape.count, BLOCK_ROWS):
            yield first, self.shape.rows(first, BLOCK_ROWS)

    def take(self, position: int) -> Matrix:
        """One row as it is scored, shape (1, dim)."""
        if self.rows is not None:
            return self.rows.take(np.asarray([position], np.int64))
        return self.shape.rows(position, 1)


def ordered(scores: Matrix, positions: Positions) -> Found:
    """The same, equal scores by position, nothing last."""
    scores = np.where(positions < 0, -np.inf, scores).astype(np.float32)
    order = np.lexsort((positions, -scores), axis=1)
    return np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)


def nearest(finder: Finder, queries: Matrix, k: int, *, without: Positions) -> Found:
    """The true `k` nearest living rows of each query but the position in `without`, by looking at every row."""
    scores = np.full((len(queries), k), -np.inf, np.float32)
    positions = np.full((len(queries), k), -1, np.int64)
    for first, rows in finder.all_rows():
        here = queries @ rows.T
        if finder.alive is not None:
            here[:, ~finder.alive[first : first + len(rows)]] = -np.inf
        own = np.flatnonzero((without >= first) & (without < first + len(rows)))
        here[own, without[own] - first] = -np.inf
        scores, positions = merge_best((scores, positions), here, first, k)
    return scores, positions


def merge_best(best: Found, scores: Matrix, first: int, k: int) -> Found:
    """The best `k` of `best` and of a block of `scores` whose columns are positions from `first`."""
    count = min(k, scores.shape[1])
    top = np.argpartition(-scores, count - 1, axis=1)[:, :count] if count < scores.shape[1] else None
    columns = np.broadcast_to(np.arange(scores.shape[1]), scores.shape) if top is None else top
    merged = np.concatenate([best[0], np.take_along_axis(scores, columns, 1)], axis=1)
    places = np.concatenate([best[1], columns.astype(np.int64) + first], axis=1)
    places = np.where(np.isneginf(merged), -1, places)
    merged, places = ordered(merged, places)
    return merged[:, :k], places[:, :k]
