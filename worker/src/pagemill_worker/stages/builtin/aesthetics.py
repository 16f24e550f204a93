"""Filter pictures by how pleasing a small network finds the row that CLIP made of them.

Layer: `worker.stages.builtin`. Stands behind `encode`, so the picture goes through the large model once. The network is
the one of the LAION aesthetic predictor: five linear layers over a CLIP ViT-L/14 row of length 1, nothing in between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pagemill_core.errors import EncoderFailed, EngineUnavailableError, IntegrityError
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_worker.environment import source_fetcher
from pagemill_worker.stages.contract import Stage, StageItem, Vector

LAYERS = (0, 2, 4, 6, 7)  # the numbers of its linear layers; dropout stood between them in training
WIDTHS = (768, 1024, 128, 64, 16, 1)
MAX_BYTES = 64 << 20  # the published file has 4 MB
LENGTH_TOLERANCE = 1e-2  # of a row of length 1, in float16
Layer: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]


class Aesthetics(Stage):
    """Keeps pictures whose score is at least `threshold`; notes the `score` of each, also of those it filters.

    `weights` is where the safetensors file lies and `digest` its sha256:…; both are required. `threshold` left out
    filters nothing.
    """

    takes = Vector
    gives = Vector
    batch_size = 64
    version: ClassVar[str] = "1"

    def __init__(self, weights: str, digest: str, threshold: str = "") -> None:
        if not digest.startswith("sha256:"):
            raise ValueError("digest: pin the weights by sha256:…")
        self._weights = weights
        self._digest = digest.lower()
        self._threshold = float(threshold) if threshold else None
        self._layers: list[Layer] = []

    def setup(self) -> None:
        """Read the weights. Raises: IntegrityError for another digest, EngineUnavailableError for another network."""
        fetcher = source_fetcher(S3Settings(), ())
        uri = self._weights if "://" in self._weights else str(Path(self._weights).absolute())
        self._layers = read_layers(fetcher.fetch(uri, max_bytes=MAX_BYTES).data, self._digest)

    def process(self, items: Sequence[StageItem]) -> Sequence[StageItem]:
        """Raises: EncoderFailed for a row that cannot be scored: an error, never a low score."""
        scores = self.scores(np.stack([_usable(item.value.values) for item in items]))
        return [self._judged(item, float(score)) for item, score in zip(items, scores, strict=True)]

    def scores(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """One score a row; `rows` are float32 of shape (rows, 768) and of length 1."""
        for weight, bias in self._layers:
            rows = rows @ weight.T + bias
        return rows[:, 0]

    def _judged(self, item: StageItem, score: float) -> StageItem:
        shown = round(score, 4)
        if not np.isfinite(score):
            raise EncoderFailed(f"aesthetics: the score of {item.id} is {score}")
        if self._threshold is not None and score < self._threshold:
            return item.drop(f"score {shown} is below {self._threshold:g}", score=shown)
        return item.with_notes(score=shown)


def read_layers(data: bytes, digest: str) -> list[Layer]:
    """The network in a safetensors file: (weight of shape (out, in), bias) for each layer."""
    import safetensors.numpy

    found = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if found != digest:
        raise IntegrityError(
            f"aesthetics: the weights have digest {found}, and the job pins {digest}",
            advice="name the file that was meant, or pin the new digest once you trust it",
        )
    tensors = {name.removeprefix("mlp."): value for name, value in safetensors.numpy.load(data).items()}
    wanted = {
        f"layers.{number}.{part}": shape
        for number, before, after in zip(LAYERS, WIDTHS, WIDTHS[1:], strict=False)
        for part, shape in (("weight", (after, before)), ("bias", (after,)))
    }
    if {name: value.shape for name, value in tensors.items()} != wanted:
        raise EngineUnavailableError(
            "aesthetics: the weights are of another network",
            advice=f"it has the layers {', '.join(sorted(wanted))} over rows of 768",
        )
    return [
        (tensors[f"layers.{number}.weight"].astype(np.float32), tensors[f"layers.{number}.bias"].astype(np.float32))
        for number in LAYERS
    ]


def _usable(row: NDArray[np.floating]) -> NDArray[np.float32]:
    if row.shape != WIDTHS[:1]:
        raise EncoderFailed(f"aesthetics scores rows of {WIDTHS[0]} numbers, of CLIP ViT-L/14; this one has {len(row)}")
    values = row.astype(np.float32)
    length = float(np.linalg.norm(values))
    if not np.isfinite(length) or not length:
        raise EncoderFailed("aesthetics: the row is not finite or has no length")
    return values if abs(length - 1) < LENGTH_TOLERANCE else values / length
