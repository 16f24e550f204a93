"""How many items a model is given at once: found by trying, halved when memory runs out.

Layer: `worker.embed`; knows no machine-learning package by import, so every rule here is tested without a device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from pagemill_core.errors import EncoderFailed

CPU_BATCH = 16  # measured: beyond 8 to 16 pictures a CPU's caches gain nothing, and memory grows
GPU_LEAST, GPU_MOST = 8, 1024
# Of the device's memory, a probe stops growing above this share: other processes, and fragmentation, need the rest.
_MEMORY_SHARE = 0.6
_WORTHWHILE = 1.05  # a doubling that is not 5 % faster an item only adds waiting
# How CUDA, oneDNN and the C++ runtime say that memory ran out, instead of raising MemoryError.
_PHRASES = ("out of memory", "can't allocate memory", "bad_alloc", "DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED")

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in _PHRASES))
    )


class BatchSize:
    """A batch size that only ever falls; `free` is called before another try, to let go of what the failed one held."""

    def __init__(self, size: int, free: Callable[[], None] = lambda: None) -> None:
        self.size = max(1, size)
        self.halvings = 0
        self._free = free

    def run(self, items: Sequence[Item], call: Callable[[Sequence[Item]], Answer]) -> list[Answer]:
        """Call with at most `size` items at a time, in order; a call that runs out of memory is repeated in halves.

        Raises: MemoryError when one item alone is too large; whatever else `call` raises.
        """
        answers: list[Answer] = []
        at = 0
        while at < len(items):
            batch = items[at : at + self.size]
            try:
                answers.append(call(batch))
            except (MemoryError, RuntimeError) as error:
                if not ran_out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise MemoryError("one item alone does not fit into the device's memory") from error
                self.size = max(1, min(self.size, len(batch)) // 2)
                self.halvings += 1
            else:
                at += len(batch)
                continue
            # Outside the handler: the exception's traceback keeps the failed call's tensors alive.
            self._free()
        return answers


def probe(run: Callable[[int], float], memory_share: Callable[[], float]) -> int:
    """The batch size to start with on a GPU: doubled while it fits and pays.

    `run(n)` encodes n made-up items and returns the seconds it took; `memory_share` tells how much of the device's
    memory its last call used at most, 0 to 1.
    """
    best, best_s = GPU_LEAST, float("inf")
    size = GPU_LEAST
    while size <= GPU_MOST:
        try:
            seconds = run(size) / size
        except (MemoryError, RuntimeError) as error:
            if not ran_out_of_memory(error):
                raise
            return max(1, best if best < size else size // 2)
        if seconds * _WORTHWHILE > best_s:
            return best
        best, best_s = size, seconds
        if memory_share() * 2 > _MEMORY_SHARE:
            return best
        size *= 2
    return best


def check_count(rows: int, items: int, model: str) -> None:
    """Raises: EncoderFailed when a model gave another number of rows than it was given items."""
    if rows != items:
        raise EncoderFailed(f"{model} gave {rows} rows for {items} items")
