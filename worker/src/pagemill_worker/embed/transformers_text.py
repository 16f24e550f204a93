"""Text encoders of the transformers library, alone or inside a sentence-transformers folder.

Layer: `worker.embed`. Imports torch and transformers. Weights fill the model strictly; code in a model's folder never
runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pagemill_core.errors import InvalidSpecError
from pagemill_worker.embed.device import Place, settle
from pagemill_worker.embed.encoder import Pooling
from pagemill_worker.embed.files import read_json
from pagemill_worker.embed.pooling import pooled
from pagemill_worker.embed.recipe import TextRecipe, model_type
from pagemill_worker.embed.registry import ResolvedModel, check_keys, weights_of
from pagemill_worker.embed.text import TextTower
from pagemill_worker.embed.tokens import transformers_windows
from pagemill_worker.embed.transformers_load import load_pretrained, load_weights

_ACTIVATIONS = {
    "Identity": torch.nn.Identity,
    "Tanh": torch.nn.Tanh,
    "ReLU": torch.nn.ReLU,
    "GELU": torch.nn.GELU,
}


def load_text_tower(model: ResolvedModel, recipe: TextRecipe, where: Place) -> TextTower:
    """The text model with its tokenizer. Raises: InvalidSpecError, IntegrityError."""
    windows, pad = transformers_windows(
        recipe.folder, recipe.max_tokens, str.lower if recipe.lowercase else lambda text: text
    )
    pooling = recipe.pooling
    if pooling is None:
        raise InvalidSpecError(f"{model.name}: set `pooling`", advice="to mean, cls or lastToken")
    transformer = load_pretrained(_class_name(recipe.folder, pooling), recipe.folder, where, pooling)
    dense = settle(torch.nn.Sequential(*[_dense(folder, model) for folder in recipe.dense]), where)
    arguments: dict[str, Any] = {"use_cache": False} if _has_cache(transformer) else {}

    def forward(ids: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        shown = None if recipe.pad_to_max else mask
        answer = transformer(input_ids=ids, attention_mask=shown, **arguments)
        rows = pooled(answer, mask, pooling, model.name)
        return dense(rows.to(where.dtype)) if recipe.dense else rows

    return TextTower(
        model.name,
        transformer,
        windows,
        forward,
        max_tokens=recipe.max_tokens,
        pad_id=pad,
        where=where,
        pad_to=recipe.max_tokens if recipe.pad_to_max else None,
    )


def _class_name(folder: Path, pooling: Pooling) -> str:
    match model_type(folder), pooling:
        case "clip", "projection":
            return "CLIPTextModelWithProjection"
        case "clip", _:
            return "CLIPTextModel"
        case "siglip", _:
            return "SiglipTextModel"
    return "AutoModel"


def _has_cache(transformer: Any) -> bool:
    return bool(getattr(transformer.config, "use_cache", False)) and hasattr(transformer.config, "num_key_value_heads")


def _dense(folder: Path, model: ResolvedModel) -> torch.nn.Module:
    """One Dense module of a sentence-transformers folder."""
    config = read_json(folder / "config.json")
    activation = str(config.get("activation_function", "")).rpartition(".")[2]
    if activation not in _ACTIVATIONS:
        raise InvalidSpecError(f"{model.name}: {folder.name} uses {activation}, which is not offered")
    linear = torch.nn.Linear(
        int(config["in_features"]), int(config["out_features"]), bias=bool(config.get("bias", True))
    )
    weights = load_weights(weights_of(folder, ("model.safetensors", "pytorch_model.bin")), model.trust)
    keys = linear.load_state_dict({key.removeprefix("linear."): value for key, value in weights.items()}, strict=False)
    check_keys(f"{model.name}/{folder.name}", list(keys.missing_keys), list(keys.unexpected_keys))
    return torch.nn.Sequential(linear, _ACTIVATIONS[activation]())
