"""What may go from an output: leftovers of runs that ended, and runs that newer ones hold entirely.

Layer: `cli.output`. Decides what is garbage from ledger, plans and markers; deletes in an order in which a crash, at
any point, leaves an output that reads as before and a second `gc` finishes the first.

Never garbage: anything of a run that is open; the newest finished runs of each work key; markers, rollups, usage,
reports, `_SUCCESS.json` and `plan.json` of any run; ledger entries; views; what the index's pointer names; what a
later run's plan leans on (`subtracted`). Nothing of a run that was given up goes before a day has passed, because a
worker that slept meanwhile may still commit what it wrote; a finished run has all its markers, so nobody can.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from pagemill_cli.output.standing import ledger_of
from pagemill_cli.output.superseded import superseded_runs
from pagemill_cli.output.target import Target, no_run
from pagemill_core.clock import from_iso
from pagemill_core.errors import OutputBusyError
from pagemill_core.storage.store import ObjectInfo
from pagemill_core.work import layout as keys
from pagemill_core.work.conditional import Writer
from pagemill_core.work.index import read_index
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.ledger import COLLECTED, Held
from pagemill_core.work.plan import read_plan
from pagemill_core.work.records import Marker

GRACE = dt.timedelta(hours=24)
Why = Literal["Leftover", "Superseded", "OldIndex"]


@dataclass(frozen=True, slots=True)
class Garbage:
    """One object that may go."""

    key: str
    size_bytes: int
    why: Why
    run: str


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a gc found: objects to delete, in order, and the runs to mark as collected before that."""

    superseded: tuple[Held, ...]
    objects: Callable[[], Iterator[Garbage]]
    notes: tuple[str, ...] = ()


def find_garbage(target: Target, keep: int) -> Sweep:
    """Look through the output. `keep`: newest finished runs of each work key that are never superseded, at least 1.

    Raises: ObjectNotFoundError without any run.
    """
    history = list(ledger_of(target).history())
    if not history:
        raise no_run(target)
    is_open = not history[0].entry.is_final
    final = [held for held in history if held.entry.is_final]
    now = target.writer.clock.now()
    settled = [held for held in final if held.entry.state == "Finished" or _ended_before(held, now - GRACE)]
    superseded: tuple[Held, ...] = ()
    notes: list[str] = []
    if is_open:
        notes.append(f"run {history[0].run} is open: no run and no index is collected until it has ended")
    else:
        old = [held for held in settled if _ended_before(held, now - GRACE)]
        superseded = tuple(superseded_runs(target, history, old, keep))
    if len(settled) < len(final):
        notes.append("runs that were given up less than a day ago are left alone")
    whole = {held.run for held in superseded} | {held.run for held in final if held.entry.reason == COLLECTED}

    def objects() -> Iterator[Garbage]:
        runs = (_of_run(target.writer, held, is_whole=held.run in whole) for held in settled)
        index = [] if is_open else _old_index(target.writer)
        return chain(chain.from_iterable(runs), index)

    return Sweep(superseded, objects, tuple(notes))


def sweep(target: Target, found: Sweep, deleted: Callable[[Garbage], None]) -> None:
    """Delete what was found. `deleted` hears of each object.

    First the entries of superseded runs say so (compare-and-swap), so that nobody takes missing data for damage;
    then their objects go, in any order. Raises: OutputBusyError when an entry changed meanwhile.
    """
    ledger = ledger_of(target)
    for held in found.superseded:
        if ledger.change(held, reason=COLLECTED) is None:
            raise OutputBusyError(f"the entry of run {held.run} changed meanwhile", advice="run gc again")
    for garbage in found.objects():
        target.writer.retrying(lambda key=garbage.key: target.writer.store.delete(key))  # type: ignore[misc]
        deleted(garbage)


def as_json(garbage: Garbage) -> dict[str, Any]:
    """What `-o json` prints of one object."""
    return {"key": garbage.key, "sizeBytes": garbage.size_bytes, "why": garbage.why, "run": garbage.run}


def _ended_before(held: Held, instant: dt.datetime) -> bool:
    return bool(held.entry.finished_at) and from_iso(held.entry.finished_at) < instant


def _of_run(writer: Writer, held: Held, *, is_whole: bool) -> Iterator[Garbage]:
    """The garbage of one run that ended; with `is_whole` all of its data, plan tables and dataset go too."""
    layout, run = RunLayout(held.run), held.run
    why: Why = "Superseded" if is_whole else "Leftover"
    for prefix in (layout.waves_prefix, f"{layout.prefix}attempts/", f"{layout.prefix}partial/"):
        yield from (Garbage(info.key, info.size, "Leftover", run) for info in _listed(writer, prefix))
    named = set() if is_whole else _named_data(writer, layout)
    for info in _listed(writer, f"{layout.prefix}data/"):
        if info.key not in named:
            yield Garbage(info.key, info.size, why, run)
    tables = _named_tables(writer, layout, is_whole=is_whole)
    for info in _listed(writer, f"{layout.prefix}plan/"):
        if info.key != layout.plan_pointer and not info.key.startswith(tables):
            yield Garbage(info.key, info.size, why, run)
    if is_whole:
        for prefix in (f"{layout.prefix}published/", f"dataset/run={layout.seq:08d}/"):
            yield from (Garbage(info.key, info.size, "Superseded", run) for info in _listed(writer, prefix))


def _named_data(writer: Writer, layout: RunLayout) -> set[str]:
    """Every object that a marker names. Read from the markers themselves: a rollup only repeats them."""
    named: set[str] = set()
    for info in _listed(writer, layout.markers_prefix):
        blob = writer.get(info.key)
        if blob is not None:
            named.update(output.key for output in Marker.from_bytes(blob.data, info.key).outputs)
    return named


def _named_tables(writer: Writer, layout: RunLayout, *, is_whole: bool) -> tuple[str, ...]:
    """The prefix of the plan's attempt whose tables count; none when the run has no plan, or none that is needed."""
    pointer = None if is_whole else read_plan(writer, layout)
    return (layout.plan_attempt(pointer.attempt),) if pointer is not None else ()


def _old_index(writer: Writer) -> Iterator[Garbage]:
    """Parts of the item index that its pointer names no more. Call only while no run is open."""
    pointer = read_index(writer)
    if pointer is None:
        return
    named = {part.key for part in pointer.parts}
    prefix = keys.INDEX_POINTER.rpartition("/")[0] + "/"
    for info in _listed(writer, prefix):
        run = info.key.removeprefix(prefix).partition("/")[0]
        if info.key != keys.INDEX_POINTER and info.key not in named and int(run[:8]) <= pointer.seq:
            yield Garbage(info.key, info.size, "OldIndex", run)


def _listed(writer: Writer, prefix: str) -> list[ObjectInfo]:
    return sorted(writer.listing(prefix), key=lambda info: info.key)
