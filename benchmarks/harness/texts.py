"""Texts of mixed lengths for measuring encoders: sentences and paragraphs out of documents that packages ship.

Layer: `benchmarks.harness`. The files are kept below `place.work`.
"""

from __future__ import annotations

import json
import random
from importlib.metadata import distributions
from pathlib import Path

from benchmarks.harness.place import Place

LENGTHS_WORDS = (4, 8, 12, 20, 30, 60, 120)


def texts(place: Place, count: int) -> Path:
    """A JSON Lines file of `count` texts with the columns id and text; the same words for any count."""
    path = place.work / f"texts-{count}.jsonl"
    if not path.is_file():
        place.work.mkdir(parents=True, exist_ok=True)
        words = _words()
        chance = random.Random(0)  # noqa: S311
        lines = []
        for number in range(count):
            start = chance.randrange(len(words) - max(LENGTHS_WORDS))
            text = " ".join(words[start : start + chance.choice(LENGTHS_WORDS)])
            lines.append(json.dumps({"id": f"text_{number:06}", "text": text}))
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _words() -> list[str]:
    """The words of installed packages' descriptions, in the packages' name order."""
    found = sorted((each.metadata["Name"] or "", each.metadata.get_payload() or "") for each in distributions())
    return [word for _, text in found for word in str(text).split() if word.isascii() and len(word) < 30]
