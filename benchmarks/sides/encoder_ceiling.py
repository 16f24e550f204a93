"""What the model alone can do: N processes that each run forward passes over pictures or texts that lie ready.

A program: the work as JSON on standard input, the moments at which items were finished as JSON on standard output.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import numpy as np

from pagemill_worker.embed.encoder import EncoderSettings, ModelSettings
from pagemill_worker.embed.load import load_visual

ROUNDS_WARM = 2


def main() -> None:
    """Run the passes."""
    work: dict[str, Any] = json.loads(sys.stdin.read())
    spawning = multiprocessing.get_context("spawn")
    answers: Queue[list[float]] = spawning.Queue()
    barrier = spawning.Barrier(work["processes"])
    share = -(-work["count"] // work["processes"])
    encoders = [
        spawning.Process(target=passes, args=(work["model"], share, barrier, answers)) for _ in range(work["processes"])
    ]
    for encoder in encoders:
        encoder.start()
    finished = sorted(moment for _ in encoders for moment in answers.get())
    for encoder in encoders:
        encoder.join()
    sys.stdout.write(json.dumps({"finished": finished}))


def passes(model: dict[str, Any], count: int, barrier: Any, answers: Queue[list[float]]) -> None:
    """One process: `count` pictures in the encoder's own batches, after two batches that do not count."""
    os.setsid()
    settings = ModelSettings(**{**model, "cache": Path(model["cache"])})
    encoder = load_visual(EncoderSettings(side="visual", model=settings))
    batch = encoder.facts.batch_size
    ready = list(np.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3), dtype=np.uint8))
    for _ in range(ROUNDS_WARM):
        encoder.encode(ready)
    barrier.wait()
    finished: list[float] = []
    while len(finished) < count:
        encoder.encode(ready)
        finished += [time.time()] * batch
    answers.put(finished)


if __name__ == "__main__":
    main()
