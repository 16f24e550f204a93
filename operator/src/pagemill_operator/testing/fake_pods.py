"""What worker pods do to an output, without images: plan, work and finalize over shards of counted items.

Layer: `operator.testing`. The protocol's own objects are the real ones, written by core's own functions; only the
content of items is missing. `habits` says what goes wrong.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from pagemill_core.api.v1alpha1 import KINDS, Job
from pagemill_core.api.workkey import work_key, work_of
from pagemill_core.clock import Clock, iso
from pagemill_core.errors import EXIT_DRAINED, PagemillError
from pagemill_core.storage.store import ObjectStore
from pagemill_core.work.commit import commit, crc32, put_output
from pagemill_core.work.conditional import Writer
from pagemill_core.work.finalize import publish_missing, seal_missing, succeed, write_report
from pagemill_core.work.layout import RunLayout, dataset_part, run_entry
from pagemill_core.work.plan import create_plan, read_plan
from pagemill_core.work.pod import LastWords, PodStep, PodTask
from pagemill_core.work.publish import View
from pagemill_core.work.records import (
    Counts,
    Marker,
    OutputRef,
    PlanPointer,
    RunEntry,
    RunReport,
    Totals,
    UsageRecord,
)
from pagemill_core.work.tracker import Tracker
from pagemill_core.work.usage import put_usage
from pagemill_core.work.waves import read_wave, shards_of_index
from pagemill_operator.testing.fake_jobs import Exit


@dataclass
class Habits:
    """How big the work is, and what goes wrong. `bad_shards` fail that many attempts before they succeed.

    `plan_error` is what planning ends with while it is set; `work_error` and `finalize_error` likewise. A pod uses
    `seconds_per_step` of its machine at each step.
    """

    items: int = 40
    items_per_shard: int = 4
    failed_items_per_shard: int = 0
    failure_class: str = "ImageTruncated"
    bad_shards: dict[int, int] = field(default_factory=dict)
    plan_error: PagemillError | None = None
    work_error: PagemillError | None = None
    finalize_error: PagemillError | None = None
    seconds_per_step: float = 1.0

    @property
    def shards(self) -> int:
        return -(-self.items // self.items_per_shard)


@dataclass
class FakePods:
    """A PodScript. `commits` counts how often each shard's commit was won: more than once would be a disaster."""

    open_store: Callable[[str], ObjectStore]
    clock: Clock
    habits: Habits = field(default_factory=Habits)
    commits: Counter[tuple[str, int]] = field(default_factory=Counter)
    plans: int = 0
    _used_s: Counter[str] = field(default_factory=Counter)
    _attempts: int = 0

    def step(self, pod: str, task: PodTask, job_json: str) -> Exit | None:
        job = KINDS[json.loads(job_json)["kind"]].model_validate_json(job_json)
        writer = Writer(self.open_store(task.output_uri), self.clock)
        layout = RunLayout(task.run)
        key = run_entry(layout.seq)
        blob = writer.get(key)
        entry = None if blob is None else RunEntry.from_bytes(blob.data, key)
        if entry is None or (entry.owner, entry.epoch) != (task.owner, task.epoch) or entry.desired != "Run":
            return Exit(EXIT_DRAINED)
        try:
            match task.step:
                case PodStep.PLAN:
                    return self._plan(writer, layout, job)
                case PodStep.WORK:
                    return self._work(writer, layout, task, pod)
                case PodStep.FINALIZE:
                    return self._finalize(writer, layout, task, entry)
        except PagemillError as error:
            return Exit(error.exit_code, LastWords.of(error).to_bytes().decode())

    def _plan(self, writer: Writer, layout: RunLayout, job: Job) -> Exit:
        if self.habits.plan_error is not None:
            raise self.habits.plan_error
        self.plans += 1
        pointer = PlanPointer(
            run=layout.run,
            attempt=self._attempt(),
            kind=job.kind,
            work_key=work_key(job),
            work=work_of(job),
            fingerprint="f" * 8,
            fingerprint_fields={},
            items=self.habits.items,
            shards=self.habits.shards,
            planned_at=iso(self.clock.now()),
        )
        create_plan(writer, layout, pointer)
        return Exit(0)

    def _work(self, writer: Writer, layout: RunLayout, task: PodTask, pod: str) -> Exit | None:
        """One shard a step."""
        if self.habits.work_error is not None:
            raise self.habits.work_error
        self._used_s[pod] += self.habits.seconds_per_step  # type: ignore[assignment]  # seconds need not be whole
        record = UsageRecord(
            pod=pod, pool=task.pool, price_per_hour=task.price_per_hour, seconds=float(self._used_s[pod])
        )
        put_usage(writer, layout, record)
        wave = read_wave(writer, layout, task.wave)
        shards = shards_of_index(wave.ranges if wave else [], task.completion_index, task.completions)
        left = [shard for shard in shards if (layout.run, shard) not in self.commits]
        if not left:
            return Exit(0)
        good = next((shard for shard in left if not self.habits.bad_shards.get(shard)), None)
        if good is None:  # what is left fails in this wave: each bad shard has used up one attempt
            for shard in left:
                self.habits.bad_shards[shard] -= 1
            return Exit(0)
        self._commit(writer, layout, good, self._attempt())
        return None

    def _commit(self, writer: Writer, layout: RunLayout, shard: int, attempt: str) -> None:
        marker = self.marker(writer, layout, shard, attempt)
        if commit(writer, layout, marker).won:
            self.commits[layout.run, shard] += 1

    def marker(self, writer: Writer, layout: RunLayout, shard: int, attempt: str, *, sealed: bool = False) -> Marker:
        """The marker of a shard all of whose items have their outcome."""
        habits = self.habits
        first = shard * habits.items_per_shard
        planned = min(habits.items_per_shard, habits.items - first)
        failed = planned if sealed else min(planned, habits.failed_items_per_shard)
        body = f"{shard}".encode()
        output = put_output(writer, layout, (shard, attempt, "rows.json"), body, planned)
        now = iso(self.clock.now())
        return Marker(
            shard=shard,
            attempt=attempt,
            plan="",
            fingerprint="f" * 8,
            items=Counts(planned=planned, succeeded=planned - failed, failed=failed),
            failure_classes={habits.failure_class: failed} if failed else {},
            outputs=[output],
            started=now,
            finished=now,
            seconds=1.0,
            sealed=sealed,
        )

    def _finalize(self, writer: Writer, layout: RunLayout, task: PodTask, entry: RunEntry) -> Exit:
        if self.habits.finalize_error is not None:
            raise self.habits.finalize_error
        plan = read_plan(writer, layout)
        if plan is None:
            return Exit(0)
        kind = _Kind(self, writer, layout)
        tracker = Tracker(writer, layout, plan.shards)
        tracker.poll()
        if task.ending == "Stopped":
            publish_missing(writer, layout, plan.shards, kind)
            report = RunReport(
                run=layout.run,
                kind=plan.kind,
                outcome=task.outcome,
                message=task.outcome_message,
                totals=tracker.totals,
            )
            write_report(writer, layout, task.epoch, report)
            return Exit(0)
        if entry.state == "Sealing":
            seal_missing(writer, layout, tracker, kind, self._attempt())
            tracker.poll()
        succeed(writer, layout, plan, tracker.totals, kind)
        return Exit(0)

    def _attempt(self) -> str:
        self._attempts += 1
        return f"attempt-{self._attempts:06d}"


@dataclass(frozen=True)
class _Kind:
    """A job's kind whose views are one small file a shard."""

    pods: FakePods
    writer: Writer
    layout: RunLayout

    def views(self, marker: Marker) -> Iterable[View]:
        return [View(f"views/{marker.shard:08d}.txt", f"shard {marker.shard}".encode())]

    def seal(self, shard: int, attempt: str) -> Marker:
        return self.pods.marker(self.writer, self.layout, shard, attempt, sealed=True)

    def write_dataset(self, segment: int, markers: Sequence[Marker]) -> OutputRef:
        body = "\n".join(str(marker.shard) for marker in markers).encode()
        key = dataset_part(self.layout.seq, segment)
        self.writer.put(key, body)
        return OutputRef(key=key, size=len(body), crc32=crc32(body), rows=sum(one.items.planned for one in markers))

    def write_merged(self, pointer: PlanPointer, totals: Totals) -> None:
        self.writer.put("metadata.json", totals.model_dump_json().encode())
