"""The order in which people read the regions of a page; the one rule for every engine that only finds lines.

Layer: `worker.ocr`; pure and deterministic: equal boxes give an equal order, whatever order they come in, ties aside.

The rule, also in docs/guide/engines.md:

1. Boxes are turned by the text's own angle (the median over all boxes, long ones count more), or two degrees of skew
   would mix neighbouring lines.
2. White bands higher than `BAND_LINES` lines cut the page into rows of blocks, read from top to bottom.
3. Inside such a block, the longest run of lines that a gutter parts is read column by column: left to right, or right
   to left on request. A gutter is white over the whole run, at least `GUTTER_LINES` lines wide, with two lines or
   more on each side; when both sides' lines stand on the same baselines, the sides must be wide too, for else it is a
   table or a form, which is read row by row.
4. What is left are lines: boxes that share most of their height, read along the line.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pagemill_worker.ocr.options import ReadingDirection
from pagemill_worker.ocr.regions import Polygon

BAND_LINES = 2.0  # a paragraph's gap is below one line, a picture's or a panel's above two
GUTTER_LINES = 1.0  # the gap between two words is about a third of a line
_WIDE_LINES = 8.0  # a column of prose is at least some 16 characters wide
_SAME_BASELINE_SHARE = 0.6
_MIN_COLUMN_LINES = 2


@dataclass(frozen=True, slots=True)
class _Box:
    """A region's extent in the turned page."""

    index: int
    left: float
    top: float
    right: float
    bottom: float

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2


_Extent = Callable[[_Box], tuple[float, float]]


def reading_order(polygons: Sequence[Polygon], direction: ReadingDirection = "left-to-right") -> list[int]:
    """The indices of `polygons` in reading order, each once. Polygons start at the top left of their text."""
    if not polygons:
        return []
    angle = text_angle(polygons)
    boxes = [_turned(index, polygon, angle) for index, polygon in enumerate(polygons)]
    line_height = statistics.median(_thickness(box) for box in boxes) or 1.0
    page = _Page(line_height=line_height, right_to_left=direction == "right-to-left")
    return [box.index for box in page.ordered(boxes)]


def text_angle(polygons: Sequence[Polygon]) -> float:
    """The angle of the text's lines in radians, clockwise on the page: the median of the top edges, by their length."""
    edges: list[tuple[float, float]] = []
    for polygon in polygons:
        (x0, y0), (x1, y1) = polygon[0], polygon[1]
        length = math.hypot(x1 - x0, y1 - y0)
        if length > 0:
            edges.append((math.atan2(y1 - y0, x1 - x0), length))
    edges.sort()
    half = sum(length for _, length in edges) / 2
    passed = 0.0
    for angle, length in edges:
        passed += length
        if passed >= half:
            return angle
    return 0.0


@dataclass(frozen=True, slots=True)
class _Page:
    line_height: float
    right_to_left: bool

    def ordered(self, boxes: list[_Box]) -> list[_Box]:
        bands = _separate(boxes, _vertical, self.line_height * BAND_LINES)
        return [box for band in bands for box in self._block(band)]

    def _block(self, boxes: list[_Box]) -> list[_Box]:
        """A block without high white bands: runs of columns and single lines, from top to bottom."""
        strips = _separate(boxes, _vertical, 0.0)
        full_width = (min(box.left for box in boxes), max(box.right for box in boxes))
        result: list[_Box] = []
        start = 0
        while start < len(strips):
            end, columns = self._longest_run(strips, start, full_width)
            if columns:
                for column in columns:
                    result += self.ordered(column)
            else:
                result += self._lines(strips[start])
            start = end
        return result

    def _longest_run(
        self, strips: list[list[_Box]], start: int, full_width: tuple[float, float]
    ) -> tuple[int, list[list[_Box]]]:
        """Where the longest columned run from `start` ends, and its columns; (start + 1, []) when there is none."""
        gutter = self.line_height * GUTTER_LINES
        best: tuple[int, list[list[_Box]]] = (start + 1, [])
        run: list[_Box] = []
        inked: list[tuple[float, float]] = []
        for end in range(start, len(strips)):
            run = run + strips[end]
            inked = _joined([*inked, *map(_horizontal, strips[end])], gutter)
            if len(inked) == 1:
                left, right = inked[0]
                if left - full_width[0] <= gutter and full_width[1] - right <= gutter:
                    break  # nothing further down can open a gutter again
                continue
            sides = _separate(run, _horizontal, gutter)
            if self._are_columns(sides):
                best = (end + 1, sides[::-1] if self.right_to_left else sides)
        return best

    def _are_columns(self, sides: list[list[_Box]]) -> bool:
        if any(len(_separate_lines(side)) < _MIN_COLUMN_LINES for side in sides):
            return False
        wide = all(max(b.right for b in s) - min(b.left for b in s) >= _WIDE_LINES * self.line_height for s in sides)
        return wide or not _share_baselines(sides, self.line_height)

    def _lines(self, boxes: list[_Box]) -> list[_Box]:
        result: list[_Box] = []
        for line in _separate_lines(boxes):
            line.sort(key=lambda box: (-box.right if self.right_to_left else box.left, box.top, box.index))
            result += line
        return result


def _turned(index: int, polygon: Polygon, angle: float) -> _Box:
    cos, sin = math.cos(-angle), math.sin(-angle)
    xs = [x * cos - y * sin for x, y in polygon]
    ys = [x * sin + y * cos for x, y in polygon]
    return _Box(index, min(xs), min(ys), max(xs), max(ys))


def _thickness(box: _Box) -> float:
    """The height of a line, or the width of a vertical one: the shorter side."""
    return min(box.height, box.right - box.left)


def _vertical(box: _Box) -> tuple[float, float]:
    return box.top, box.bottom


def _horizontal(box: _Box) -> tuple[float, float]:
    return box.left, box.right


def _separate(boxes: list[_Box], extent: _Extent, gap: float) -> list[list[_Box]]:
    """Groups between which more than `gap` of white runs across all boxes, in the order of the axis."""
    groups: list[list[_Box]] = []
    reach = -math.inf
    for box in sorted(boxes, key=lambda box: (*extent(box), box.index)):
        low, high = extent(box)
        if low - reach > gap or not groups:
            groups.append([])
        groups[-1].append(box)
        reach = max(reach, high)
    return groups


def _joined(intervals: list[tuple[float, float]], gap: float) -> list[tuple[float, float]]:
    """`intervals` in order, those joined that overlap or are at most `gap` apart."""
    joined: list[tuple[float, float]] = []
    for low, high in sorted(intervals):
        if joined and low - joined[-1][1] <= gap:
            joined[-1] = (joined[-1][0], max(joined[-1][1], high))
        else:
            joined.append((low, high))
    return joined


def _separate_lines(boxes: list[_Box]) -> list[list[_Box]]:
    """Boxes by line: one belongs to a line when its middle lies within the line's first box, or the other way round."""
    lines: list[list[_Box]] = []
    for box in sorted(boxes, key=lambda box: (box.middle, box.left, box.index)):
        if lines and _on_one_line(lines[-1][0], box):
            lines[-1].append(box)
        else:
            lines.append([box])
    return lines


def _on_one_line(first: _Box, box: _Box) -> bool:
    overlap = min(first.bottom, box.bottom) - max(first.top, box.top)
    return overlap > min(first.height, box.height) / 2


def _share_baselines(sides: list[list[_Box]], line_height: float) -> bool:
    """Whether most lines of the shorter of two neighbouring sides have a partner beside them, as a table's rows do."""
    for left, right in zip(sides, sides[1:], strict=False):
        short, other = sorted((left, right), key=len)
        partners = sum(any(abs(a.middle - b.middle) < line_height / 4 for b in other) for a in short)
        if partners < _SAME_BASELINE_SHARE * len(short):
            return False
    return True
