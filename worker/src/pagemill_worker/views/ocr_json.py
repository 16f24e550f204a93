"""`<prefix>/<id>_ocr.json`: one page's text in the form existing readers know.

Layer: `worker.views`; pure. The seven outer fields and those of a region are the contract and keep their names, order
and meaning. What Pagemill adds lies under the one key `pagemill`, and marks inside a region's `metadata`.
"""

from __future__ import annotations

from typing import Any

from pagemill_core.clock import iso
from pagemill_worker.ocr.engine import Region
from pagemill_worker.views.json_text import encode
from pagemill_worker.views.row import OcrRow, confidence_is_default, json_value, usage_values

DEFAULT_CONFIDENCE = 0.9  # what existing readers expect where a model gives no confidence
UNPARSED_CONFIDENCE = 0.5  # and where its answer was prose instead of JSON


def render_ocr_json(row: OcrRow) -> bytes:
    """The page as indented UTF-8 JSON without escapes, ending in a line feed."""
    regions = [region_fields(row, region) for region in row.regions]
    return encode(
        {
            "canonical_id": row.id,
            "source_image_path": row.source_uri,
            "ocr_method": row.engine_name,
            "timestamp": iso(row.finished_at),
            "text_regions": regions,
            "full_text": " ".join(texts(row)),
            "num_regions": len(regions),
            "pagemill": page_facts(row),
        }
    )


def texts(row: OcrRow) -> list[str]:
    """The texts of the page that are more than white space, in reading order."""
    return [region.text for region in row.regions if region.text.strip()]


def region_fields(row: OcrRow, region: Region) -> dict[str, Any]:
    """A region as the contract names it: `bbox` is [x, y, width, height]; what the engine did not give is left out."""
    is_default = confidence_is_default(row, region)
    fields: dict[str, Any] = {"text": region.text, "confidence": region.confidence}
    if is_default and region.confidence is None:
        fields["confidence"] = UNPARSED_CONFIDENCE if region.metadata.get("parsing_failed") else DEFAULT_CONFIDENCE
    if region.bbox is not None:
        fields["bbox"] = [float(number) for number in region.bbox]
    if region.polygon is not None:
        fields["polygon"] = [[float(x), float(y)] for x, y in region.polygon]
    marks = {"confidence_is_default": True} if is_default else {}
    fields["metadata"] = json_value({"level": region.level, **region.metadata, **marks})
    return fields


def page_facts(row: OcrRow) -> dict[str, Any]:
    """What is known of the page beside its text. Instants, ids and paths are in the outer fields."""
    return {
        "status": row.status,
        "image": {"width_px": row.width_px, "height_px": row.height_px, "dpi": row.dpi, "frames": row.frames},
        "page": row.page,
        "engine": {"name": row.engine_name, "version": row.engine_version, "languages": list(row.languages)},
        "bbox_space": "pixels of the upright page, origin top left",
        "confidence_is_default": row.confidence_is_default,
        "metadata": json_value(row.metadata),
        "seconds": dict(sorted(row.seconds.items())),
        "usage": row.usage and usage_values(row.usage),
    }
