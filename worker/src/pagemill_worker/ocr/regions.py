"""From an engine's boxes to `Region`: clipped to the page, in steps that every float can say exactly.

Layer: `worker.ocr`; pure. Pixels, origin at the top left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pagemill_worker.images.page import PageImage
from pagemill_worker.ocr.engine import Region

Point = tuple[float, float]
Polygon = tuple[Point, ...]

# Quarters of a pixel have no rounding error in binary, so x + width never exceeds the page by 1e-13; finer than any
# engine's own precision.
_STEPS_PER_PX = 4
_CONFIDENCE_DECIMALS = 4


def clip_polygon(points: Sequence[Sequence[float]], page: PageImage) -> Polygon:
    """`points` inside the page, in quarters of a pixel."""
    return tuple((_snap(point[0], page.width_px), _snap(point[1], page.height_px)) for point in points)


def bounding_box(polygon: Polygon) -> tuple[float, float, float, float] | None:
    """(x, y, width, height) of `polygon`, or None when it has no area (it lay outside the page)."""
    xs, ys = [x for x, _ in polygon], [y for _, y in polygon]
    left, top = min(xs), min(ys)
    width, height = max(xs) - left, max(ys) - top
    return (left, top, width, height) if width > 0 and height > 0 else None


def rectangle(left: float, top: float, right: float, bottom: float) -> Polygon:
    """The four corners, clockwise from the top left."""
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def polygon_region(text: str, confidence: float, points: Sequence[Sequence[float]], page: PageImage) -> Region:
    """A line with its polygon; both boxes are None when the engine's lies outside the page."""
    polygon = clip_polygon(points, page)
    bbox = bounding_box(polygon)
    return Region(
        text=text, confidence=unit_confidence(confidence), bbox=bbox, polygon=polygon if bbox is not None else None
    )


def word_region(
    text: str, confidence: float, box: tuple[float, float, float, float], page: PageImage, metadata: Mapping[str, Any]
) -> Region:
    """A word in the upright `box` = (left, top, right, bottom)."""
    bbox = bounding_box(clip_polygon(rectangle(*box), page))
    return Region(text=text, confidence=unit_confidence(confidence), bbox=bbox, level="word", metadata=metadata)


def unit_confidence(value: float) -> float:
    """`value` within 0 to 1, four decimals: what two machines of one class agree on."""
    return round(min(max(float(value), 0.0), 1.0), _CONFIDENCE_DECIMALS)


def _snap(value: float, limit_px: int) -> float:
    clipped = min(max(float(value), 0.0), float(limit_px))
    return round(clipped * _STEPS_PER_PX) / _STEPS_PER_PX
