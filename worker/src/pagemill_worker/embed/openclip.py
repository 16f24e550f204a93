"""open_clip models from a folder or a checkpoint file, never with random weights.

Layer: `worker.embed`. Imports torch and open_clip. open_clip's own `create_model` would start with random numbers
when a folder has no weights, and asks a hub for the config of a text tower; so models are built from their config here
and filled strictly.
"""

from __future__ import annotations

import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip  # type: ignore[import-untyped]
import torch
from open_clip.factory import load_checkpoint  # type: ignore[import-untyped]
from open_clip.model import CLIP, CustomTextCLIP  # type: ignore[import-untyped]
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer  # type: ignore[import-untyped]

from pagemill_core.errors import IntegrityError, InvalidSpecError
from pagemill_worker.embed import demo_conse
from pagemill_worker.embed.device import Place, settle
from pagemill_worker.embed.openclip_config import OpenClipConfig, read_open_clip
from pagemill_worker.embed.recipe import TextRecipe, VisualRecipe
from pagemill_worker.embed.registry import ResolvedModel, check_keys
from pagemill_worker.embed.text import TextTower
from pagemill_worker.embed.tokens import clip_windows, transformers_windows
from pagemill_worker.embed.visual import VisualTower

# Stands for a text tower of transformers where only pictures are read: building that one takes seconds.
_NO_TEXT = {"context_length": 1, "vocab_size": 2, "width": 8, "heads": 1, "layers": 1}


def load_visual_tower(model: ResolvedModel, recipe: VisualRecipe, where: Place) -> VisualTower:
    """The vision tower. Raises: InvalidSpecError, IntegrityError."""
    if recipe.picture is None:
        raise InvalidSpecError(f"{model.name}: how pictures are prepared is not known")
    clip = _build(read_open_clip(model.path), model, pictures_only=True)
    module = settle(clip.visual, where)
    return VisualTower(model.name, module, module, recipe.picture, where)


def load_text_tower(model: ResolvedModel, recipe: TextRecipe, where: Place) -> TextTower:
    """The text tower with its tokenizer. Raises: InvalidSpecError, IntegrityError."""
    config = read_open_clip(model.path)
    windows, pad = _tokenizer(config, model, recipe.max_tokens)
    clip = _build(config, model)
    del clip.visual
    settle(clip, where)
    return TextTower(
        model.name,
        clip,
        windows,
        lambda ids, _mask: clip.encode_text(ids),  # it tells padding by its id
        max_tokens=recipe.max_tokens,
        pad_id=pad,
        where=where,
        pad_to=config.context_length if recipe.pad_to_max else None,
    )


def _build(config: OpenClipConfig, model: ResolvedModel, *, pictures_only: bool = False) -> Any:
    arguments = deepcopy(dict(config.model))
    if "multimodal_cfg" in arguments:
        raise InvalidSpecError(f"{model.name}: CoCa models are not offered", advice="name a CLIP or SigLIP model")
    is_custom = arguments.pop("custom_text", False) or config.has_transformers_text
    skips_text = pictures_only and config.has_transformers_text
    if skips_text:
        arguments["text_cfg"] = dict(_NO_TEXT)
    elif config.has_transformers_text:
        # The folder itself, wherever it lies: a name would be asked of a hub.
        folder = str(model.folder)
        arguments["text_cfg"] |= {"hf_model_name": folder, "hf_tokenizer_name": folder, "hf_model_pretrained": False}
    if "timm_model_name" in config.vision:
        demo_conse.register()
        arguments["vision_cfg"]["timm_model_pretrained"] = False
    clip = (CustomTextCLIP if is_custom else CLIP)(**arguments)
    _fill(clip, config.weights, model, "text." if skips_text else None)
    return clip.eval()


def _fill(clip: torch.nn.Module, weights: Path, model: ResolvedModel, skipped: str | None) -> None:
    try:
        keys = load_checkpoint(clip, str(weights), strict=False, weights_only=model.trust != "pickle")
    except pickle.UnpicklingError as error:
        raise InvalidSpecError(
            f"{weights} holds pickled objects, which run code when they are loaded",
            advice="save the weights as .safetensors, or, if you made the file, say `trust: pickle` with its digest",
        ) from error
    except RuntimeError as error:
        raise IntegrityError(
            f"{weights} does not fit the model's config: {str(error).splitlines()[-1].strip()}",
            advice="fetch config and weights of one revision",
        ) from error
    # The scale and bias of the training's loss decide no row.
    missing, unexpected = (
        [key for key in found if key not in ("logit_scale", "logit_bias") and not (skipped and key.startswith(skipped))]
        for found in (keys.missing_keys, keys.unexpected_keys)
    )
    check_keys(model.name, missing, unexpected)


def _tokenizer(config: OpenClipConfig, model: ResolvedModel, max_tokens: int) -> Any:
    if not config.text.get("hf_tokenizer_name"):
        made = open_clip.get_tokenizer(f"local-dir:{model.folder}") if model.path.is_dir() else SimpleTokenizer()
        if not isinstance(made, SimpleTokenizer):
            raise InvalidSpecError(f"{model.name}: its tokenizer is not offered")
        return clip_windows(made, max_tokens)
    made = HFTokenizer(str(model.folder), context_length=max_tokens)
    if config.text.get("tokenizer_mode") or made.strip_sep_token:
        raise InvalidSpecError(f"{model.name}: its tokenizer's mode is not offered")
    return transformers_windows(model.folder, max_tokens, made.clean_fn)
