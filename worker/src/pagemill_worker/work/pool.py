"""The supervisor's side of its children: hand out items, collect answers, survive deaths.

Layer: `worker.work`. An item that hangs, crashes or eats memory fails alone: its child is killed, everything that was
in the child's hands is tried again, the suspects one at a time, and the one that was in flight at more deaths than
allowed is given up on. Not thread-safe: one supervisor thread drives it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import IO, Any, cast

from pagemill_core.errors import EngineUnavailableError, ItemKilledWorker, ItemTimeout
from pagemill_worker.fetch.fetched import shown_uri
from pagemill_worker.items import ItemFailure, ItemResult, PlannedItem
from pagemill_worker.machine import rss_bytes
from pagemill_worker.work import frames
from pagemill_worker.work.child import item_to_message
from pagemill_worker.work.last_words import describe_status, fatal_error
from pagemill_worker.work.usage import ChildState, PoolUsage, usage_of

READ_BYTES = 1 << 18
WATCH_EVERY_S = 0.25
MAX_START_FAILURES = 3
STDERR_TAIL_BYTES = 2000
_DIED_WITH_IT = "an earlier attempt died with it in flight"


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """How children are made and watched.

    `setup` is the first message to each child and may hold secrets: it goes through a pipe, never through arguments
    or the environment. `depth` is how many items a child holds at once. `memory_bytes` is each child's limit, None
    for no watch; an item tried again alone may use what the other children leave of theirs. `max_deaths`: an item in
    flight at more deaths than this is given up on. `recycle_after_items`: a child is replaced after that many, because
    engines leak. `slot_environments` are variables for each of the processes besides: which GPU it sees. `stages` are
    the stages of the job that its items' seconds may name.
    """

    setup: Mapping[str, Any]
    processes: int
    environment: Mapping[str, str]
    depth: int = 2
    item_timeout_s: float = 120.0
    memory_bytes: int | None = None
    max_deaths: int = 2
    recycle_after_items: int = 0
    stderr: IO[bytes] | None = None
    slot_environments: tuple[Mapping[str, str], ...] = ()
    stages: tuple[str, ...] = ()

    def environment_of(self, slot: int) -> dict[str, str]:
        """What the process in `slot` is started with."""
        slots = self.slot_environments
        return {**self.environment, **(slots[slot % len(slots)] if slots else {})}


@dataclass(slots=True)
class _Task:
    item: PlannedItem
    deaths: int = 0
    why: str = ""
    timed_out: bool = False


@dataclass(slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    slot: int = 0
    decoder: frames.Decoder = field(default_factory=frames.Decoder)
    ready: bool = False
    tasks: dict[int, _Task] = field(default_factory=dict)
    begun: dict[int, float] = field(default_factory=dict)
    prepared: set[int] = field(default_factory=set)
    told: Mapping[str, Any] = field(default_factory=dict)
    answered: int = 0
    retiring: bool = False
    cause: str = ""
    fatal: Mapping[str, str] | None = None

    @property
    def kind_of_death(self) -> str:
        if any(task.timed_out for task in self.tasks.values()):
            return "timeout"
        return "memory" if "of memory" in self.cause else "crash"

    @property
    def state(self) -> ChildState:
        waiting = len(self.tasks) - len(self.begun) - len(self.prepared)
        return ChildState(self.process.pid, waiting, len(self.prepared), self.told)

    @property
    def stdin(self) -> IO[bytes]:
        return cast(IO[bytes], self.process.stdin)

    @property
    def stdout(self) -> IO[bytes]:
        return cast(IO[bytes], self.process.stdout)


@dataclass(frozen=True, slots=True)
class Answer:
    """One item's end, with what it cost at a remote API and the bytes that were read for it.

    `wants_memory`: its tries ended as they do for want of memory, so with more of it the end may be another.
    """

    result: ItemResult
    _: KW_ONLY
    api_cost: float = 0.0
    size_bytes: int = 0
    wants_memory: bool = False


class Pool:
    """Child processes that work on items. Every submitted item is answered exactly once, whatever dies."""

    def __init__(self, settings: PoolSettings, deaths: Callable[[str], None] = lambda _: None) -> None:
        """`deaths` hears the cause of each death at work: timeout, memory or crash."""
        self._settings = settings
        self._heard_death = deaths
        self._children: list[_Child] = []
        self._selector = selectors.DefaultSelector()
        self._queue: deque[_Task] = deque()
        self._suspects: deque[_Task] = deque()
        self._answers: list[Answer] = []
        self._start_failures = 0
        self._watched_at = 0.0
        self._draining = False
        self._closing = False

    def __enter__(self) -> Pool:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def settings(self) -> PoolSettings:
        return self._settings

    def start(self) -> None:
        """Start the children that are missing; entering does it too. They load while the caller does other things."""
        for _ in range(self._settings.processes - len(self._children)):
            self._spawn()

    # -- for the session --------------------------------------------------------------------------------------------

    @property
    def hunger(self) -> int:
        """How many more items keep every child busy: capacity minus what waits or is held. May be negative."""
        capacity = self._settings.processes * (self._settings.depth + 1)
        return capacity - len(self._queue) - len(self._suspects) - sum(len(child.tasks) for child in self._children)

    @property
    def is_idle(self) -> bool:
        return not (self._queue or self._suspects or self._answers or any(child.tasks for child in self._children))

    def submit(self, item: PlannedItem, deaths: int = 0) -> None:
        """Take an item; `deaths` at which it was in flight in earlier attempts make it a suspect."""
        task = _Task(item, deaths, _DIED_WITH_IT)
        if deaths > self._settings.max_deaths:
            self._give_up(task)
        else:
            (self._suspects if deaths else self._queue).append(task)

    def in_flight(self) -> list[int]:
        """Rows that a death now would be blamed on."""
        return [row for child in self._children for row in child.begun]

    def pids(self) -> list[int]:
        return [child.process.pid for child in self._children]

    def usage(self) -> PoolUsage:
        """What the processes use, and what waits in them and for them."""
        found = usage_of(child.state for child in self._children)
        return replace(found, waiting=found.waiting + len(self._queue) + len(self._suspects))

    def poll(self, timeout_s: float) -> list[Answer]:
        """Hand out, wait up to `timeout_s` for something to happen, and return what ended.

        Raises: EngineUnavailableError when children cannot start; whatever PagemillError a child called fatal.
        """
        self._hand_out()
        if not self._answers:
            for key, _ in self._selector.select(timeout_s):
                self._receive(key.data)
        self._watch()
        answers, self._answers = self._answers, []
        return answers

    def drain(self) -> list[PlannedItem]:
        """Stop handing out. Returns: the items no child has; those in a child's hands are still answered by `poll`,
        unless their child dies: nothing is tried again."""
        self._draining = True
        waiting = [task.item for task in (*self._queue, *self._suspects)]
        self._queue.clear()
        self._suspects.clear()
        return waiting

    def close(self) -> None:
        """Kill and reap every child."""
        self._closing = True
        for child in list(self._children):
            self._kill(child)
            self._bury(child)
        self._selector.close()

    # -- children ---------------------------------------------------------------------------------------------------

    def _spawn(self) -> None:
        taken = {child.slot for child in self._children}
        slot = next(number for number in range(len(taken) + 1) if number not in taken)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pagemill_worker.work.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._settings.stderr,
            env=self._settings.environment_of(slot),
            start_new_session=True,  # so that a kill takes what the engine itself may have started
        )
        child = _Child(process, slot)
        self._children.append(child)
        self._selector.register(child.stdout, selectors.EVENT_READ, child)
        self._write(child, self._settings.setup)

    def _write(self, child: _Child, message: frames.Message) -> None:
        try:
            child.stdin.write(frames.encode(message))
            child.stdin.flush()
        except BrokenPipeError:
            child.cause = child.cause or "its process ended"  # the end of its output follows and buries it

    def _hand_out(self) -> None:
        for child in self._children:
            if child.retiring or not child.ready:
                continue
            if self._suspects and not child.tasks:
                self._give(child, self._suspects.popleft())
                continue
            if self._suspects and child is self._children[0]:
                continue  # let the first child run empty, so that a suspect can be tried alone
            if any(task.deaths for task in child.tasks.values()):
                continue
            while self._queue and len(child.tasks) < self._settings.depth:
                self._give(child, self._queue.popleft())

    def _give(self, child: _Child, task: _Task) -> None:
        child.tasks[task.item.row] = task
        self._write(child, {"item": item_to_message(task.item)})

    def _receive(self, child: _Child) -> None:
        data = os.read(child.stdout.fileno(), READ_BYTES)
        if not data:
            self._bury(child)
            return
        for message in child.decoder.feed(data):
            self._handle(child, message)

    def _handle(self, child: _Child, message: Mapping[str, Any]) -> None:
        if "ready" in message:
            child.ready = True
            self._start_failures = 0
        elif "begin" in message:
            child.begun[message["begin"]] = time.monotonic()
        elif "wait" in message:
            child.begun.pop(message["wait"], None)
            child.prepared.add(message["wait"])
        elif "at" in message:
            child.begun.update(dict.fromkeys(message["at"], time.monotonic()))
            child.prepared.difference_update(message["at"])
        elif "told" in message:
            child.told = message["told"]
        elif "end" in message:
            self._end(child, message)
        elif "fatal" in message:
            child.fatal = message["fatal"]

    def _end(self, child: _Child, message: Mapping[str, Any]) -> None:
        task = child.tasks.pop(message["end"])
        child.begun.pop(task.item.row, None)
        child.prepared.discard(task.item.row)
        child.answered += 1
        failure = message["failure"]
        result = ItemResult(
            item=task.item,
            status=message["status"],
            payload=message["payload"],
            failure=ItemFailure(**failure) if failure else None,
            seconds=message["seconds"],
            version_read=message["versionRead"],
            data=message.get(frames.DATA),
        )
        self._answers.append(Answer(result, api_cost=message["apiCost"], size_bytes=message["sizeBytes"]))
        limit = self._settings.recycle_after_items
        if limit and child.answered >= limit and not child.retiring:
            child.retiring = True
            child.stdin.close()

    # -- deaths -----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        now = time.monotonic()
        if now - self._watched_at < WATCH_EVERY_S:
            return
        self._watched_at = now
        for child in list(self._children):
            overdue = [row for row, since in child.begun.items() if now - since > self._settings.item_timeout_s]
            memory = self._memory_for(child)
            if overdue:
                for row in overdue:
                    child.tasks[row].timed_out = True
                child.cause = f"it took longer than {self._settings.item_timeout_s:g} s"
                self._kill(child)
            elif memory is not None and (used := rss_bytes(child.process.pid)) > memory:
                child.cause = f"its process used {used >> 20} MiB of memory, {memory >> 20} MiB are allowed"
                self._kill(child)

    def _memory_for(self, child: _Child) -> int | None:
        """A child's limit: its share, or for one that tries a suspect alone all that the others leave, bytes."""
        share = self._settings.memory_bytes
        if share is None or not any(task.deaths for task in child.tasks.values()):
            return share
        others = sum(rss_bytes(other.process.pid) for other in self._children if other is not child)
        return max(share, share * self._settings.processes - others)

    def _kill(self, child: _Child) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGKILL)

    def _bury(self, child: _Child) -> None:
        status = child.process.wait()
        self._selector.unregister(child.stdout)
        self._children.remove(child)
        child.stdout.close()
        self._close_quietly(child.stdin)
        if self._closing:
            return
        if child.fatal is not None:
            raise fatal_error(child.fatal)
        if not child.ready:
            self._start_failures += 1
            if self._start_failures >= MAX_START_FAILURES:
                raise EngineUnavailableError(
                    f"{MAX_START_FAILURES} engine processes in a row ended before they were ready (status {status})",
                    advice="the worker's log holds their last words; `pagemill engines` says what is missing",
                )
        self._return_tasks(child, status)
        self._spawn()

    @staticmethod
    def _close_quietly(stream: IO[bytes]) -> None:
        with contextlib.suppress(BrokenPipeError):  # unwritten items of a dead child are returned to the queue anyway
            stream.close()

    def _return_tasks(self, child: _Child, status: int) -> None:
        cause = child.cause or describe_status(status)
        if child.tasks:
            self._heard_death(child.kind_of_death)
        if self._draining:
            return
        blamed = {row for row in child.begun if child.tasks[row].timed_out} or set(child.begun)
        for row, task in child.tasks.items():
            if row not in blamed:
                (self._suspects if task.deaths else self._queue).appendleft(task)
                continue
            task.deaths += 1
            task.why = cause
            if task.deaths > self._settings.max_deaths:
                self._give_up(task)
            else:
                self._suspects.append(task)

    def _give_up(self, task: _Task) -> None:
        kind = ItemTimeout if task.timed_out else ItemKilledWorker
        error = kind(f"{shown_uri(task.item.uri)}: given up after {task.deaths} tries, at the last one {task.why}")
        # SIGKILL by another hand than ours is the kernel's, at the memory limit; so, as far as one can know, is the
        # death of a whole pod.
        wants_memory = "of memory" in task.why or signal.SIGKILL.name in task.why or task.why == _DIED_WITH_IT
        result = ItemResult(task.item, "failed", failure=ItemFailure.of(error))
        self._answers.append(Answer(result, wants_memory=wants_memory and not task.timed_out))
