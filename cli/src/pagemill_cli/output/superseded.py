"""Which runs newer ones hold entirely: every page of theirs has a newer result under the same names.

Layer: `cli.output`; reads committed rows, writes nothing. The union rule of the dataset decides: of an item's rows the
newest that succeeded or failed counts, a failure does not hide an older success, a skipped row hides nothing.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pagemill_cli.output.target import Target, job_of_plan
from pagemill_core.api.v1alpha1 import OcrJob
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.ledger import COLLECTED, Held
from pagemill_core.work.plan import read_plan
from pagemill_core.work.records import PlanPointer
from pagemill_worker.plan.digests import DigestMap, digests_of
from pagemill_worker.plan.retry import committed_ids

BATCH_ROWS = 16_384


def superseded_runs(target: Target, history: Sequence[Held], candidates: Sequence[Held], keep: int) -> list[Held]:
    """The runs among `candidates` that may be collected whole. `history` is the whole ledger, newest first, none open.

    A run is superseded when it is none of the `keep` newest finished ones of its work key, a newer run of that key
    finished, no plan that stays leans on it, and each of its succeeded items succeeded again in a newer finished run
    that writes the same names and formats (of a failed item, any newer outcome will do).
    """
    wanted = {held.run for held in candidates} - _kept(history, keep)
    if not wanted:
        return []
    leaned_on = {run for held in history for run in _subtracted(target, held)}
    found = []
    with tempfile.TemporaryDirectory(prefix="pagemill-gc-") as scratch:
        newer = _Newer(Path(scratch))
        for held in history:
            pointer = read_plan(target.writer, RunLayout(held.run))
            if pointer is None or held.entry.reason == COLLECTED:
                continue
            if held.run in wanted and held.run not in leaned_on and newer.hold(target, pointer):
                found.append(held)
            elif held.entry.state == "Finished":
                newer.add(target, pointer)
    return found


def _kept(history: Sequence[Held], keep: int) -> set[str]:
    """The newest finished runs of each work key, and every given-up run that no finished one of its key follows."""
    finished: Counter[str] = Counter()
    kept = set()
    for held in history:
        key = held.entry.work_key
        if held.entry.state == "Finished":
            if finished[key] < max(1, keep):
                kept.add(held.run)
            finished[key] += 1
        elif not finished[key]:
            kept.add(held.run)  # the next run of this work would build on what it committed
    return kept


def _subtracted(target: Target, held: Held) -> list[str]:
    pointer = read_plan(target.writer, RunLayout(held.run))
    return pointer.subtracted if pointer is not None else []


class _Newer:
    """What newer runs hold, by the names and formats they write it under."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._succeeded: list[tuple[str, frozenset[str], DigestMap]] = []
        self._any: DigestMap = DigestMap(scratch)

    def add(self, target: Target, pointer: PlanPointer) -> None:
        """Remember a finished run's outcomes."""
        prefix, formats = _names(pointer)
        succeeded = next((one for name, same, one in self._succeeded if (name, same) == (prefix, formats)), None)
        if succeeded is None:
            succeeded = DigestMap(self._scratch)
            self._succeeded.append((prefix, formats, succeeded))
        for ids in _batches(target, pointer.run, only_failed=False):
            _add(succeeded, ids)
            _add(self._any, ids)
        for ids in _batches(target, pointer.run, only_failed=True):
            _add(self._any, ids)

    def hold(self, target: Target, pointer: PlanPointer) -> bool:
        """Whether nothing of the run is needed any more."""
        prefix, formats = _names(pointer)
        maps = [one for name, written, one in self._succeeded if name == prefix and formats <= written]
        for ids in _batches(target, pointer.run, only_failed=False):
            digests = digests_of(ids)
            present = np.zeros(len(digests), np.bool_)
            for one in maps:
                present |= one.find(digests).present
            if not present.all():
                return False
        failed = _batches(target, pointer.run, only_failed=True)
        return all(self._any.find(digests_of(ids)).present.all() for ids in failed)


def _names(pointer: PlanPointer) -> tuple[str, frozenset[str]]:
    job = job_of_plan(pointer)
    if isinstance(job, OcrJob):
        return job.spec.output.effective_prefix, frozenset(job.spec.output.effective_formats)
    # Vectors of other models are other results, though they lie under the same names.
    return f"//{pointer.fingerprint}", frozenset(job.spec.effective_formats)


def _batches(target: Target, run: str, *, only_failed: bool) -> Iterator[list[str]]:
    ids: list[str] = []
    for item_id in committed_ids(target.writer, run, only_failed=only_failed):
        ids.append(item_id)
        if len(ids) >= BATCH_ROWS:
            yield ids
            ids = []
    if ids:
        yield ids


def _add(known: DigestMap, ids: list[str]) -> None:
    unique = list(dict.fromkeys(ids))  # rows that failed as DuplicateId repeat an id
    digests = digests_of(unique)
    new = digests[~known.find(digests).present]
    zeros = np.zeros(len(new), np.uint64)
    known.add(new, zeros, zeros.astype(np.int64))
