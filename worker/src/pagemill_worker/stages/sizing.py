"""How many threads and processes a chain of stages wants, from what its stages were measured to take.

Layer: `worker.stages`; pure. A child asks it while it works, `pagemill stages test` at the end of a trial.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

FRONT = frozenset({"fetch", "decode", "list"})
SMOOTHING = 0.2  # of the latest measurement; arbitrary: some ten items decide


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is worth having: `prepare_threads` in each of `processes`, and the stage that limits the rate."""

    processes: int
    prepare_threads: int
    bottleneck: str
    items_per_second: float


def prepare_threads(front_seconds: float, model_seconds: float, most: int) -> int:
    """Threads that fetch and decode so that the model never waits, 1 to `most`; both are seconds an item."""
    if front_seconds <= 0:
        return 1
    if model_seconds <= 0:
        return max(1, most)
    return min(max(1, most), max(1, math.ceil(front_seconds / model_seconds - 1e-9)))


def wanted(seconds: Mapping[str, float], cores: int, *, model_on_gpu: bool = False) -> Wanted:
    """Sizes for a machine, from seconds an item by stage.

    With the model on the CPU every stage takes cores, and a process of one thread on each core is best. With it on a
    GPU one process holds the model and the cores fetch and decode.
    """
    front = sum(value for name, value in seconds.items() if name in FRONT)
    model = sum(value for name, value in seconds.items() if name not in FRONT)
    slowest = max(seconds, key=lambda name: seconds[name], default="")
    if not model_on_gpu:
        total = front + model
        return Wanted(max(1, cores), 1, slowest, cores / total if total else 0.0)
    threads = prepare_threads(front, model, cores)
    rate = min(threads / front if front else math.inf, 1 / model if model else math.inf)
    limiting = slowest if front / threads <= model else max(FRONT & set(seconds), key=lambda name: seconds[name])
    return Wanted(1, threads, limiting, rate if math.isfinite(rate) else 0.0)


class Pace:
    """Seconds an item of one stage, the latest counting most. Used under its owner's lock."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.count = 0

    def add(self, seconds: float) -> None:
        """Take one item's measurement."""
        self.seconds = seconds if not self.count else self.seconds + SMOOTHING * (seconds - self.seconds)
        self.count += 1
