"""Where a model computes and in which numbers, as torch says it.

Layer: `worker.embed`. Imported only by what loads a model: it imports torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch

from pagemill_core.errors import EngineUnavailableError
from pagemill_worker.embed.batches import CPU_BATCH, BatchSize, probe
from pagemill_worker.embed.encoder import EncoderSettings, Precision

_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.float32}


@dataclass(frozen=True, slots=True)
class Place:
    """A device, and the type of the model's numbers on it."""

    device: torch.device
    precision: Precision

    @property
    def dtype(self) -> torch.dtype:
        return _TYPES[self.precision]

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"


def place(settings: EncoderSettings, precision: Precision, *, on_gpu: bool) -> Place:
    """Set torch's threads and choose the device. Raises: EngineUnavailableError when torch cannot use the GPU."""
    torch.set_num_threads(settings.threads)
    with suppress(RuntimeError):  # may be set once a process only
        torch.set_num_interop_threads(1)
    if not on_gpu:
        return Place(torch.device("cpu"), precision)
    if not torch.cuda.is_available():
        raise EngineUnavailableError(
            "device: this machine has a GPU that torch cannot use",
            advice="install the torch that fits the driver, or say `device: cpu`",
        )
    return Place(torch.device("cuda"), precision)


def batch_size(asked: int | None, where: Place, encode: Callable[[int], object]) -> BatchSize:
    """The size to start with; on a GPU found by encoding `n` made-up items."""
    if asked is not None or not where.is_gpu:
        return BatchSize(asked or CPU_BATCH, _free if where.is_gpu else lambda: None)

    def run(size: int) -> float:
        _free()
        torch.cuda.reset_peak_memory_stats()
        encode(size)  # the first call of a shape also chooses its kernels
        torch.cuda.synchronize()
        started = time.perf_counter()
        encode(size)
        torch.cuda.synchronize()
        return time.perf_counter() - started

    # What other processes hold is theirs: several small models may share a GPU.
    usable_bytes = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    found = probe(run, lambda: torch.cuda.max_memory_allocated() / usable_bytes)
    _free()
    return BatchSize(found, _free)


def _free() -> None:
    torch.cuda.empty_cache()


def settle(module: torch.nn.Module, where: Place) -> torch.nn.Module:
    """The module ready to encode: on its device, in its numbers, in evaluation mode, without gradients.

    Weights themselves are cast: on CPUs autocast converts them at every call and was slower than float32.
    """
    module = module.to(device=where.device, dtype=where.dtype).eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


def ids_tensor(rows: Sequence[Sequence[int]], width: int, pad: int, where: Place) -> torch.Tensor:
    """Token ids, padded on the right: shape (len(rows), width)."""
    return torch.tensor([[*row, *([pad] * (width - len(row)))] for row in rows], dtype=torch.long, device=where.device)
