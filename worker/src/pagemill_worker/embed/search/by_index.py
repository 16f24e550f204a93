"""Searching by the index.

Layer: `worker.embed.search`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pagemill_core.storage.store import ObjectStore
from pagemill_worker.embed.search.finder import Finder
from pagemill_worker.embed.search.hits import Hit
from pagemill_worker.embed.search.ids import Ids
from pagemill_worker.embed.search.local import local_file
from pagemill_worker.embed.search.manifest import IndexManifest
from pagemill_worker.embed.search.parts import Matrix
from pagemill_worker.embed.search.shapes import Shape
from pagemill_worker.embed.search.space import Space
from pagemill_worker.embed.search.vectors import stored_rows


@dataclass(slots=True)
class IndexSearcher:
    """A `Searcher` that holds the index in memory. Rows of a compressed index are read as they are scored."""

    finder: Finder
    ids: Ids
    space: Space
    dim: int
    how: str
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return self.finder.living

    def search(self, queries: Matrix, k: int) -> list[list[Hit]]:
        scores, positions = self.finder.search(np.ascontiguousarray(queries, np.float32), k)
        found = []
        for row_scores, row_positions in zip(scores, positions, strict=True):
            there = row_positions >= 0
            facts = self.ids.take(row_positions[there])
            pairs = zip(row_scores[there].tolist(), facts, strict=True)
            found.append([Hit(rank, score, fact) for rank, (score, fact) in enumerate(pairs, 1)])
        return found

    def vector_of(self, item_id: str) -> Matrix | None:
        position = self.ids.find(item_id)
        return None if position is None else np.asarray(self.finder.take(position)[0], np.float32)


@contextmanager
def open_index(
    store: ObjectStore, manifest: IndexManifest, *, threads: int = 1, cache: Path | None = None
) -> Iterator[IndexSearcher]:
    """The index in memory. `cache` keeps copies of indexes that lie elsewhere. Raises: IntegrityError."""
    with local_file(store, manifest.index, cache) as path:
        shape = Shape.read(manifest.kind, manifest.dim, path, threads)
        ids = Ids(store, manifest.ids)
        rows = None if shape.is_exact else stored_rows(store, manifest.vectors, manifest.dim)
        alive = ids.alive() if manifest.report.dead else None
        finder = Finder(shape, manifest.report.effort, rows, alive)
        yield IndexSearcher(finder, ids, manifest.space, manifest.dim, f"{manifest.kind} index of {manifest.run}")
