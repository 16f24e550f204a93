"""Which arithmetic a model computes in, decided from the machine before any model is loaded.

Layer: `worker.embed`; reads /proc only, imports no machine-learning package, so that a plan can state the precision
of rows that other processes will make. Those are then told the outcome, never the word auto.
"""

from __future__ import annotations

import functools
from pathlib import Path

from pagemill_core.errors import InvalidSpecError
from pagemill_worker.embed.encoder import Precision

# With either, matrices of 16-bit weights multiply faster than of 32-bit ones; without, twice as slowly.
_FAST_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16"})


def resolve_precision(asked: Precision, *, on_gpu: bool, has_batch_norm: bool, flags: frozenset[str]) -> Precision:
    """The precision to compute in; `auto` is decided by the device and the model.

    A network with batch normalisation stays in float32 on CPUs: its running variances lose too much in 16 bits, and
    its depth-wise convolutions are slower there. Raises: InvalidSpecError for what the device cannot do.
    """
    if asked == "auto":
        if on_gpu:
            return "float16" if has_batch_norm else "bfloat16"
        return "bfloat16" if flags & _FAST_BFLOAT16 and not has_batch_norm else "float32"
    if asked == "int8" and on_gpu:
        raise InvalidSpecError("precision int8 is for CPUs only", advice="say auto or bfloat16 for a GPU")
    if asked == "float16" and not on_gpu:
        raise InvalidSpecError(
            "precision float16 is for GPUs only", advice="say auto for a CPU; the rows' own format is `dtype`"
        )
    return asked


@functools.cache
def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """What the CPU says it can do; empty where it does not say."""
    try:
        lines = cpuinfo.read_text("ascii", "replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()
