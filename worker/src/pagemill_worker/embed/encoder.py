"""What an encoder is: pictures or texts in, one row of numbers each out. The contract stands here.

Layer: `worker.embed`, its bottom; imports no machine-learning package. Implementations live beside it, one loader a
module, and are made by `embed.load`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pagemill_worker.images.page import PageImage

Side = Literal["visual", "text"]
Pooling = Literal["pooler", "projection", "cls", "mean", "lastToken"]
Precision = Literal["auto", "float32", "bfloat16", "float16", "int8"]
Trust = Literal["none", "python", "pickle"]
OnTooLong = Literal["truncate", "fail", "window"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Which model: `name` from the registry or `uri`; None where the job says nothing.

    `cache` is the folder where fetched models lie.
    """

    name: str | None = None
    uri: str | None = None
    revision: str | None = None
    digest: str | None = None
    loader: str | None = None
    trust: Trust = "none"
    cache: Path = Path()


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSettings:
    """One encoder as a job asks for it. `batch_size` None: found by the encoder itself; `dim` None: the model's own.

    `max_tokens`, `prompt` and `on_too_long` matter to texts only. `threads` is for the model's arithmetic.
    `plans_for_gpu`: nothing is computed here, but on machines that have a GPU.
    """

    side: Side
    model: ModelSettings
    pooling: Pooling | None = None
    normalize: bool = True
    dtype: Literal["float32", "float16"] = "float32"
    dim: int | None = None
    precision: Precision = "auto"
    batch_size: int | None = None
    device: str = "auto"
    threads: int = 1
    max_tokens: int | None = None
    prompt: str = ""
    on_too_long: OnTooLong = "truncate"
    plans_for_gpu: bool = False


@dataclass(frozen=True, slots=True)
class EncodedText:
    """How a text went through the model: tokens seen, whether some were cut off, over how many windows it was read."""

    tokens: int
    truncated: bool = False
    windows: int = 1


@dataclass(frozen=True, slots=True)
class EncoderFacts:
    """What is known of a loaded encoder.

    `fingerprint` is everything that decides a row: model digest, loader, preprocessing, pooling, precision, versions.
    """

    dim: int
    batch_size: int
    device: str
    precision: Precision
    max_tokens: int | None = None
    fingerprint: Mapping[str, object] = field(default_factory=dict)


class VisualEncoder(Protocol):
    """A loaded model for pictures."""

    facts: EncoderFacts

    def prepare(self, page: PageImage) -> NDArray[np.uint8]:
        """The picture as the model wants it: shape (side, side, 3), uint8 RGB; runs beside `encode` in other threads.

        Raises: ItemError for a picture that cannot be prepared.
        """

    def encode(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Encode prepared pictures, one row each in order: shape (len(pictures), dim), in the settings' dtype.

        Out of device memory halves the batch and goes on. Rows do not depend on what else is in the batch, within
        1e-3 cosine. Raises: EncoderFailed for a row that is not finite or, where rows are normalised, has no length.
        """

    def close(self) -> None:
        """Free the model."""


class TextEncoder(Protocol):
    """A loaded model for texts."""

    facts: EncoderFacts

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[EncodedText]]:
        """Encode texts, one row each in order: shape (len(texts), dim); an empty text is a text like any other.

        Raises: TextTooLong (an ItemError, naming the tokens) when `on_too_long` is "fail"; `encode` of the rest is the
        caller's business.
        """

    def close(self) -> None:
        """Free the model."""
