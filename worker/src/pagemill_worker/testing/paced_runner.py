"""A runner whose input path and whose model take the time they are told: the pace of a decoder and of an encoder.

Layer: `worker.testing`. Runs in a real child process. Sleeping stands for a GPU, which computes without the process.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from pagemill_worker.items import PlannedItem
from pagemill_worker.work.runner import Prepared, Processed

RUNNER = "pagemill_worker.testing.paced_runner:make_runner"


def setup_message(*, prepare_s: float, model_s: float, most_threads: int) -> dict[str, Any]:
    """The set-up of a runner that takes `prepare_s` to fetch and decode an item, and `model_s` to encode it."""
    return {"runner": RUNNER, "settings": {"prepare_s": prepare_s, "model_s": model_s, "most_threads": most_threads}}


def make_runner(settings: Mapping[str, Any]) -> PacedRunner:
    """Make the runner."""
    return PacedRunner(float(settings["prepare_s"]), float(settings["model_s"]), int(settings["most_threads"]))


class PacedRunner:
    """Answers every item, at its pace."""

    batch_size = 1
    threads = 1
    prepare_threads = 1

    def __init__(self, prepare_s: float, model_s: float, most_threads: int) -> None:
        self._prepare_s = prepare_s
        self._model_s = model_s
        self.most_prepare_threads = most_threads

    def prepare(self, item: PlannedItem) -> Prepared:
        time.sleep(self._prepare_s)
        return Prepared(item, None, 1, None, {"decode": self._prepare_s})

    def process(self, batch: Sequence[Prepared]) -> Sequence[Processed]:
        time.sleep(self._model_s * len(batch))
        return [Processed("succeeded", {}, seconds={"encode": self._model_s}) for _ in batch]

    def close(self) -> None:
        """Nothing is held."""
