"""Models of the transformers library, filled strictly from one folder.

Layer: `worker.embed`. Imports torch and transformers. No hub, no code from the folder, no pickled objects; a weight
that is missing is an error instead of a random number.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

from pagemill_core.errors import InvalidSpecError
from pagemill_worker.embed.device import Place
from pagemill_worker.embed.encoder import Pooling, Trust
from pagemill_worker.embed.registry import check_keys

# Weights of what a row does not pass through: another tower, a head for training, buffers that old files still list.
_OTHERS = (
    "text_model.",
    "vision_model.",
    "text_projection",
    "visual_projection",
    "logit_scale",
    "logit_bias",
    "lm_head.",
    "cls.",
    "classifier.",
    "score.",
    "qa_outputs.",
    "mask_token",
)
_OTHER_ENDS = ("position_ids", "mask_token")


def load_pretrained(class_name: str, folder: Path, where: Place, pooling: Pooling) -> Any:
    """The model of that class from the folder, on its device and in its numbers.

    What transformers would only report of keys that do not match is judged here, so its report is left out.

    Raises: InvalidSpecError, IntegrityError.
    """
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        raise InvalidSpecError(
            f"{folder} holds no weights; a model without them gives random numbers",
            advice="fetch model.safetensors beside the config",
        )
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        model, info = getattr(transformers, class_name).from_pretrained(
            str(folder),
            dtype=where.dtype,  # cast while reading: rotary positions, computed anew, stay exact
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            **_tower_config(class_name, folder),
        )
    except pickle.UnpicklingError as error:
        raise _pickled(folder) from error
    except ValueError as error:
        raise InvalidSpecError(
            f"{folder} cannot be loaded: {str(error).splitlines()[0]}",
            advice="code in a model's folder never runs here; a plug-in or modelImpl can carry such a model",
        ) from error
    missing = [key for key in info["missing_keys"] if pooling == "pooler" or not key.startswith("pooler.")]
    mismatched = [str(key[0] if isinstance(key, tuple) else key) for key in info["mismatched_keys"]]
    unexpected = [
        key for key in info["unexpected_keys"] if not key.startswith(_OTHERS) and not key.endswith(_OTHER_ENDS)
    ]
    check_keys(str(folder), [*missing, *mismatched], unexpected)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model.to(where.device).eval()


def _tower_config(class_name: str, folder: Path) -> dict[str, Any]:
    """A CLIP model's projection has the length that the config names for both towers, not the tower's own default."""
    if not class_name.startswith("CLIP"):
        return {}
    whole = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    tower = getattr(whole, "text_config" if class_name.startswith("CLIPText") else "vision_config", None)
    if tower is None:
        return {}
    tower.projection_dim = whole.projection_dim
    return {"config": tower}


def load_weights(path: Path, trust: Trust) -> dict[str, torch.Tensor]:
    """The tensors of one file by name. Raises: InvalidSpecError for pickled objects that are not trusted."""
    if path.suffix == ".safetensors":
        tensors: dict[str, torch.Tensor] = load_file(str(path))
        return tensors
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=trust != "pickle")
    except pickle.UnpicklingError as error:
        raise _pickled(path) from error
    return {str(name): tensor for name, tensor in dict(loaded).items()}


def _pickled(path: Path) -> InvalidSpecError:
    return InvalidSpecError(
        f"{path} holds pickled objects, which run code when they are loaded",
        advice="save the weights as .safetensors",
    )
