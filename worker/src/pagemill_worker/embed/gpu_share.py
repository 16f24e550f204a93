"""A process's share of a GPU that several processes use, and how much of it it holds.

Layer: `worker.embed`.
"""

from __future__ import annotations


def take_gpu_share(share: float) -> None:
    """Let this process take no more than `share` (0 to 1) of the memory of the GPU it sees; nothing without a GPU."""
    import torch

    if torch.cuda.is_available() and 0 < share < 1:
        torch.cuda.set_per_process_memory_fraction(share, 0)


def gpu_bytes() -> int:
    """Memory of its GPU that this process has reserved, bytes; 0 without a GPU or before the first use of it."""
    import torch

    return torch.cuda.memory_reserved() if torch.cuda.is_available() else 0
