"""How one row is taken from a transformer's answer.

Layer: `worker.embed`. Imports torch.
"""

from __future__ import annotations

from typing import Any

import torch

from pagemill_core.errors import EngineUnavailableError
from pagemill_worker.embed.encoder import Pooling


def pooled(answer: Any, mask: torch.Tensor | None, pooling: Pooling, model: str) -> torch.Tensor:
    """Rows of shape (n, dim) from a model's answer; `mask` (n, tokens) is 1 where a token is, None where all are.

    Raises: EngineUnavailableError when the model gives nothing to take the row from.
    """
    if pooling in ("pooler", "projection"):
        names = ("pooler_output",) if pooling == "pooler" else ("image_embeds", "text_embeds")
        found = next((value for name in names if (value := getattr(answer, name, None)) is not None), None)
        if not isinstance(found, torch.Tensor):
            raise EngineUnavailableError(
                f"{model} has no {pooling} output", advice="set `pooling` to cls, mean or lastToken"
            )
        return found
    states: torch.Tensor = answer.last_hidden_state
    if pooling == "cls":
        return states[:, 0]
    if pooling == "lastToken":
        last = states.shape[1] - 1 if mask is None else mask.sum(1) - 1
        return states[torch.arange(len(states), device=states.device), last]
    if mask is None:
        return states.float().mean(1)
    weights = mask.unsqueeze(-1).float()
    return (states.float() * weights).sum(1) / weights.sum(1)
