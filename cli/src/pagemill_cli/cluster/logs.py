"""The logs of a job's pods as one stream: which pods, which lines, and how a line reads.

Layer: `cli.cluster`. Workers write one JSON object a line (time, level, message, fields); anything else, such as a
traceback, is passed on as it stands.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pagemill_cli.cluster.jobs import Jobs
from pagemill_cli.cluster.views import JobView, PodView
from pagemill_core.errors import PagemillError

LOOK_EVERY_S = 2.0
_HEAD = ("time", "level", "logger", "message")
SHARD_FIELD = "shardIndex"


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of one pod. `fields` is None for a line that is no JSON object."""

    pod: str
    text: str
    fields: dict[str, Any] | None

    def is_about(self, shard: int | None) -> bool:
        """Whether the line is about this shard; every line is, when none is named."""
        return shard is None or (self.fields is not None and self.fields.get(SHARD_FIELD) == shard)

    def for_people(self) -> str:
        """`12:00:01 INFO Committed shard items=500 shardIndex=3`."""
        if self.fields is None or "message" not in self.fields:
            return self.text
        given = self.fields
        rest = " ".join(f"{name}={_value(given[name])}" for name in sorted(given) if name not in _HEAD)
        words = (str(given.get("time", ""))[11:19], str(given.get("level", "")), str(given["message"]), rest)
        return " ".join(word for word in words if word)


def read_line(pod: str, text: str) -> LogLine:
    """A line of a pod's log."""
    try:
        fields = json.loads(text)
    except ValueError:
        fields = None
    return LogLine(pod, text, fields if isinstance(fields, dict) else None)


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return json.dumps(text, ensure_ascii=False) if " " in text or not text else text


def collected(jobs: Jobs, job: JobView, pods: list[PodView]) -> Iterator[LogLine]:
    """What is in the logs now, pod after pod. Raises: PagemillError."""
    for pod in pods:
        for text in jobs.log_lines(job, pod, follow=False):
            yield read_line(pod.name, text)


class Follower:
    """Follows the logs of a job's pods, of those that come later too, until `is_over` says that no more will come."""

    def __init__(self, jobs: Jobs, job: JobView, step: str, is_over: Callable[[], bool]) -> None:
        self._jobs = jobs
        self._job = job
        self._step = step
        self._is_over = is_over
        self._lines: queue.SimpleQueue[LogLine | PagemillError | None] = queue.SimpleQueue()
        self._followed: dict[str, threading.Thread] = {}

    def lines(self) -> Iterator[LogLine]:
        """Every line as it comes. Raises: PagemillError, the first that any of the streams met."""
        looker = threading.Thread(target=self._look, daemon=True)
        looker.start()
        while (found := self._lines.get()) is not None:
            if isinstance(found, PagemillError):
                raise found
            yield found

    def _look(self) -> None:
        """Start a follower for each pod that has started; end the stream when all is over and read."""
        try:
            while True:
                is_last = self._is_over()  # asked first: pods that started meanwhile are still seen below
                for pod in self._jobs.pods(self._job, self._step):
                    if pod.has_started and pod.name not in self._followed:
                        thread = threading.Thread(target=self._follow, args=(pod,), daemon=True)
                        self._followed[pod.name] = thread
                        thread.start()
                if is_last:
                    break
                time.sleep(LOOK_EVERY_S)
            for thread in self._followed.values():
                thread.join()
            self._lines.put(None)
        except PagemillError as error:
            self._lines.put(error)

    def _follow(self, pod: PodView) -> None:
        try:
            for text in self._jobs.log_lines(self._job, pod, follow=True):
                self._lines.put(read_line(pod.name, text))
        except PagemillError as error:
            self._lines.put(error)
