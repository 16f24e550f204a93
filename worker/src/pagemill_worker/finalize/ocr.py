"""What finalizing an OcrJob means: its views and its dataset.

Layer: `worker.finalize`. What every kind shares stands in `committed`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from pagemill_core.api.v1alpha1 import OcrJob
from pagemill_core.work import layout as keys
from pagemill_core.work.publish import View
from pagemill_core.work.records import Marker, OutputRef
from pagemill_worker.fetch.fetched import shown_uri
from pagemill_worker.finalize.committed import CommittedRun
from pagemill_worker.finalize.dataset import schema, write_part
from pagemill_worker.images.load import load_page
from pagemill_worker.items import ItemResult, PlannedItem
from pagemill_worker.ocr.job import image_limits
from pagemill_worker.views.registry import ViewName, needs_pixels, render_views
from pagemill_worker.views.row import from_payload

PICTURE_QUALITY = 85  # of the page inside a searchable PDF


@dataclass(frozen=True, kw_only=True)
class OcrKind(CommittedRun):
    """The finalizing half of an OcrJob's run; `fetch(item)` reads an item again, for views that show the page."""

    job: OcrJob
    fetch: Callable[[PlannedItem], bytes]

    def views_of(self, results: Iterable[ItemResult]) -> Iterator[View]:
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

    def write_dataset(self, segment: int, markers: Sequence[Marker]) -> OutputRef:
        key = keys.dataset_part(self.layout.seq, segment)
        columns = self.pointer.columns
        shards = (self.results(marker) for marker in markers)
        has_notes = "stages" in self.pointer.fingerprint_fields
        wanted = schema(columns, self.pointer.fingerprint, has_notes=has_notes)
        return write_part(self.store, key, shards, wanted, columns)

    def _picture(self, item: PlannedItem) -> bytes:
        page = load_page(self.fetch(item), page=item.page, limits=image_limits(self.job), origin=shown_uri(item.uri))
        buffer = io.BytesIO()
        Image.fromarray(page.pixels).save(buffer, "JPEG", quality=PICTURE_QUALITY)
        return buffer.getvalue()
