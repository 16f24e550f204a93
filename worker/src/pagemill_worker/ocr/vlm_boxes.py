"""Boxes as models give them, made boxes of the page: pixels, top-left origin, inside the page.

Layer: `worker.ocr`, pure. A box that cannot be understood is None; a wrong box is worse than none, because it is
believed by everything that comes after.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from pagemill_worker.ocr.vlm_image import SentImage
from pagemill_worker.ocr.vlm_presets import Boxes

Corners = tuple[float, float, float, float]
Bbox = tuple[float, float, float, float]

_THOUSAND: Final = 1000.0
# A corner may lie this much of a side outside the page and is then moved to its edge; models overshoot by a little.
# Further out the numbers are of another convention than ours, and the box is dropped. 0.02 is arbitrary.
_OVERSHOOT: Final = 0.02


def page_bbox(corners: Sequence[float], *, boxes: Boxes, image: SentImage) -> Bbox | None:
    """(x, y, width, height) in the page's pixels, or None when `corners` make no box on this page.

    `corners` are four numbers in the model's own convention.
    """
    if boxes is Boxes.NONE or len(corners) != 4 or not all(math.isfinite(value) for value in corners):
        return None
    left, top, right, bottom = _as_fractions((corners[0], corners[1], corners[2], corners[3]), boxes, image)
    if right < left or bottom < top:
        return None
    if min(left, top) < -_OVERSHOOT or max(right, bottom) > 1 + _OVERSHOOT:
        return None
    x, x_end = _inside(left, right, image.page_width_px)
    y, y_end = _inside(top, bottom, image.page_height_px)
    if x_end <= x or y_end <= y:
        return None
    return (x, y, x_end - x, y_end - y)


def _inside(start: float, end: float, side_px: int) -> tuple[float, float]:
    """`start` and `end` as pixels of a side, outwards to quarter pixels, cut at the page's edges.

    Quarters, because they are exact in binary: x + width then never passes the edge by a rounding error.
    """
    return max(0.0, math.floor(start * side_px * 4) / 4), min(float(side_px), math.ceil(end * side_px * 4) / 4)


def _as_fractions(corners: Corners, boxes: Boxes, image: SentImage) -> Corners:
    if boxes is Boxes.PIXELS:
        x1, y1, x2, y2 = corners
        return (x1 / image.width_px, y1 / image.height_px, x2 / image.width_px, y2 / image.height_px)
    if boxes is Boxes.THOUSANDTHS_YX:
        y1, x1, y2, x2 = corners
    else:
        x1, y1, x2, y2 = corners
    return (x1 / _THOUSAND, y1 / _THOUSAND, x2 / _THOUSAND, y2 / _THOUSAND)
