"""What finalizing has in common whatever the kind: committed rows read back, the rows of a shard nobody finished.

Layer: `worker.finalize`, its bottom. Everything here is a pure function of committed data and the plan, so any
finalizer may repeat it at any time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from pagemill_core.clock import iso
from pagemill_core.errors import IntegrityError, ShardAbandoned
from pagemill_core.storage.store import ObjectStore
from pagemill_core.work import layout as keys
from pagemill_core.work.attempts import scan_segment
from pagemill_core.work.commit import put_output, read_output
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.publish import View
from pagemill_core.work.records import Marker, OutputRef, PlanPointer, Totals
from pagemill_core.work.rollup import segment_markers
from pagemill_worker.items import ItemFailure, ItemResult, Outcome, PlannedItem
from pagemill_worker.work import shard_data
from pagemill_worker.work.partials import verified_partials


@dataclass(frozen=True)
class CommittedRun(ABC):
    """The finalizing half of one run; a kind of job adds its views, its dataset and its whole-run files.

    `items(shard)` reads the plan, `write_extras` writes what belongs to the whole run: summary, report, item index.
    """

    writer: Writer
    layout: RunLayout
    pointer: PlanPointer
    items: Callable[[int], list[PlannedItem]]
    write_extras: Callable[[PlanPointer, Totals], None]

    @property
    def store(self) -> ObjectStore:
        return self.writer.store

    @abstractmethod
    def views_of(self, results: Iterable[ItemResult]) -> Iterator[View]:
        """The user-facing files of committed rows; items that failed have none, unless the kind says so."""

    @abstractmethod
    def write_dataset(self, segment: int, markers: Sequence[Marker]) -> OutputRef:
        """Write the dataset's part of one full segment: every item, ordered by row."""

    def results(self, marker: Marker, *, with_data: bool = True) -> list[ItemResult]:
        """The committed rows of a shard, encoders' rows among them unless `with_data` is false.

        Raises: IntegrityError when they do not match the marker or the plan.
        """
        (output,) = marker.outputs
        data = read_output(self.writer, output)
        results = shard_data.decode(data, self.pointer.fingerprint, output.key, with_data=with_data)
        if len(results) != marker.items.planned or len(results) != output.rows:
            raise IntegrityError(f"{output.key} has {len(results)} rows, its marker says {marker.items.planned}")
        return results

    def markers(self) -> Iterator[Marker]:
        """The run's markers, by shard."""
        for segment in range(-(-self.pointer.shards // keys.SEGMENT_SHARDS)):
            yield from segment_markers(self.writer, self.layout, segment)

    def all_results(self) -> Iterator[ItemResult]:
        """Every committed row in row order, one shard in memory at a time."""
        for marker in self.markers():
            yield from self.results(marker)

    def outcomes(self) -> Iterator[Outcome]:
        """How every item ended, in row order."""
        return map(Outcome.of, self.all_results())

    def views(self, marker: Marker) -> Iterator[View]:
        return self.views_of(self.results(marker))

    def seal(self, shard: int, attempt: str) -> Marker:
        """Write the rows of a shard that no attempt finished; partial rows that verify are kept."""
        items = self.items(shard)
        scan = scan_segment(self.writer, self.layout, keys.segment_of(shard))
        done = verified_partials(self.writer, scan.partials.get(shard, ()), items, self.pointer.fingerprint)
        results = [done.get(item.row) or _abandoned(item) for item in items]
        now = iso(self.writer.clock.now())
        data = shard_data.encode(results, self.pointer.fingerprint)
        where = (shard, attempt, shard_data.DATA_NAME)
        return Marker(
            shard=shard,
            attempt=attempt,
            plan=self.pointer.attempt,
            fingerprint=self.pointer.fingerprint,
            items=shard_data.count(results),
            failures=shard_data.failure_samples(results),
            failure_classes=shard_data.failure_classes(results),
            outputs=[put_output(self.writer, self.layout, where, data, len(results))],
            started=now,
            finished=now,
            worker="finalize",
            sealed=True,
        )

    def write_merged(self, pointer: PlanPointer, totals: Totals) -> None:
        self.write_extras(pointer, totals)

    def merged_keys(self) -> list[str]:
        """The whole-run files that hold results, as far as this run's are the ones shown; checked and mended by
        `pagemill verify`."""
        return []

    def mend_merged(self, pointer: PlanPointer, totals: Totals) -> bool:
        """Write those files again; what is there and whole stays as it is. Returns: whether the kind has any."""
        return False


def _abandoned(item: PlannedItem) -> ItemResult:
    failure = item.failure or ItemFailure.of(ShardAbandoned("its shard failed in every wave"))
    return ItemResult(item, "failed", failure=failure)
