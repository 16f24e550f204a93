"""The demo model's vision trunk: a classifier of photographs that speaks the language of a text encoder.

Layer: `worker.embed`. EfficientNet-Lite0 names one of 1,000 things in a picture; the row of the picture is the mean of
those names' text rows, weighted by how sure it is of each ("convex combination of semantic embeddings", Norouzi et
al., 2013). So pictures and texts share one space without any training. Imports torch and timm.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.models import is_model, register_model

NAME = "pagemill_conse_lite0"
CLASSES, DIM = 1000, 384
_NAMES_KEPT = 50  # of the thousand, by certainty; the long tail is noise


class ConseTrunk(torch.nn.Module):
    """Pictures (n, 3, 224, 224) to rows (n, 384) of length 1. `class_rows` are the names' text rows, (1000, 384)."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.base = base
        self.num_features = self.head_hidden_size = DIM
        self.pretrained_cfg = self.default_cfg = base.default_cfg
        self.register_buffer("class_rows", torch.zeros(CLASSES, DIM))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        sure, names = torch.softmax(self.base(pictures).float(), 1).topk(_NAMES_KEPT, 1)
        class_rows: torch.Tensor = self.get_buffer("class_rows").float()
        rows = (sure.unsqueeze(-1) * class_rows[names]).sum(1)
        return torch.nn.functional.normalize(rows, dim=1).to(pictures.dtype)


def register() -> None:
    """Make the trunk known to timm, by whose names open_clip configs call it."""
    if is_model(NAME):
        return

    def build(pretrained: bool = False, **_arguments: Any) -> ConseTrunk:
        return ConseTrunk(timm.create_model("tf_efficientnet_lite0", pretrained=False))

    build.__name__, build.__module__ = NAME, __name__
    register_model(build)
