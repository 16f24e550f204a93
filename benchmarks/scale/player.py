"""Plays the worker image for every pod of one namespace: a process of its own, `python -m benchmarks.scale.player`.

Layer: `benchmarks.scale`. Pretended nodes start pods; this does what a worker would do to the output, takes as long as
the pod's annotation says, and reports that the pod succeeded. Pods of bare Jobs write one object a shard and take as
long. Standard input brings `PlayerWork`; each commit is a line of the journal: the job's uid, when it was, and by how
many seconds that was later than the pod's time would have it.
"""

from __future__ import annotations

import heapq
import itertools
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue
from testcluster.api import MERGE_PATCH, Json, KubeApi

from benchmarks.scale.follow import Follower
from pagemill_core.clock import SystemClock
from pagemill_core.storage.open import SharedStores
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.work.pod import MANAGED_BY, MANAGED_BY_LABEL, PodStep, PodTask
from pagemill_operator.cluster import PODS, Address
from pagemill_operator.testing.fake_jobs import job_json_of, task_of
from pagemill_operator.testing.fake_pods import FakePods, Habits

PLAY_ANNOTATION = "bench.example/play"
THREADS = 8
REPORT_TRIES = 8
REPORT_PAUSE_S = 0.5


class Play(BaseModel):
    """How pods of a job play: seconds of each step's pods, and the shards of the whole job, of one item each."""

    model_config = ConfigDict(frozen=True)

    plan_s: float
    work_s: float
    finalize_s: float
    shards: int

    def seconds(self, step: PodStep) -> float:
        return {PodStep.PLAN: self.plan_s, PodStep.WORK: self.work_s, PodStep.FINALIZE: self.finalize_s}[step]


class PlayerWork(BaseModel):
    """What the process is told. `settings` are the store's, with its keys in clear text."""

    kubeconfig: Path
    namespace: str
    journal: Path
    settings: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Part:
    """A running pod: what it is to do, in how many pieces, since when."""

    name: str
    task: PodTask
    job_json: str
    play: Play
    pieces: int
    is_bare: bool
    started_s: float

    def due_s(self, piece: int) -> float:
        return self.started_s + self.play.seconds(self.task.step) * piece / self.pieces


@dataclass
class Agenda:
    """What is due when, shared by threads."""

    _heap: list[tuple[float, int, Part, int]] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _order: Iterator[int] = field(default_factory=itertools.count)

    def add(self, part: Part, piece: int) -> None:
        with self._changed:
            heapq.heappush(self._heap, (part.due_s(piece), next(self._order), part, piece))
            self._changed.notify()

    def take(self) -> tuple[Part, int]:
        """The next part and its piece, once it is due."""
        with self._changed:
            while True:
                wait_s = self._heap[0][0] - time.monotonic() if self._heap else None
                if wait_s is not None and wait_s <= 0:
                    _, _, part, piece = heapq.heappop(self._heap)
                    return part, piece
                self._changed.wait(wait_s)


class Player:
    """Hears of pods and plays each once."""

    def __init__(self, api: KubeApi, work: PlayerWork) -> None:
        self._api = api
        self._namespace = work.namespace
        self._stores = SharedStores()
        self._settings = S3Settings.model_validate(work.settings)
        self._journal = work.journal.open("a", buffering=1, encoding="utf-8")
        self._agenda = Agenda()
        self._known: set[str] = set()
        self._scripts: dict[int, FakePods] = {}

    def hear(self, kind: str, pod: Json) -> None:
        """Put a pod that runs on the agenda; forget one that is gone."""
        uid = pod["metadata"]["uid"]
        if kind == "DELETED":
            self._known.discard(uid)
            return
        runs = pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
        if runs and uid not in self._known:
            self._known.add(uid)
            self._agenda.add(part_of(pod), 1)

    def play(self) -> None:
        """Play pieces as they fall due, for ever."""
        while True:
            part, piece = self._agenda.take()
            if not self._piece(part, piece):
                self._agenda.add(part, piece + 1)

    def _piece(self, part: Part, piece: int) -> bool:
        """One piece of a pod's work; with the last one the pod ends. Returns: whether it did."""
        if part.is_bare:
            self._write_bare(part)
            self._report(part, 0, "")
            return True
        script = self._script(part.play.shards)
        while True:
            ended = script.step(part.name, part.task, part.job_json)
            if ended is not None:
                self._report(part, ended.code, ended.words)
                return True
            late_s = time.monotonic() - part.due_s(piece)
            self._journal.write(f"{part.task.owner} {time.time():.3f} {late_s:.3f}\n")
            if piece < part.pieces:
                return False

    def _write_bare(self, part: Part) -> None:
        store = self._stores.open(part.task.output_uri, self._settings)
        for piece in range(part.pieces):
            store.put(f"{part.name}/{piece}", b"result")

    def _script(self, shards: int) -> FakePods:
        if shards not in self._scripts:
            habits = Habits(items=shards, items_per_shard=1)
            self._scripts[shards] = FakePods(lambda uri: self._stores.open(uri, self._settings), SystemClock(), habits)
        return self._scripts[shards]

    def _report(self, part: Part, code: int, words: str) -> None:
        """Say that the pod's container ended; a pod that is gone needs no report."""
        ended = {"terminated": {"exitCode": code, "message": words, "reason": "Completed"}}
        container = {"name": "worker", "image": "x", "imageID": "x", "restartCount": 0, "ready": False, "state": ended}
        status = {"phase": "Failed" if code else "Succeeded", "containerStatuses": [container]}
        place = Address(PODS, self._namespace, part.name, "status").path
        for _ in range(REPORT_TRIES):
            answer = self._api.ask("PATCH", place, {"status": status}, content_type=MERGE_PATCH)
            if not answer.is_error or answer.status == 404:
                return
            time.sleep(REPORT_PAUSE_S)
        sys.stderr.write(f"{part.name}: {answer.message}\n")


def part_of(pod: Json) -> Part:
    """A pod that has just started."""
    annotations = pod["metadata"]["annotations"]
    name = pod["metadata"]["name"]
    task = task_of(pod, int(annotations.get("batch.kubernetes.io/job-completion-index", "0")), name)
    play = Play.model_validate_json(annotations[PLAY_ANNOTATION])
    is_work = task.step is PodStep.WORK
    return Part(
        name=name,
        task=task,
        job_json=job_json_of(pod),
        play=play,
        pieces=max(1, -(-play.shards // task.completions)) if is_work else 1,
        is_bare=pod["metadata"]["labels"].get(MANAGED_BY_LABEL) != MANAGED_BY,
        started_s=time.monotonic(),
    )


def main() -> None:
    """Play until killed."""
    work = PlayerWork.model_validate_json(sys.stdin.read())
    with KubeApi.from_kubeconfig(work.kubeconfig) as api:
        player = Player(api, work)
        for _ in range(THREADS):
            threading.Thread(target=player.play, daemon=True).start()
        follower = Follower(api, Address(PODS, work.namespace).path, player.hear)
        follower.start()
        follower.listed.wait()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        follower.join()


if __name__ == "__main__":
    main()
