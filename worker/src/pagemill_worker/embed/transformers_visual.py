"""Vision models of the transformers library: SigLIP, CLIP, DINOv2, and any AutoModel with the pooling it is told.

Layer: `worker.embed`. Imports torch and transformers. Of a model with two towers only the vision tower is loaded:
called whole, it would ask for texts.
"""

from __future__ import annotations

from pathlib import Path

import torch

from pagemill_core.errors import InvalidSpecError
from pagemill_worker.embed.device import Place
from pagemill_worker.embed.encoder import Pooling
from pagemill_worker.embed.pooling import pooled
from pagemill_worker.embed.recipe import VisualRecipe, model_type
from pagemill_worker.embed.registry import ResolvedModel
from pagemill_worker.embed.transformers_load import load_pretrained
from pagemill_worker.embed.visual import VisualTower


def load_visual_tower(model: ResolvedModel, recipe: VisualRecipe, where: Place) -> VisualTower:
    """The vision tower. Raises: InvalidSpecError, IntegrityError."""
    picture, pooling = recipe.picture, recipe.pooling
    if picture is None or pooling is None:
        raise InvalidSpecError(f"{model.name}: how pictures are prepared and pooled is not known")
    tower = load_pretrained(_class_name(model.folder, pooling), model.folder, where, pooling)

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        return pooled(tower(pixel_values=pixels), None, pooling, model.name)

    return VisualTower(model.name, tower, forward, picture, where)


def _class_name(folder: Path, pooling: Pooling) -> str:
    match model_type(folder), pooling:
        case "clip", "projection":
            return "CLIPVisionModelWithProjection"
        case "clip", _:
            return "CLIPVisionModel"
        case "siglip", _:
            return "SiglipVisionModel"
    return "AutoModel"
