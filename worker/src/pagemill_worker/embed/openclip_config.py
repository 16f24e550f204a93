"""The config of an open_clip model, from its folder or from a checkpoint's name.

Layer: `worker.embed`; reads JSON only. A checkpoint alone holds no architecture, so its name has to say it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagemill_core.errors import InvalidSpecError
from pagemill_worker.embed.digest import WEIGHTS
from pagemill_worker.embed.files import read_json
from pagemill_worker.embed.registry import weights_of
from pagemill_worker.ocr import packages

CONFIG = "open_clip_config.json"
_PREFERRED = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
)
_DEFAULT_CONTEXT = 77
# timm's names of networks without batch normalisation begin like this.
_TRANSFORMER_TRUNKS = ("vit", "eva", "deit", "beit", "swin", "convnext", "naflexvit")


@dataclass(frozen=True, slots=True)
class OpenClipConfig:
    """`model` is open_clip's `model_cfg`, `preprocess` its `preprocess_cfg`; `weights` the checkpoint beside them."""

    model: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    weights: Path

    @property
    def vision(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.model["vision_cfg"]
        return found

    @property
    def text(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.model["text_cfg"]
        return found

    @property
    def dim(self) -> int:
        return int(self.model["embed_dim"])

    @property
    def image_size(self) -> object:
        return self.vision.get("image_size", 224)

    @property
    def context_length(self) -> int:
        return int(self.text.get("context_length", _DEFAULT_CONTEXT))

    @property
    def has_transformers_text(self) -> bool:
        return bool(self.text.get("hf_model_name"))

    @property
    def has_batch_norm(self) -> bool:
        trunk = self.vision.get("timm_model_name")
        if trunk:
            return not str(trunk).startswith(_TRANSFORMER_TRUNKS)
        return isinstance(self.vision.get("layers"), list)  # open_clip's own ResNets list the layers of their stages


def read_open_clip(path: Path) -> OpenClipConfig:
    """Read a folder with open_clip_config.json, or a checkpoint named `<architecture>[__<anything>].<suffix>`.

    Raises: InvalidSpecError.
    """
    if path.is_file():
        return OpenClipConfig(_architecture(path), {}, path)
    if not (path / CONFIG).is_file():
        only = [file for file in path.iterdir() if file.suffix in WEIGHTS]
        if len(only) == 1:
            return OpenClipConfig(_architecture(only[0]), {}, only[0])
    found = read_json(path / CONFIG)
    model = found.get("model_cfg")
    if not isinstance(model, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= model.keys():
        raise InvalidSpecError(
            f"{path / CONFIG} holds no model_cfg", advice="save it with open_clip, or fetch it again"
        )
    preprocess = found.get("preprocess_cfg")
    return OpenClipConfig(model, preprocess if isinstance(preprocess, dict) else {}, weights_of(path, _PREFERRED))


def _architecture(checkpoint: Path) -> Mapping[str, Any]:
    name = checkpoint.stem.split("__")[0]
    root = packages.package_dir("open_clip")
    if root is None:
        raise packages.not_installed("open_clip", engine="openClip", extra="embed")
    config = root / "model_configs" / f"{name}.json"
    if not config.is_file():
        raise InvalidSpecError(
            f"{checkpoint} does not say its architecture",
            advice="name the file like ViT-B-32.safetensors or ViT-B-32__mine.safetensors, after one of open_clip's "
            f"architectures, or put {CONFIG} beside it and name the folder",
        )
    return read_json(config)
