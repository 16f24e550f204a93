"""What a watch of the jobs saw, and when: the only clock of the measurement is this machine's.

Layer: `benchmarks.scale`. Staleness is measured from outside: from a worker's commit to the first status with it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from testcluster.api import Json

from benchmarks.harness.processes import BenchmarkError

LOOK_EVERY_S = 0.05


@dataclass(slots=True)
class Story:
    """One job. Times are seconds of the epoch. `answered` holds when each generation was first taken up in a status.

    `shown` are (time, shards that the status counted as done), `pending` a generation no status speaks of yet.
    """

    uid: str
    generation: int = 0
    answered: dict[int, float] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    shown: list[tuple[float, int]] = field(default_factory=list)
    working_at: float = 0.0
    complete_at: float = 0.0

    def hear(self, job: Json, now: float) -> None:
        """Take in the job as it is now."""
        status = job.get("status") or {}
        self.generation = job["metadata"]["generation"]
        if "observedGeneration" in status:
            self.answered.setdefault(status["observedGeneration"], now)
        if "phase" in status:
            self.phases.setdefault(status["phase"], now)
        done = (status.get("shards") or {}).get("succeeded", 0)
        if done and (not self.shown or self.shown[-1][1] != done):
            self.shown.append((now, done))
        if not self.working_at and any(child["kind"] == "Work" for child in status.get("jobs") or ()):
            self.working_at = now
        if not self.complete_at and status.get("phase") == "Succeeded":
            self.complete_at = now


class Stories:
    """All jobs, by name. Shared by the thread that watches and the one that measures."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_name: dict[str, Story] = {}

    def hear(self, kind: str, job: Json) -> None:
        now, name, uid = time.time(), job["metadata"]["name"], job["metadata"]["uid"]
        with self._lock:
            if kind == "DELETED":
                self._by_name.pop(name, None)
                return
            story = self._by_name.get(name)
            if story is None or story.uid != uid:
                story = self._by_name[name] = Story(uid)
            story.hear(job, now)

    def of(self, name: str) -> Story | None:
        with self._lock:
            return self._by_name.get(name)

    def among(self, names: Iterable[str]) -> list[Story]:
        """The stories of these jobs, of those that are there."""
        with self._lock:
            return [story for name in names if (story := self._by_name.get(name)) is not None]

    def count(self, names: Sequence[str], holds: Callable[[Story], bool]) -> int:
        return sum(map(holds, self.among(names)))

    def await_all(self, names: Sequence[str], holds: Callable[[Story], bool], most_s: float) -> float:
        """Wait until `holds` of each. Returns: seconds waited. Raises: BenchmarkError with how far it got."""
        began = time.monotonic()
        while (done := self.count(names, holds)) < len(names):
            if time.monotonic() - began > most_s:
                left = [story for story in self.among(names) if not holds(story)]
                raise BenchmarkError(f"only {done} of {len(names)} after {most_s:.0f} s; one of the rest: {left[:1]}")
            time.sleep(LOOK_EVERY_S)
        return time.monotonic() - began


def staleness_s(story: Story, commits: Sequence[float]) -> list[float]:
    """For each commit, in order, the seconds until a status counted it. Raises: BenchmarkError when none ever did."""
    found, shown = [], iter(story.shown)
    at, done = 0.0, 0
    for number, committed_at in enumerate(sorted(commits), 1):
        while done < number:
            following = next(shown, None)
            if following is None:
                raise BenchmarkError(f"{len(commits)} shards were committed, the last status of {story.uid} has {done}")
            at, done = following
        found.append(max(0.0, at - committed_at))
    return found


def read_commits(lines: Iterable[str]) -> Mapping[str, list[float]]:
    """Times of commits by job's uid, from the player's journal."""
    found: dict[str, list[float]] = {}
    for line in lines:
        uid, at, _ = line.split()
        found.setdefault(uid, []).append(float(at))
    return found
