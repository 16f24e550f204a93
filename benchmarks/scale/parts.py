"""The parts of the measurement, each on a stage: starts, pairs with bare Jobs, a thousand jobs at work, a storm.

Layer: `benchmarks.scale`.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from testcluster.api import MERGE_PATCH, Answer, ApiError, Json

from benchmarks.harness.paired import Figures, Side, interleave
from benchmarks.scale.jobs import Shape, job_of, run_bare
from benchmarks.scale.sizes import Sizes
from benchmarks.scale.stage import Operator, Stage
from benchmarks.scale.stories import Story, read_commits, staleness_s
from pagemill_operator.cluster import PLURALS, Address

CLIENTS = 8
PATIENCE_S = 1800.0
SAMPLE_EVERY_S = 5.0
TRIES, TRY_EVERY_S = 10, 1.0
CONFLICT, TOO_MANY = 409, 429
Series = dict[str, tuple[list[float], list[float]]]


# -- a person's doings ------------------------------------------------------------------------------------------------


def create(stage: Stage, names: Iterable[str], shape: Shape, *, suspend: bool) -> None:
    """Create jobs, as fast as the API server takes them."""
    place = Address(PLURALS["OcrJob"], stage.namespace).path

    def one(name: str) -> None:
        _ask(stage, "POST", place, job_of(name, shape, stage.where, suspend=suspend))

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(one, names))


def edit(stage: Stage, name: str, spec: Json) -> int:
    """Change a job. Returns: its generation then."""
    place = Address(PLURALS["OcrJob"], stage.namespace, name).path
    job = _ask(stage, "PATCH", place, {"spec": spec})
    return int(job["metadata"]["generation"])


def _ask(stage: Stage, method: str, place: str, body: Json) -> Json:
    """Send a request, again and again while the API server has no time for it. Raises: ApiError."""
    content_type = MERGE_PATCH if method == "PATCH" else "application/json"
    answer = Answer(0, "no answer")
    for _ in range(TRIES):
        try:
            answer = stage.kube.ask(method, place, body, content_type=content_type)
        except OSError:  # no answer in 20 s
            continue
        if method == "POST" and answer.status == CONFLICT:  # made by an earlier try
            return body
        if answer.status < TOO_MANY:
            break
        time.sleep(TRY_EVERY_S)
    if answer.is_error or not answer.status:
        raise ApiError(f"{method} {place}", answer)
    return answer.body


def is_answered(story: Story) -> bool:
    """Whether a status speaks of the newest spec."""
    return story.generation in story.answered


# -- starts -----------------------------------------------------------------------------------------------------------


def restart(stage: Stage, name: str) -> tuple[Operator, Figures]:
    """Kill the operator, start it, and wait until it is ready and a new job has its first status.

    Name the job so that it is listed after all others: those are looked at first.
    """
    stage.kill()
    create(stage, [name], Sizes().storm, suspend=True)
    began = time.time()
    operator = stage.start_operator()
    ready_s = stage.await_ready(operator)
    stage.stories.await_all([name], is_answered, PATIENCE_S)
    served_s = max(stage.stories.among([name])[0].answered.values()) - began
    stage.kube.call("DELETE", Address(PLURALS["OcrJob"], stage.namespace, name).path)
    return operator, {"ready_s": ready_s, "first_status_s": served_s, "start_s": max(ready_s, served_s)}


# -- pairs ------------------------------------------------------------------------------------------------------------


def pairs(stage: Stage, sizes: Sizes) -> dict[str, list[Figures]]:
    """The same pods by a job of ours and by bare Jobs, in turn."""
    numbers = iter(range(10_000))

    def ours(size: int) -> Figures:
        name = f"pair-{next(numbers)}"
        began = time.time()
        create(stage, [name], sizes.pair(size), suspend=False)
        stage.stories.await_all([name], lambda story: story.complete_at > 0, PATIENCE_S)
        return {"wall_s": stage.stories.among([name])[0].complete_at - began}

    def bare(size: int) -> Figures:
        return {"wall_s": run_bare(stage.kube, f"pair-{next(numbers)}", sizes.pair(size), stage.where, stage.config)}

    return interleave((Side("Pagemill", ours), Side("bare Jobs", bare)), sizes.pairs)


# -- all at work ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """What was seen while all jobs were at work. `audited` are the same writes as the API server counted them.

    `lateness_s` are of the player's commits: far above 0, the player would be what is measured.
    """

    staleness_s: Sequence[float]
    lateness_s: Sequence[float]
    peak_rss_mib: Sequence[float]
    writes: int
    audited: int
    active_s: float
    wall_s: float
    restart: Figures
    cpu_s: Mapping[str, float]

    @property
    def writes_per_job_s(self) -> float:
        return self.writes / self.active_s


def steady(stage: Stage, operator: Operator, sizes: Sizes, names: Sequence[str]) -> Steady:
    """Bring suspended jobs to work at a steady rate, kill the operator once when all are, wait until all are done."""
    before_writes, before_audit, before_cpu = operator.writes(), stage.audited_writes(), stage.cpu_s()
    began, begun = time.time(), {}
    for number, name in enumerate(names):
        time.sleep(max(0.0, began + number / sizes.rate - time.time()))
        begun[name] = time.time()
        edit(stage, name, {"suspend": False})
    writes = operator.writes() - before_writes
    peaks = [operator.memory_mib("VmHWM")]
    operator_cpu_s = stage.cpu_s()["operator"] - before_cpu["operator"]
    operator, started = restart(stage, "late-at-work")
    stage.stories.await_all(names, lambda story: story.complete_at > 0, PATIENCE_S)
    ended = time.time()
    stories = stage.stories.among(names)
    after_cpu = stage.cpu_s()
    spent = {name: seconds - before_cpu.get(name, 0.0) for name, seconds in after_cpu.items()}
    journal = stage.journal.read_text(encoding="utf-8").splitlines()
    commits = read_commits(journal)
    return Steady(
        staleness_s=sorted(age for story in stories for age in staleness_s(story, commits[story.uid])),
        lateness_s=sorted(float(line.split()[2]) for line in journal),
        peak_rss_mib=[*peaks, operator.memory_mib("VmHWM")],
        writes=writes + operator.writes(),
        audited=stage.audited_writes() - before_audit,
        active_s=sum(stage_of.complete_at - begun[name] for name, stage_of in zip(names, stories, strict=True)),
        wall_s=ended - began,
        restart=started,
        cpu_s={**spent, "operator": operator_cpu_s + after_cpu["operator"]},
    )


# -- a storm ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """What became of all jobs un-suspended at once. Seconds count from the first request.

    `edits` are the seconds until the status spoke of a change that a person made meanwhile.
    """

    asked_s: float
    restarted_s: float
    answered_s: float
    working_s: float
    complete_s: float
    edits_s: Sequence[float]
    writes: Sequence[tuple[float, float]]
    cpu_s: Mapping[str, float]
    series: Series

    @property
    def write_rates(self) -> list[float]:
        """Of the API server, for anybody, a second, between samples."""
        return [
            (after[1] - before[1]) / (after[0] - before[0])
            for before, after in zip(self.writes, self.writes[1:], strict=False)
        ]


@dataclass
class _Edits:
    """Changes that a person makes to one job after the other while the storm goes on."""

    stage: Stage
    names: Sequence[str]
    every_s: float
    made: list[tuple[str, int, float]] = field(default_factory=list)

    def make(self, over: threading.Event) -> None:
        """Widen jobs that are not done yet, from the last that was un-suspended backwards."""
        waiting = list(self.names)
        while not over.wait(self.every_s) and waiting:
            name = waiting.pop()
            story = self.stage.stories.of(name)
            if story is not None and not story.complete_at:
                asked = time.time()
                self.made.append((name, edit(self.stage, name, {"workers": {"parallelism": 3}}), asked))

    def seconds(self) -> list[float]:
        found = []
        for name, generation, asked in self.made:
            story = self.stage.stories.of(name)
            answers = [at for answered, at in (story.answered if story else {}).items() if answered >= generation]
            found.append(min(answers) - asked)
        return found


def storm(stage: Stage, sizes: Sizes, names: Sequence[str]) -> Storm:
    """Un-suspend all jobs at once, kill the operator in it, change one job after the other meanwhile."""
    before_cpu, began = stage.cpu_s(), time.time()
    samples: list[tuple[float, float]] = []
    edits, asking_over = _Edits(stage, names, sizes.edit_every_s), threading.Event()
    with ThreadPoolExecutor(CLIENTS + 2) as pool, _sampled(lambda: samples.append((time.time(), stage.api_writes()))):
        asked = [pool.submit(edit, stage, name, {"suspend": False}) for name in names]
        time.sleep(sizes.kill_after_s)
        operator_cpu_s = stage.cpu_s()["operator"] - before_cpu["operator"]
        stage.kill()
        restarted_s = time.time() - began
        stage.start_operator()
        editing = pool.submit(edits.make, asking_over)
        for answer in asked:
            answer.result()
        asked_s = time.time() - began
        stage.stories.await_all(names, lambda story: story.working_at > 0, PATIENCE_S)
        asking_over.set()
        editing.result()
        stage.stories.await_all(names, lambda story: story.complete_at > 0, PATIENCE_S)
        stage.stories.await_all([name for name, _, _ in edits.made], is_answered, PATIENCE_S)
    after_cpu = stage.cpu_s()
    spent = {name: seconds - before_cpu.get(name, 0.0) for name, seconds in after_cpu.items()}
    series = _series(stage.stories.among(names), began)
    return Storm(
        asked_s=asked_s,
        restarted_s=restarted_s,
        answered_s=series["answered"][0][-1],
        working_s=series["work Job shown"][0][-1],
        complete_s=series["complete"][0][-1],
        edits_s=edits.seconds(),
        writes=samples,
        cpu_s={**spent, "operator": operator_cpu_s + after_cpu["operator"]},
        series=series,
    )


def _series(stories: Sequence[Story], began: float) -> Series:
    """How many jobs had come how far, over time."""
    moments = {
        "answered": [min(at for generation, at in story.answered.items() if generation > 1) for story in stories],
        "work Job shown": [story.working_at for story in stories],
        "complete": [story.complete_at for story in stories],
    }
    return {
        name: ([at - began for at in sorted(times)], [float(count) for count in range(1, len(times) + 1)])
        for name, times in moments.items()
    }


@contextmanager
def _sampled(sample: Callable[[], None]) -> Iterator[None]:
    """Take a sample now, every so often, and at the end."""
    over = threading.Event()

    def take() -> None:
        while not over.wait(SAMPLE_EVERY_S):
            sample()

    thread = threading.Thread(target=take, daemon=True)
    sample()
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        sample()


def percentile(values: Sequence[float], share: float) -> float:
    """A value that `share` of all are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def middle(values: Sequence[float]) -> float:
    return statistics.median(values)
