"""What finalizing an OcrJob means: its views, its dataset, the rows of a shard nobody finished.

Layer: `worker.finalize`. Everything here is a pure function of committed data and the plan, so any finalizer may
repeat it at any time.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from pagemill_core.api.v1alpha1 import OcrJob
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
from pagemill_worker.fetch.fetched import shown_uri
from pagemill_worker.finalize.dataset import schema, write_part
from pagemill_worker.images.load import load_page
from pagemill_worker.items import ItemFailure, ItemResult, PlannedItem
from pagemill_worker.ocr.job import image_limits
from pagemill_worker.views.registry import ViewName, needs_pixels, render_views
from pagemill_worker.views.row import from_payload
from pagemill_worker.work import shard_data
from pagemill_worker.work.partials import verified_partials

PICTURE_QUALITY = 85  # of the page inside a searchable PDF


@dataclass(frozen=True)
class OcrKind:
    """The finalizing half of an OcrJob's run.

    `items(shard)` reads the plan, `fetch(item)` an item's bytes again (for views that show the page), `write_extras`
    writes what belongs to the whole run: summary, report, item index.
    """

    job: OcrJob
    writer: Writer
    layout: RunLayout
    pointer: PlanPointer
    items: Callable[[int], list[PlannedItem]]
    fetch: Callable[[PlannedItem], bytes]
    write_extras: Callable[[PlanPointer, Totals], None]

    @property
    def store(self) -> ObjectStore:
        return self.writer.store

    def results(self, marker: Marker) -> list[ItemResult]:
        """The committed rows of a shard. Raises: IntegrityError when they do not match the marker or the plan."""
        (output,) = marker.outputs
        results = shard_data.decode(read_output(self.writer, output), self.pointer.fingerprint, output.key)
        if len(results) != marker.items.planned or len(results) != output.rows:
            raise IntegrityError(f"{output.key} has {len(results)} rows, its marker says {marker.items.planned}")
        return results

    def views(self, marker: Marker) -> Iterator[View]:
        return self.views_of(self.results(marker))

    def views_of(self, results: Iterable[ItemResult]) -> Iterator[View]:
        """The user-facing files of committed rows; items that failed have none."""
        formats: Sequence[ViewName] = self.job.spec.output.effective_formats
        prefix = self.job.spec.output.effective_prefix
        for result in results:
            if result.status != "succeeded" or result.payload is None:
                continue
            row = from_payload(result.payload)
            item = result.item
            pixels = (lambda item=item: self._picture(item)) if needs_pixels(formats) else None
            for view in render_views(row, formats, prefix, pixels):
                yield View(view.key, view.data)

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

    def write_dataset(self, segment: int, markers: Sequence[Marker]) -> OutputRef:
        key = keys.dataset_part(self.layout.seq, segment)
        columns = self.pointer.columns
        shards = (self.results(marker) for marker in markers)
        return write_part(self.store, key, shards, schema(columns, self.pointer.fingerprint), columns)

    def write_merged(self, pointer: PlanPointer, totals: Totals) -> None:
        self.write_extras(pointer, totals)

    def _picture(self, item: PlannedItem) -> bytes:
        page = load_page(self.fetch(item), page=item.page, limits=image_limits(self.job), origin=shown_uri(item.uri))
        buffer = io.BytesIO()
        Image.fromarray(page.pixels).save(buffer, "JPEG", quality=PICTURE_QUALITY)
        return buffer.getvalue()


def _abandoned(item: PlannedItem) -> ItemResult:
    failure = item.failure or ItemFailure.of(ShardAbandoned("its shard failed in every wave"))
    return ItemResult(item, "failed", failure=failure)
