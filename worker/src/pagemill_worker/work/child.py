"""The child process: holds one loaded model and answers items one after the other.

Layer: `worker.work`, the far end of `pool`. Started as `python -m pagemill_worker.work.child`; speaks frames on its
standard input and output. It may hang, crash or be killed at any time, and only the items in its hands suffer. It
writes nothing to the store: committing is the supervisor's.

Messages in: the set-up first, then {"item": …} each; end of input means finish and leave.
Messages out: {"ready": …}; for each item {"begin": row}, {"wait": row} once it is prepared, {"at": [rows]} when its
batch is at work, {"end": row, …} exactly once; {"told": …} what it says of itself, at most once a second; {"fatal": …}
at most once.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from typing import IO, Any, cast

from pagemill_core.clock import SystemClock
from pagemill_core.errors import EXIT_BUG, ItemError, PagemillError, RetriableError
from pagemill_core.work.conditional import Backoff
from pagemill_worker.items import ItemFailure, PlannedItem
from pagemill_worker.stages.sizing import Pace, prepare_threads
from pagemill_worker.work import frames
from pagemill_worker.work.runner import GpuRunner, LongRunner, Prepared, Processed, Runner

PREPARE_PATIENCE_S = 600.0
TELL_EVERY_S = 1.0
MEASURED_ITEMS = 4  # arbitrary: enough to pass over what is slow once
PR_SET_PDEATHSIG = 1


class Child:
    """One runner with a reader thread, a fetch thread and as many inference threads as the runner wants."""

    def __init__(self, runner: Runner, source: IO[bytes], sink: IO[bytes]) -> None:
        self._runner = runner
        self._source = source
        self._sink = sink
        self._sink_lock = threading.Lock()
        self._todo: queue.SimpleQueue[PlannedItem | None] = queue.SimpleQueue()
        # One batch at work and one ready: more would only hold memory.
        self._ready: queue.Queue[Prepared | None] = queue.Queue(maxsize=max(1, runner.batch_size * runner.threads))
        self._preparing = int(getattr(runner, "prepare_threads", 1))
        self._most_preparing = max(self._preparing, int(getattr(runner, "most_prepare_threads", 1)))
        self._pace_lock = threading.Lock()
        self._prepare_pace, self._model_pace = Pace(), Pace()
        self._at_work: list[int] = []
        self._told_at = -TELL_EVERY_S
        if isinstance(runner, LongRunner):
            runner.listen(lambda: self._send({"at": self._at_work}))

    def run(self) -> None:
        """Answer items until the input ends. Raises: what a thread raised."""
        steps = [self._read, *[self._prepare] * self._preparing, *[self._process] * self._runner.threads]
        with ThreadPoolExecutor(len(steps) + self._most_preparing - self._preparing) as executor:
            self._executor = executor
            futures = [executor.submit(step) for step in steps]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                if future.exception() is not None:
                    self._give_up(future)

    def _give_up(self, future: Future[None]) -> None:
        """Leave at once with what a thread raised: the others may wait for it for ever."""
        error = future.exception()
        if isinstance(error, PagemillError):
            self._send({"fatal": {"class": type(error).__name__, "message": error.message, "advice": error.advice}})
        else:
            traceback.print_exception(error)
        sys.stderr.flush()
        os._exit(error.exit_code if isinstance(error, PagemillError) else EXIT_BUG)

    def _read(self) -> None:
        while (message := frames.read(self._source)) is not None:
            self._todo.put(item_from_message(message["item"]))
        self._todo.put(None)

    def _prepare(self) -> None:
        while (item := self._todo.get()) is not None:
            self._send({"begin": item.row})
            backoff = Backoff(SystemClock(), deadline_s=PREPARE_PATIENCE_S)
            started = time.perf_counter()
            while True:
                try:
                    prepared = self._runner.prepare(item)
                    self._measured(self._prepare_pace, time.perf_counter() - started)
                    self._send({"wait": item.row})  # from here on no death is its doing, until it is at work
                    self._ready.put(prepared)
                    break
                except ItemError as error:
                    self._answer(item.row, Processed("failed", failure=ItemFailure.of(error)), None)
                    break
                except RetriableError as error:
                    backoff.wait(error)
        self._todo.put(None)  # for the other threads that prepare
        with self._pace_lock:
            self._preparing -= 1
            is_last = not self._preparing
        if is_last:
            self._ready.put(None)

    def _measured(self, pace: Pace, seconds: float) -> None:
        """Note what an item took; more threads prepare as soon as the model turns out to be faster than one."""
        with self._pace_lock:
            pace.add(seconds)
            if min(self._prepare_pace.count, self._model_pace.count) < MEASURED_ITEMS or not self._preparing:
                return
            front, model = self._prepare_pace.seconds, self._model_pace.seconds
            if prepare_threads(front, model, self._most_preparing) > self._preparing:
                self._preparing += 1
                self._executor.submit(self._prepare).add_done_callback(self._look)

    def _look(self, future: Future[None]) -> None:
        if future.exception() is not None:
            self._give_up(future)

    def _process(self) -> None:
        batch: list[Prepared] = []
        while True:
            prepared = self._ready.get()
            if prepared is not None:
                batch.append(prepared)
            more = prepared is not None and len(batch) < self._runner.batch_size and not self._ready.empty()
            if batch and not more:
                self._infer(batch)
                batch = []
            if prepared is None:
                self._ready.put(None)  # for the other inference threads
                return

    def _infer(self, batch: list[Prepared]) -> None:
        self._at_work = [prepared.item.row for prepared in batch]
        self._send({"at": self._at_work})
        self._tell()
        started = time.perf_counter()
        answers = self._runner.process(batch)
        seconds = (time.perf_counter() - started) / len(batch)
        self._measured(self._model_pace, seconds)
        for prepared, answer in zip(batch, answers, strict=True):
            self._answer(prepared.item.row, answer, prepared, seconds)

    def _tell(self) -> None:
        """What the supervisor cannot see from outside."""
        now = time.monotonic()
        if now - self._told_at < TELL_EVERY_S:
            return
        self._told_at = now
        gpu_bytes = self._runner.gpu_bytes() if isinstance(self._runner, GpuRunner) else 0
        threads = {"prepareThreads": self._preparing, "modelThreads": self._runner.threads}
        self._send({"told": {**threads, "gpuBytes": gpu_bytes}})

    def _answer(self, row: int, answer: Processed, prepared: Prepared | None, seconds: float = 0.0) -> None:
        stages = {**(prepared.seconds if prepared else {}), **(answer.seconds or {"infer": seconds})}
        self._send(
            {
                "end": row,
                "status": answer.status,
                "payload": answer.payload,
                "failure": asdict(answer.failure) if answer.failure else None,
                "seconds": {stage: round(value, 4) for stage, value in stages.items()},
                "versionRead": prepared.version_read if prepared else None,
                "sizeBytes": prepared.size_bytes if prepared else 0,
                "apiCost": answer.api_cost,
            },
            answer.data,
        )

    def _send(self, message: Mapping[str, Any], data: bytes | None = None) -> None:
        with self._sink_lock:
            self._sink.write(frames.encode(message, data))
            self._sink.flush()


def item_to_message(item: PlannedItem) -> dict[str, Any]:
    """A planned item without the source's columns, which no runner needs."""
    return {
        "row": item.row,
        "id": item.id,
        "uri": item.uri,
        "page": item.page,
        "sizeBytes": item.size_bytes,
        "version": item.version,
        "earlierVersion": item.earlier_version,
        "input": dict(item.input),
    }


def item_from_message(message: Mapping[str, Any]) -> PlannedItem:
    return PlannedItem(
        row=message["row"],
        id=message["id"],
        uri=message["uri"],
        page=message["page"],
        size_bytes=message["sizeBytes"],
        version=message["version"],
        earlier_version=message["earlierVersion"],
        input=message["input"],
    )


def make_runner(setup: Mapping[str, Any]) -> Runner:
    """The runner that the set-up names as "module:function"; only modules of the worker are allowed."""
    module_name, _, function_name = str(setup["runner"]).partition(":")
    if not module_name.startswith("pagemill_worker."):
        raise ValueError(f"{module_name} is no module of the worker")
    factory = getattr(importlib.import_module(module_name), function_name)
    return cast(Runner, factory(setup["settings"]))


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies, so that no orphan goes on working. Linux only."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def main() -> int:
    """Run one child. Returns: the exit status; 0 only at the end of the input."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
    sink = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever an engine prints must not land among the frames
    source = sys.stdin.buffer
    setup = frames.read(source)
    if setup is None:
        return 0
    os.environ.update(setup.get("environment", {}))  # secrets, which nobody sees in this process's environment
    try:
        runner = make_runner(setup)
        sink.write(frames.encode({"ready": os.getpid()}))
        Child(runner, source, sink).run()
        runner.close()
    except PagemillError as error:
        fatal = {"class": type(error).__name__, "message": error.message, "advice": error.advice}
        sink.write(frames.encode({"fatal": fatal}))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
