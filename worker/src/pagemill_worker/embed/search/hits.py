"""What a search answers with, and whoever can search.

Layer: `worker.embed.search`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from pagemill_worker.embed.search.ids import RowFacts
from pagemill_worker.embed.search.parts import Matrix
from pagemill_worker.embed.search.space import Space


@dataclass(frozen=True, slots=True)
class Hit:
    """One row found: `rank` from 1, `score` its cosine with the query."""

    rank: int
    score: float
    row: RowFacts

    def as_json(self) -> dict[str, Any]:
        """What programs get."""
        row = self.row
        found: dict[str, Any] = {"rank": self.rank, "score": round(self.score, 6), "id": row.id}
        extra = {
            "key": row.key,
            "caption": row.caption,
            "sourceUri": row.source_uri,
            "page": row.page,
            "book": row.book,
            "widthPx": row.width_px,
            "heightPx": row.height_px,
            "run": row.run,
            "row": row.row,
        }
        return found | {name: value for name, value in extra.items() if value is not None}


class Searcher(Protocol):
    """Finds the nearest rows of one output. `how` says in a word by what; `notes` are for people."""

    how: str
    dim: int
    space: Space
    notes: tuple[str, ...]

    @property
    def count(self) -> int:
        """Rows that can be found, as far as is known without reading them."""

    def search(self, queries: Matrix, k: int) -> list[list[Hit]]:
        """The `k` nearest rows of each query (shape (n, dim), rows of length 1), best first."""

    def vector_of(self, item_id: str) -> Matrix | None:
        """The row of an id, of length 1, shape (dim,); None when there is none."""
