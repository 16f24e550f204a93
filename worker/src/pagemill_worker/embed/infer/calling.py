"""How a partition's tensors are given to a model, and how its answer becomes rows.

Layer: `worker.embed.infer`, below the adapters. One rule for all of them: a model that takes as many inputs as there
are tensors gets them in order, or by name where the names of a dict are its own; a model that takes one input gets
several tensors as one list, as the reference study's does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pagemill_core.errors import EncoderFailed, PartUnreadable

Predictions = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a model takes: the names of its inputs in order; `is_list` when its one input is a list of tensors.

    `is_open` models (`*args`) take any number.
    """

    names: tuple[str, ...]
    is_list: bool = False
    is_open: bool = False


def inputs_of(forward: Callable[..., Any]) -> Inputs:
    """What a Python `forward` takes; inputs with a default need not be given and are not counted."""
    names, is_open = [], False
    for parameter in inspect.signature(forward).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            is_open = True
        elif parameter.default is parameter.empty and parameter.kind in (
            parameter.POSITIONAL_ONLY,
            parameter.POSITIONAL_OR_KEYWORD,
        ):
            names.append(parameter.name)
    return Inputs(tuple(names), is_open=is_open)


def arranged(
    inputs: Inputs, tensors: Sequence[Tensor], names: Sequence[str] | None
) -> tuple[tuple[Any, ...], dict[str, Tensor]]:
    """The arguments of one call, by position and by name. Raises: PartUnreadable when model and partition differ."""
    if names is not None and len(names) == len(inputs.names) and set(names) == set(inputs.names):
        return (), dict(zip(names, tensors, strict=True))
    if inputs.is_list or (len(inputs.names) == 1 and len(tensors) > 1 and not inputs.is_open):
        return (list(tensors),), {}
    if inputs.is_open or len(inputs.names) == len(tensors):
        return tuple(tensors), {}
    raise PartUnreadable(
        f"the model takes {len(inputs.names)} inputs ({', '.join(inputs.names)}), and the partition has {len(tensors)} "
        "tensors besides its labels",
        advice="name the tensor with the true values in inference.labels, or give the model as many inputs",
    )


def as_rows(output: object, rows: int) -> Predictions:
    """A model's answer as float32 of shape (rows, values a row), on the CPU.

    Raises: EncoderFailed for an answer that is not one tensor with a row for each input row.
    """
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, (tuple, list)) and len(output) == 1:
        output = output[0]
    if isinstance(output, np.ndarray):
        output = torch.from_numpy(output)
    if not isinstance(output, Tensor) or output.is_complex():
        raise EncoderFailed(f"the model gave a {type(output).__name__}, and one tensor of numbers is wanted")
    if output.ndim == 0 or output.shape[0] != rows:
        raise EncoderFailed(f"the model gave shape {tuple(output.shape)} for {rows} rows")
    flat = output.detach().reshape(rows, -1 if output.numel() else int(np.prod(output.shape[1:])))
    return flat.to(device="cpu", dtype=torch.float32).numpy()
