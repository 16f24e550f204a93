"""From the lines an engine found to a `PageText`: blank and doubtful ones left out, boxes clipped, order applied.

Layer: `worker.ocr`; pure. Shared by every engine that returns lines in no reliable order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pagemill_worker.images.page import PageImage
from pagemill_worker.ocr.engine import PageText, Region
from pagemill_worker.ocr.options import EngineOptions
from pagemill_worker.ocr.reading_order import reading_order
from pagemill_worker.ocr.regions import polygon_region


@dataclass(frozen=True, slots=True)
class RawLine:
    """A line as an engine gives it: `points` clockwise from the text's top left, in the page's pixels."""

    text: str
    confidence: float
    points: Sequence[Sequence[float]]


def page_text(lines: Iterable[RawLine], page: PageImage, options: EngineOptions) -> PageText:
    """`lines` as regions in reading order."""
    regions = [
        polygon_region(line.text.strip(), line.confidence, line.points, page) for line in lines if line.text.strip()
    ]
    kept = [region for region in regions if _is_confident(region, options.min_confidence)]
    polygons = [region.polygon for region in kept if region.polygon is not None]
    placed = [region for region in kept if region.polygon is not None]
    outside = [region for region in kept if region.polygon is None]
    ordered = [placed[index] for index in reading_order(polygons, options.reading_order)]
    return PageText(regions=(*ordered, *outside))


def _is_confident(region: Region, minimum: float) -> bool:
    return region.confidence is None or region.confidence >= minimum
