"""The encoder of pictures around any torch model: batches, the device's share of preprocessing, checked rows.

Layer: `worker.embed`. Loaders give it a `VisualTower`; it is what the runner sees. Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pagemill_worker.embed.batches import check_count
from pagemill_worker.embed.device import Place, batch_size
from pagemill_worker.embed.encoder import EncoderFacts, EncoderSettings
from pagemill_worker.embed.finish import check_dim, finish_rows
from pagemill_worker.embed.picture import PictureRecipe, Pixels, prepare
from pagemill_worker.embed.quantise import quantise
from pagemill_worker.images.page import PageImage
from pagemill_worker.ocr.guard import page_boundary

_SAMPLES = 4


@dataclass(slots=True)
class VisualTower:
    """A model that is ready: `forward` maps pictures, normalised, of shape (n, 3, height, width) to rows (n, dim).

    `module` is what `forward` computes with.
    """

    name: str
    module: torch.nn.Module
    forward: Callable[[torch.Tensor], torch.Tensor]
    picture: PictureRecipe
    where: Place


class TorchVisualEncoder:
    """A VisualEncoder over one tower."""

    def __init__(self, tower: VisualTower, settings: EncoderSettings, fingerprint: dict[str, Any]) -> None:
        self._tower = tower
        self._settings = settings
        self._scale, self._shift = _normalising(tower)
        if tower.where.precision == "int8":
            quantise(tower.module, lambda: self._forward(self._made_up(_SAMPLES)), tower.name)
        dim = check_dim(settings.dim, self._own_dim(), tower.name)
        self._batch = batch_size(settings.batch_size, tower.where, lambda size: self._forward(self._blank(size)))
        self.facts = EncoderFacts(
            dim=dim,
            batch_size=self._batch.size,
            device=str(tower.where.device),
            precision=tower.where.precision,
            fingerprint=fingerprint,
        )

    def prepare(self, page: PageImage) -> Pixels:
        with page_boundary(self._tower.name):
            return prepare(page.pixels, self._tower.picture)

    def encode(self, pictures: Sequence[Pixels]) -> NDArray[np.float32]:
        if not pictures:
            return np.zeros((0, self.facts.dim), self._settings.dtype)
        with page_boundary(self._tower.name):
            parts = self._batch.run(pictures, self._forward)
        rows = np.concatenate(parts)
        check_count(len(rows), len(pictures), self._tower.name)
        return finish_rows(rows, self._settings)

    def close(self) -> None:
        del self._tower

    def _own_dim(self) -> int:
        return int(self._forward(self._blank(1)).shape[1])

    def _blank(self, count: int) -> list[Pixels]:
        recipe = self._tower.picture
        return [np.zeros((recipe.height_px, recipe.width_px, 3), np.uint8)] * count

    def _made_up(self, count: int) -> list[Pixels]:
        """Smooth pictures, always the same ones."""
        recipe, random = self._tower.picture, np.random.default_rng(0)
        small = random.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
        return [prepare(picture, replace(recipe, resize="squash")) for picture in small]

    def _forward(self, pictures: Sequence[Pixels]) -> NDArray[np.float32]:
        where = self._tower.where
        with torch.inference_mode():
            stacked = torch.from_numpy(np.stack(pictures))
            if where.is_gpu:
                stacked = stacked.pin_memory().to(where.device, non_blocking=True)
            # The permuted view stays channels-last in memory, which convolutions of patches read as it is.
            pixels = stacked.permute(0, 3, 1, 2).float().mul_(self._scale).add_(self._shift).to(where.dtype)
            rows: NDArray[np.float32] = self._tower.forward(pixels).float().cpu().numpy()
        return rows


def _normalising(tower: VisualTower) -> tuple[torch.Tensor, torch.Tensor]:
    """(value / 255 - mean) / std as one multiplication and one addition, broadcast over (n, 3, height, width)."""
    mean, std = (
        torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (tower.picture.mean, tower.picture.std)
    )
    scale, shift = 1 / (255 * std), -mean / std
    return scale.float().to(tower.where.device), shift.float().to(tower.where.device)
