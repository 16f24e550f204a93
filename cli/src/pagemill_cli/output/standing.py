"""How the runs of an output stand: what `pagemill status`, `runs` and `release` show.

Layer: `cli.output`. Reads the ledger and the markers; only `release` writes, and that one compare-and-swap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pagemill_cli.local.run import is_gone, limits_of, open_ledger, this_process
from pagemill_cli.output.count import MarkerCount
from pagemill_cli.output.target import Target, layout_of, no_run
from pagemill_core.api.v1alpha1.status import Phase
from pagemill_core.api.workkey import work_key
from pagemill_core.clock import from_iso, iso
from pagemill_core.errors import ObjectNotFoundError, OutputBusyError
from pagemill_core.storage.open import join_uri
from pagemill_core.work.finalize import read_success
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.ledger import COLLECTED, Held, Ledger
from pagemill_core.work.lifecycle import too_many_failures
from pagemill_core.work.plan import read_plan
from pagemill_core.work.records import PlanPointer, RunEntry, Totals
from pagemill_core.work.usage import Spent, UsageReader
from pagemill_worker.finalize.run_files import REPORT_KEY

"""The reason of a ledger entry whose run's data `pagemill gc` has removed, because newer runs hold all of it."""

STOPPED_FOR_GOOD = ("BudgetExceeded", "DeadlineExceeded", "ShardsExhausted")
OWNER_GONE = "OwnerGone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One run as seen now. `rate` is items a second, `eta_s` seconds; None where neither can be told."""

    run: str
    entry: RunEntry
    phase: Phase
    reason: str
    message: str
    totals: Totals
    planned: int | None
    already_done: int
    spent: Spent
    rate: float | None
    eta_s: float | None
    output_uri: str

    def as_json(self) -> dict[str, Any]:
        """What `-o json` prints."""
        entry, items = self.entry, self.totals.items
        return {
            "run": self.run,
            "kind": entry.kind,
            "state": entry.state,
            "phase": self.phase,
            "reason": self.reason,
            "message": self.message,
            "items": {
                "total": self.planned,
                "succeeded": items.succeeded,
                "failed": items.failed,
                "skipped": items.skipped,
                "alreadyDone": self.already_done,
            },
            "shards": {"total": self.totals.shards, "done": self.totals.shards_done},
            "failedByClass": self.totals.failure_classes,
            "failures": [sample.model_dump(by_alias=True) for sample in self.totals.failures],
            "rate": self.rate,
            "etaSeconds": self.eta_s,
            "spent": format(self.spent.cost, "f"),
            "seconds": self.spent.seconds,
            "owner": {
                "name": entry.owner_name,
                "host": entry.holder.host,
                "pid": entry.holder.pid,
                "expiresAt": entry.expires_at,
            }
            if entry.owner and not entry.is_final
            else None,
            "workKey": entry.work_key,
            "createdAt": entry.created_at,
            "finishedAt": entry.finished_at or None,
            "output": self.output_uri,
            "report": join_uri(self.output_uri, REPORT_KEY) if entry.state == "Finished" else None,
        }


class Watcher:
    """Looks at the newest run of an output, again and again; markers are read once."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._ledger = ledger_of(target)
        self._counts: dict[str, MarkerCount] = {}

    def look(self) -> Standing:
        """The newest run now. Raises: ObjectNotFoundError when there is none."""
        newest = self._ledger.newest()
        if newest is None:
            raise no_run(self._target)
        return self.standing(newest)

    def standing(self, held: Held) -> Standing:
        """How one run stands."""
        writer, layout, entry = self._target.writer, RunLayout(held.run), held.entry
        pointer = read_plan(writer, layout)
        totals, rate = self._count(layout, pointer)
        phase, reason, message = self._phase(entry, pointer, totals)
        planned = pointer.items if pointer else None
        left = pointer.items - totals.items.planned if pointer else 0
        is_at_work = phase == "Running"
        return Standing(
            run=held.run,
            entry=entry,
            phase=phase,
            reason=reason,
            message=message,
            totals=totals,
            planned=planned,
            already_done=pointer.already_done if pointer else 0,
            spent=UsageReader(writer, layout).spent(),
            rate=round(rate, 3) if is_at_work and rate else None,
            eta_s=round(left / rate, 1) if is_at_work and rate else None,
            output_uri=self._target.uri,
        )

    def _count(self, layout: RunLayout, pointer: PlanPointer | None) -> tuple[Totals, float]:
        success = read_success(self._target.writer, layout)
        if success is not None:
            return success.totals, 0.0
        if pointer is None:
            return Totals(), 0.0
        count = self._counts.setdefault(layout.run, MarkerCount(self._target.writer, layout, pointer.shards))
        return count.poll(), count.rate

    def _phase(self, entry: RunEntry, pointer: PlanPointer | None, totals: Totals) -> tuple[Phase, str, str]:
        if entry.state == "Finished":
            return self._verdict(entry, totals)
        if entry.state == "GivenUp":
            return "Failed", entry.reason or "GivenUp", "given up; what is committed counts for the next run"
        if not entry.owner:
            phase: Phase = "Failed" if entry.reason in STOPPED_FOR_GOOD else "Suspended"
            return phase, entry.reason or "Released", "nobody works on it; run the same file again to go on"
        if is_gone(entry.holder):
            return "Suspended", OWNER_GONE, "its process has ended; run the same file again to go on"
        if entry.state == "Sealing" or (pointer is not None and totals.shards_done == totals.shards):
            return "Finalizing", "Finalizing", ""
        return ("Running", "ShardsCommitting", "") if pointer else ("Planning", "Planning", "")

    def _verdict(self, entry: RunEntry, totals: Totals) -> tuple[Phase, str, str]:
        """A finished run's outcome under the limits of the file that named it, when it is that file's work."""
        if entry.reason == COLLECTED:
            return "Succeeded", COLLECTED, "its data was removed by gc: newer runs hold all of it"
        job = self._target.environment.job if self._target.environment else None
        is_own = job is not None and work_key(job) == entry.work_key
        message = too_many_failures(totals, totals.items.planned, limits_of(job)) if job and is_own else ""
        if message:
            return "Failed", "TooManyFailures", message
        return "Succeeded", "CompletedWithFailures" if totals.items.failed else "Completed", ""


def ledger_of(target: Target) -> Ledger:
    """The output's ledger, for reading and for `release`."""
    return open_ledger(target.writer, "pagemill")


def all_runs(target: Target, limit: int | None = None) -> Iterator[Standing]:
    """The output's runs, newest first. Raises: ObjectNotFoundError when there is none."""
    watcher, ledger = Watcher(target), ledger_of(target)
    seqs = ledger.runs()
    if not seqs:
        raise no_run(target)
    for seq in seqs[:limit]:
        yield watcher.standing(ledger.read(seq))


@dataclass(frozen=True, slots=True)
class OpenRun:
    """The open run that `release` would give up. `alive` says why its owner seems to be at work, "" when not."""

    held: Held
    alive: str
    is_here: bool


def open_run(target: Target) -> OpenRun | None:
    """The newest run, when it is open. Raises: ObjectNotFoundError when there is no run at all."""
    newest = ledger_of(target).newest()
    if newest is None:
        raise no_run(target)
    entry = newest.entry
    if entry.is_final:
        return None
    if not entry.owner or is_gone(entry.holder):
        return OpenRun(newest, "", is_here=False)
    if entry.holder.host == this_process().host and entry.holder.pid:
        return OpenRun(newest, f"process {entry.holder.pid} of this machine is at work on it", is_here=True)
    now = target.writer.clock.now()
    if entry.expires_at and from_iso(entry.expires_at) > now:
        return OpenRun(newest, f"{entry.owner_name or entry.owner} was seen until {entry.expires_at}", is_here=False)
    return OpenRun(newest, "", is_here=False)


def release(target: Target, found: OpenRun, *, force: bool) -> Held:
    """Give the run up by compare-and-swap: final; what is committed counts for the next run of the same work.

    Raises: OutputBusyError when its owner seems alive (a process of this machine even with `force`), or when the
    entry changed meanwhile.
    """
    entry = found.held.entry
    if found.is_here or (found.alive and not force):
        way = (
            "stop that process first" if found.is_here else "stop it first, or add --force if you know that it is dead"
        )
        raise OutputBusyError(f"run {entry.seq} on {target.uri} is in use: {found.alive}", advice=way)
    changed = ledger_of(target).change(found.held, state="GivenUp", reason="Released", owner="")
    if changed is None:
        raise OutputBusyError(
            f"run {entry.seq} on {target.uri} changed at {iso(target.writer.clock.now())}: look again"
        )
    return changed


def run_named(target: Target, run: str) -> Held:
    """The run of that id or number, the newest for "". Raises: ObjectNotFoundError."""
    ledger = ledger_of(target)
    seqs = ledger.runs()
    if not seqs:
        raise no_run(target)
    if not run:
        return ledger.read(seqs[0])
    number = run.partition("-")[0]
    if number.isdecimal() and int(number) in seqs:
        held = ledger.read(int(number))
        if "-" not in run or layout_of(held.entry).run == run:
            return held
    raise ObjectNotFoundError(f"{target.uri} has no run {run}", advice="`pagemill runs` lists them")
