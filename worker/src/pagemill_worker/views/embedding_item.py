"""One item of an EmbeddingJob as JSON: how it ended, what is told of it, its vectors.

Layer: `worker.views`; pure. What `pagemill cat` prints; no run writes such files.
"""

from __future__ import annotations

from typing import Any

from pagemill_worker.embed.rows import unpack
from pagemill_worker.fetch.fetched import shown_uri
from pagemill_worker.items import ItemResult
from pagemill_worker.views.book_record import tensor_key
from pagemill_worker.views.json_text import encode

MAX_NUMBERS = 65_536  # of vectors in the JSON; a book's are in its tensors


def render_embedding_item(result: ItemResult, run: str) -> bytes:
    """The item as indented JSON. Vectors are lists of numbers, one for each row; of a book too large for that, and of
    every side, the shape is told."""
    payload = dict(result.payload or {})
    facts = payload.pop("rows", {})
    sides = unpack(facts, result.data, result.item.id) if facts else {}
    is_short = sum(rows.size for rows in sides.values()) <= MAX_NUMBERS
    vectors: dict[str, Any] = {}
    for side, rows in sides.items():
        vectors[side] = {"shape": list(rows.shape), "dtype": facts[side]["dtype"]}
        if is_short:
            vectors[side]["rows"] = [[float(number) for number in row] for row in rows]
        elif "pages" in payload:
            vectors[side]["key"] = tensor_key(side, result.item.id)
    return encode(
        {
            "id": result.item.id,
            "run": run,
            "status": result.status,
            "source_uri": shown_uri(result.item.uri),
            "version": result.version_read or result.item.version,
            "columns": dict(result.item.columns),
            "facts": payload,
            "vectors": vectors,
        }
    )
