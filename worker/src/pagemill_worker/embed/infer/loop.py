"""The loop over a partition's batches, with what the reports of ranks need to know about it.

Layer: `worker.embed.infer`. Nothing but slicing, calling and copying stands inside the loop, so that it runs as fast
as a bare one. Batches go in order and the last may be short.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from pagemill_worker.embed.infer.adapters import Adapter
from pagemill_worker.embed.infer.calling import Predictions
from pagemill_worker.embed.infer.partitions import Partition


@dataclass(frozen=True, slots=True)
class LoopFacts:
    """What a loop did. `cpu_s` is the process's CPU time over all threads, `wall_s` what a clock on the wall shows.

    `input_bits` is the size of all input values.
    """

    rows: int
    batches: int
    input_bits: int
    wall_s: float
    cpu_s: float


def predict(adapter: Adapter, partition: Partition, batch_size: int) -> tuple[Predictions, LoopFacts]:
    """Predictions of every row in order: float32 of shape (rows, values a row). Raises: ItemError of the adapter.

    A partition without rows gives shape (0, 0) and no batch.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    found = [
        adapter(partition.batch(start, start + batch_size), partition.names)
        for start in range(0, partition.rows, batch_size)
    ]
    wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    rows = np.concatenate(found) if found else np.zeros((0, 0), np.float32)
    return rows, LoopFacts(partition.rows, len(found), partition.bits, wall_s, cpu_s)


@dataclass(frozen=True, slots=True)
class BatchMemory:
    """What one batch allocates on the CPU by torch's profiler: sums over operators, freed again or not, no peak.

    `profile` is the profiler's line for the total.
    """

    total_bytes: int
    self_bytes: int
    rows: int
    profile: str


def batch_memory(adapter: Adapter, partition: Partition, batch_size: int) -> BatchMemory:
    """Run the first batch under torch's profiler, once a process and outside of all timing; it warms the model too."""
    batch = partition.batch(0, batch_size)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profiled:
        adapter(batch, partition.names)
    total = profiled.key_averages().total_average()
    return BatchMemory(
        int(total.cpu_memory_usage), int(total.self_cpu_memory_usage), min(batch_size, partition.rows), str(total)
    )
