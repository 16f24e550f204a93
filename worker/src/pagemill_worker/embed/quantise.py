"""8-bit weights for CPUs without fast 16-bit arithmetic: `precision: int8`, by request and checked while loading.

Layer: `worker.embed`. Imports torch. Weights are scaled a row each, once; what goes into a layer is scaled a token
each, at every call, so that a row never depends on what else is in its batch, as it would with one scale a batch.
Where a CPU has bfloat16 this is slower than that, so `auto` never chooses it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from pagemill_core.errors import InvalidSpecError

_LEVELS = 127.0
# Measured: rows of ViT-B/32 stay above 0.9999, of MiniLM above 0.986; a model below this finds other things.
_LEAST_COSINE = 0.98
_LEAST_SIDE = 64  # smaller layers gain nothing


class Int8Linear(torch.nn.Module):
    """A Linear layer in whole numbers: (…, in) to (…, out), float32 in and out."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / _LEVELS
        self.register_buffer("weight_int8", (weight / scale[:, None]).round().to(torch.int8).t().contiguous())
        self.register_buffer("scale", scale)
        bias: torch.Tensor | None = getattr(linear, "bias", None)
        self.register_buffer("bias", torch.zeros(len(weight)) if bias is None else bias.detach().float())

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        flat = given.reshape(-1, given.shape[-1])
        scale = flat.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / _LEVELS
        product = torch._int_mm((flat / scale).round().to(torch.int8), self.get_buffer("weight_int8"))
        rows = product.float().mul_(scale).mul_(self.get_buffer("scale")).add_(self.get_buffer("bias"))
        return rows.reshape(*given.shape[:-1], -1)


def quantise(module: torch.nn.Module, sample: Callable[[], NDArray[np.float32]], model: str) -> int:
    """Replace the large Linear layers of `module` in place. Returns: how many.

    `sample` encodes a few made-up inputs; its rows before and after are compared. Raises: InvalidSpecError when they
    moved too far, or when there is nothing to replace.
    """
    want = sample()
    count = _replace(module)
    if count == 0:
        raise InvalidSpecError(f"precision: {model} has no layers that int8 would help", advice="say `precision: auto`")
    found = sample()
    lengths = np.linalg.norm(want, axis=1) * np.linalg.norm(found, axis=1)
    cosine = float(((want * found).sum(1) / np.maximum(lengths, np.finfo(np.float32).tiny)).min())
    if not cosine >= _LEAST_COSINE:
        raise InvalidSpecError(
            f"precision: int8 moves the rows of {model} to a cosine of {cosine:.3f}, less than {_LEAST_COSINE}",
            advice="say `precision: auto`",
        )
    return count


def _replace(module: torch.nn.Module) -> int:
    count = 0
    for name, child in module.named_children():
        # Exactly Linear: attention modules use the weights of their own subclass without calling it.
        if type(child) is torch.nn.Linear and min(child.in_features, child.out_features) >= _LEAST_SIDE:
            setattr(module, name, Int8Linear(child))
            count += 1
        else:
            count += _replace(child)
    return count
