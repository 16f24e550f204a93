"""What given-up runs of the same work committed, so that the run that follows them does not do it again.

Layer: `worker.plan`, beside `known`. Unlike the item index, these are runs of the very same work that simply were not
ended: an item they committed is done, whether the planner knows a version of it or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.plan import read_plan
from pagemill_worker.plan.digests import DigestMap, Digests, digests_of, short_digests
from pagemill_worker.plan.known import Known, Subtraction
from pagemill_worker.plan.retry import committed_rows
from pagemill_worker.plan.rows import BATCH_ROWS, Candidates


@dataclass(frozen=True, slots=True)
class GivenUpItems:
    """The succeeded items of given-up runs, with what version of each was read (0: none known)."""

    items: DigestMap

    @classmethod
    def load(cls, writer: Writer, runs: Sequence[str], fingerprint: str, scratch: Path) -> GivenUpItems:
        """Read what `runs` committed under `fingerprint`; runs under another are passed over."""
        items = DigestMap(scratch)
        for run in runs:
            pointer = read_plan(writer, RunLayout(run))
            if pointer is not None and pointer.fingerprint == fingerprint:
                for ids, versions in _batches(writer, run):
                    digests = digests_of(ids)
                    new = ~items.find(digests).present
                    items.add(digests[new], short_digests(versions)[new], np.zeros(int(new.sum()), np.int64))
        return cls(items)

    def subtract(self, batch: Candidates, digests: Digests) -> Subtraction:
        found = self.items.find(digests)
        versions = short_digests(version or "" for version in batch.versions)
        unversioned = np.asarray([version is None for version in batch.versions], np.bool_)
        done = found.present & (unversioned | (found.payloads == versions))
        return Subtraction(done, np.zeros(len(batch), np.bool_))

    def earlier_versions(self, batch: Candidates, digests: Digests) -> dict[int, str]:
        """None: what they committed is left out whole."""
        del batch, digests
        return {}

    def gone(self, present: DigestMap) -> Iterator[tuple[bytes, str]]:
        """None: the run is of the same work on the same source."""
        del present
        return iter(())


@dataclass(frozen=True, slots=True)
class KnownByAny:
    """Several kinds of earlier outcomes at once: an item that any of them knows needs no work."""

    parts: tuple[Known, ...]

    def subtract(self, batch: Candidates, digests: Digests) -> Subtraction:
        found = [part.subtract(batch, digests) for part in self.parts]
        done = np.logical_or.reduce([subtraction.done for subtraction in found])
        given_up = np.logical_or.reduce([subtraction.given_up for subtraction in found])
        return Subtraction(done, given_up & ~done)

    def earlier_versions(self, batch: Candidates, digests: Digests) -> dict[int, str]:
        return {at: version for part in self.parts for at, version in part.earlier_versions(batch, digests).items()}

    def gone(self, present: DigestMap) -> Iterator[tuple[bytes, str]]:
        for part in self.parts:
            yield from part.gone(present)


def _batches(writer: Writer, run: str) -> Iterator[tuple[list[str], Iterable[str]]]:
    ids: list[str] = []
    versions: list[str] = []
    seen: set[str] = set()
    for result in committed_rows(writer, run, only_failed=False):
        if result.item.id not in seen:
            seen.add(result.item.id)
            ids.append(result.item.id)
            versions.append(result.version_read or result.item.version or "")
        if len(ids) >= BATCH_ROWS:
            yield ids, versions
            ids, versions, seen = [], [], set()
    yield ids, versions
