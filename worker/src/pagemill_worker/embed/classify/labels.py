"""The kinds of pages and what is written of a book's: probabilities for programs, labels for people.

Layer: `worker.embed.classify`, its bottom; pure, numpy only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LABELS = ("advertisement", "cover", "story", "textstory", "first-page", "credits", "art", "text", "back_cover")
"""The kinds of pages in the order of the classes of the reference checkpoints."""

SIDE = "labels"
"""What a book's probabilities are called beside its visual and text rows."""

Probabilities = NDArray[np.float32]


def probabilities_key(book: str) -> str:
    """Where a book's probabilities lie below the output; `/` in an id nests."""
    return f"labels/{book}_probs.pt"


def labels_key(book: str) -> str:
    """Where a book's labels lie below the output."""
    return f"labels/{book}.json"


def page_labels(probabilities: Probabilities, labels: Sequence[str] = LABELS) -> list[dict[str, Any]]:
    """One entry a page: its index from 0, the most likely label (the first of equals) and that label's probability."""
    best = probabilities.argmax(axis=1)
    return [
        {"index": index, "label": labels[at], "confidence": round(float(probabilities[index, at]), 6)}
        for index, at in enumerate(best)
    ]


def labels_json(book: str, probabilities: Probabilities, labels: Sequence[str] = LABELS) -> str:
    """The content of `labels/<book>.json`: UTF-8, the same bytes for the same rows."""
    pages = page_labels(probabilities, labels)
    return json.dumps({"book_id": book, "labels": list(labels), "pages": pages}, indent=2, ensure_ascii=False) + "\n"
