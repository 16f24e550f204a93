"""A real open_clip model small enough to be made on the spot: seeded weights, every part of the loading path.

Layer: `worker.testing`. Its rows say nothing about pictures, but they differ between pictures and stay the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 48, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
DIM = 24
_PREPROCESS = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}


def tiny_clip(folder: Path) -> Path:
    """Write the model's folder, and return it. The same bytes each time."""
    import torch
    from open_clip.model import CLIP  # type: ignore[import-untyped]
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": _PREPROCESS}))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        weights = CLIP(**json.loads(json.dumps(CONFIG))).state_dict()
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder
