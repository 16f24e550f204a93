"""The loop anyone would write: N processes that each load the engine, then read file after file. No store, no protocol.

A program: the work as JSON on standard input, the moments at which pages were finished as JSON on standard output.
It uses the same loader and the same engine adapter as the worker, so that what is compared is everything around them.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import Queue
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from queue import Empty

from pydantic import BaseModel, ConfigDict, JsonValue

from pagemill_worker.images.limits import ImageLimits
from pagemill_worker.images.load import load_page
from pagemill_worker.ocr.engine import EngineSettings
from pagemill_worker.ocr.registry import adapter


class LoopWork(BaseModel):
    """What to read, with what. `threads` share one loaded engine, for engines that wait for a remote side."""

    model_config = ConfigDict(frozen=True)

    engine: str
    options: dict[str, JsonValue] = {}
    api_key: str | None = None
    pages: list[Path]
    processes: int
    threads: int = 1


class LoopDone(BaseModel):
    """When each page was finished, seconds of the epoch, and how many regions there were in all."""

    finished: list[float]
    regions: int


def main() -> None:
    """Run the loop."""
    work = LoopWork.model_validate_json(sys.stdin.read())
    spawning = multiprocessing.get_context("spawn")  # as fresh as a worker's
    following = spawning.Value("q", 0)
    answers: Queue[tuple[list[float], int]] = spawning.Queue()
    readers = [spawning.Process(target=read_all, args=(work, following, answers)) for _ in range(work.processes)]
    for reader in readers:
        reader.start()
    done: list[tuple[list[float], int]] = []
    while len(done) < len(readers):
        try:
            done.append(answers.get(timeout=1.0))
        except Empty:
            if any(reader.exitcode for reader in readers):
                sys.exit("a process of the loop died")
    for reader in readers:
        reader.join()
    finished = sorted(moment for moments, _ in done for moment in moments)
    sys.stdout.write(json.dumps({"finished": finished, "regions": sum(regions for _, regions in done)}))


def read_all(work: LoopWork, following: Synchronized[int], answers: Queue[tuple[list[float], int]]) -> None:
    """One process: take the next page until there is none."""
    # As the worker's children are: Linux shares cores by session, so on a busy machine a loop in one session would get
    # a third of what three sessions get.
    os.setsid()
    settings = EngineSettings(work.engine, options=work.options, api_key=work.api_key)
    engine = adapter(work.engine).load(settings)
    limits = ImageLimits()
    finished: list[float] = []
    regions: list[int] = []

    def read_on(_: int) -> None:
        while True:
            with following.get_lock():
                index = following.value
                following.value = index + 1
            if index >= len(work.pages):
                return
            path = work.pages[index]
            page = load_page(path.read_bytes(), page=None, limits=limits, origin=path.name)
            regions.append(len(engine.recognise(page).regions))
            finished.append(time.time())

    if work.threads == 1:
        read_on(0)
    else:
        with ThreadPoolExecutor(work.threads) as executor:
            list(executor.map(read_on, range(work.threads)))
    engine.close()
    answers.put((finished, sum(regions)))


if __name__ == "__main__":
    main()
