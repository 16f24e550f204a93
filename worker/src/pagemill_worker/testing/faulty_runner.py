"""A runner whose items say how they want to fail: the last path segment of an item's URI is its instruction.

Layer: `worker.testing`. Runs in a real child process, so that deaths are real deaths.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pagemill_core.errors import EngineFailed, ImageMissing
from pagemill_worker.items import ItemFailure, PlannedItem
from pagemill_worker.work.runner import Prepared, Processed

RUNNER = "pagemill_worker.testing.faulty_runner:make_runner"
BALLAST_BYTES = 64 << 20
GULP_BYTES = 512 << 20  # what an item that says gulp needs for a while
GULP_S = 1.0  # long enough for the supervisor to see it


def setup_message(*, batch_size: int = 1, threads: int = 1, refuse: bool = False, log: str = "") -> dict[str, Any]:
    """The set-up of a faulty runner; `log` is a file that gets a line for each item begun, `refuse` fails the load."""
    return {
        "runner": RUNNER,
        "settings": {"batch_size": batch_size, "threads": threads, "refuse": refuse, "log": log},
    }


def make_runner(settings: Mapping[str, Any]) -> FaultyRunner:
    """Make the runner, or end the process when asked to refuse."""
    if settings["refuse"]:
        os._exit(1)
    return FaultyRunner(int(settings["batch_size"]), int(settings["threads"]), str(settings["log"]))


class FaultyRunner:
    """Does as items say: ok, missing, engine, hang, hang-prepare, segfault, abort, exit, kill, eat, gulp, slow."""

    def __init__(self, batch_size: int, threads: int, log: str) -> None:
        self.batch_size = batch_size
        self.threads = threads
        self._log = log
        self._ballast: list[mmap.mmap] = []

    def prepare(self, item: PlannedItem) -> Prepared:
        wish = _wish(item)
        if wish == "missing":
            raise ImageMissing(f"Image file not found: {item.uri}")
        if wish == "hang-prepare":
            time.sleep(3600)
        return Prepared(item, wish, len(item.uri), "v1", {"fetch": 0.0})

    def process(self, batch: Sequence[Prepared]) -> Sequence[Processed]:
        if self._log:
            with Path(self._log).open("a", encoding="utf-8") as log:
                log.writelines(f"{prepared.item.row}\n" for prepared in batch)
        return [self._one(prepared) for prepared in batch]

    def close(self) -> None:
        self._ballast.clear()

    def _one(self, prepared: Prepared) -> Processed:
        wish = prepared.value
        if wish == "engine":
            return Processed("failed", failure=ItemFailure.of(EngineFailed("the engine gave up")))
        if wish == "slow":
            time.sleep(0.2)
        if wish == "hang":
            time.sleep(3600)
        if wish == "segfault":
            ctypes.string_at(0)
        if wish == "abort":
            os.abort()
        if wish == "exit":
            os._exit(3)
        if wish == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if wish == "bug":
            raise RuntimeError("planted")
        self._use_memory(wish)
        return Processed("succeeded", payload={"text": wish})

    def _use_memory(self, wish: str) -> None:
        while wish == "eat":
            self._eat()
        if wish == "gulp":
            for _ in range(GULP_BYTES // BALLAST_BYTES):
                self._eat()
            time.sleep(GULP_S)
            self._ballast.clear()

    def _eat(self) -> None:
        ballast = mmap.mmap(-1, BALLAST_BYTES)
        ballast.write(b"x" * BALLAST_BYTES)
        self._ballast.append(ballast)


def _wish(item: PlannedItem) -> str:
    return item.uri.rpartition("/")[2]
