"""An encoder whose space is colour: a picture's mean colour, and the words for colours. For tests of whatever asks.

Layer: `worker.testing`; keeps the encoders' contract, loads nothing, knows nothing but red, green, blue and mixtures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pagemill_worker.embed.encoder import EncodedText, EncoderFacts, EncoderSettings
from pagemill_worker.images.page import PageImage

WORDS = {
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "yellow": (0.7, 0.7, 0.0),
    "white": (0.6, 0.6, 0.6),
}
MADE_BY = {"model": {"name": "colours", "loader": "colours", "digest": "sha256:c0"}}


def _facts() -> EncoderFacts:
    return EncoderFacts(dim=3, batch_size=1, device="cpu", precision="float32", fingerprint=MADE_BY)


@dataclass(slots=True)
class ColourPictures:
    """A `VisualEncoder`."""

    settings: EncoderSettings
    facts: EncoderFacts = field(default_factory=_facts)

    def prepare(self, page: PageImage) -> NDArray[np.uint8]:
        return page.pixels

    def encode(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        rows = np.stack([picture.reshape(-1, 3).mean(axis=0) for picture in pictures])
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    def close(self) -> None:
        return


@dataclass(slots=True)
class ColourTexts:
    """A `TextEncoder`: the sum of the colours that are named."""

    settings: EncoderSettings
    facts: EncoderFacts = field(default_factory=_facts)

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[EncodedText]]:
        rows = [sum((np.asarray(WORDS.get(word, (0, 0, 0))) for word in text.split()), np.zeros(3)) for text in texts]
        return np.asarray(rows, np.float32), [EncodedText(len(text.split())) for text in texts]

    def close(self) -> None:
        return
