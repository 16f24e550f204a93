"""`<prefix>/<id>.json`: the dialect that the books pipeline reads beside a page's picture.

Layer: `worker.views`; pure. Its reader takes the value of `OCRResult` and ignores the rest. Two things differ from
`ocr_json`: texts are joined by line feeds, and a box is [x1, y1, x2, y2].
"""

from __future__ import annotations

from typing import Any

from pagemill_core.clock import iso
from pagemill_worker.ocr.engine import Region
from pagemill_worker.views.json_text import encode
from pagemill_worker.views.ocr_json import page_facts, region_fields, texts
from pagemill_worker.views.row import OcrRow


def render_ocr_result(row: OcrRow) -> bytes:
    """The page as indented UTF-8 JSON without escapes, ending in a line feed."""
    return encode(
        {
            "OCRResult": {
                "full_text": "\n".join(texts(row)),
                "text_regions": [_region(row, region) for region in row.regions],
            },
            "metadata": {
                "canonical_id": row.id,
                "source_image_path": row.source_uri,
                "ocr_method": row.engine_name,
                "timestamp": iso(row.finished_at),
                "num_regions": len(row.regions),
                "pagemill": page_facts(row),
            },
        }
    )


def _region(row: OcrRow, region: Region) -> dict[str, Any]:
    fields = region_fields(row, region)
    if region.bbox is not None:
        x, y, width, height = map(float, region.bbox)
        fields["bbox"] = [x, y, x + width, y + height]
    return fields
