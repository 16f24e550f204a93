"""A page's regions as blocks, lines and words with whole-pixel boxes, for the formats that are built that way.

Layer: `worker.views`; pure. Order is never changed: regions come in reading order and stay in it. Words that an engine
gave one by one are gathered into lines; lines that it gave whole are cut into words, whose boxes are then estimates.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from pagemill_worker.ocr.engine import Region
from pagemill_worker.views.row import OcrRow, real_confidence

# XML's white space and no more: a no-break or an ideographic space belongs to its word and would be lost otherwise.
_SPACE = re.compile("[ \t\r\n]+")
_LINE_KEYS = ("block", "paragraph", "line")  # in the metadata of engines that number their lines
_LINE_END = re.compile("\r\n|\r|\n")

SAME_LINE_OVERLAP = 0.5  # of the lower box's height: less is the next line, even on a page askew by a few degrees
TALL = 1.5  # height by width from which three characters or more can only run downwards
TALL_MIN_CHARS = 3


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the upright page, origin top left; `right` and `bottom` lie outside it."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    def whole(self) -> tuple[int, int, int, int]:
        """The box in whole pixels: left, top, right, bottom."""
        return round(self.left), round(self.top), round(self.right), round(self.bottom)

    def part(self, start: float, end: float, *, downwards: bool) -> Box:
        """The slice from `start` to `end`, fractions of the width, or of the height when `downwards`."""
        if downwards:
            return Box(self.left, self.top + start * self.height, self.right, self.top + end * self.height)
        return Box(self.left + start * self.width, self.top, self.left + end * self.width, self.bottom)


@dataclass(frozen=True, slots=True)
class Word:
    """Characters without white space between them.

    `box` is None when the engine gave no place, `confidence` (0 to 1) when it gave none, or only a stand-in.
    """

    text: str
    box: Box | None
    confidence: float | None
    box_is_estimated: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """Words on one line, at least one. `polygon` is the outline of a line that the engine gave whole."""

    words: tuple[Word, ...]
    polygon: tuple[tuple[float, float], ...] | None = None

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)

    @property
    def box(self) -> Box | None:
        return union(word.box for word in self.words)


@dataclass(frozen=True, slots=True)
class Block:
    """Lines that belong together, at least one."""

    lines: tuple[Line, ...]

    @property
    def box(self) -> Box | None:
        return union(line.box for line in self.lines)


def arrange(row: OcrRow) -> list[Block]:
    """The page's blocks in reading order; none when it has no text.

    A region of level "block" is a block of its own, its box cut evenly among its lines; everything between two of them
    is one block. White space only separates words, and regions of nothing else are left out.
    """
    blocks: list[Block] = []
    loose: list[Line] = []
    for run in _runs(row):
        lines = _lines_of(row, run)
        if run[0].level != "block":
            loose += lines
            continue
        if loose:
            blocks.append(Block(tuple(loose)))
            loose = []
        blocks.append(Block(tuple(lines)))
    if loose:
        blocks.append(Block(tuple(loose)))
    return blocks


def runs_downwards(text: str, box: Box) -> bool:
    """Whether `text` must run from top to bottom to fill `box`, as Japanese in balloons does."""
    is_wide = any(unicodedata.east_asian_width(char) in ("W", "F") for char in text)
    long_enough = len(text) >= TALL_MIN_CHARS or (is_wide and len(text) > 1)
    return long_enough and box.height > TALL * box.width


def union(boxes: Iterable[Box | None]) -> Box | None:
    """The smallest box around those that are there; None when none is."""
    known = [box for box in boxes if box is not None]
    if not known:
        return None
    return Box(
        min(box.left for box in known),
        min(box.top for box in known),
        max(box.right for box in known),
        max(box.bottom for box in known),
    )


def box_of(row: OcrRow, region: Region) -> Box | None:
    """The region's box, cut to the page."""
    if region.bbox is None:
        return None
    x, y, width, height = region.bbox
    page_width, page_height = row.width_px or 0, row.height_px or 0
    left, top = min(max(x, 0), page_width), min(max(y, 0), page_height)
    return Box(left, top, min(max(x + width, left), page_width), min(max(y + height, top), page_height))


def reading_lines(row: OcrRow) -> list[tuple[Region, ...]]:
    """The page's regions in order, each alone but for words of one line, which are together; blank ones left out."""
    return [tuple(run) for run in _runs(row)]


def _runs(row: OcrRow) -> list[list[Region]]:
    runs: list[list[Region]] = []
    for region in row.regions:
        if not region.text.strip(" \t\r\n"):
            continue
        if runs and _continues(runs[-1], region):
            runs[-1].append(region)
        else:
            runs.append([region])
    return runs


def _continues(line: list[Region], word: Region) -> bool:
    """Whether `word` stands on the line of the words before it, whichever way the script runs."""
    before = line[-1]
    if before.level != "word" or word.level != "word":
        return False
    if "line" in before.metadata and "line" in word.metadata:
        return all(before.metadata.get(key) == word.metadata.get(key) for key in _LINE_KEYS)
    if before.bbox is None or word.bbox is None:
        return False
    overlap = min(before.bbox[1] + before.bbox[3], word.bbox[1] + word.bbox[3]) - max(before.bbox[1], word.bbox[1])
    if overlap < SAME_LINE_OVERLAP * min(before.bbox[3], word.bbox[3]):
        return False
    # A line that steps back over itself is the next line of text set so tight that heights overlap.
    centre = word.bbox[0] + word.bbox[2] / 2
    return not any(other.bbox and other.bbox[0] < centre < other.bbox[0] + other.bbox[2] for other in line)


def _lines_of(row: OcrRow, run: list[Region]) -> list[Line]:
    if run[0].level == "word":
        return [Line(tuple(word for region in run for word in _words(row, region, region.text, box_of(row, region))))]
    (region,) = run
    texts = [text for text in _LINE_END.split(region.text) if text.strip(" \t")]
    box = box_of(row, region)
    if len(texts) == 1:
        return [Line(tuple(_words(row, region, texts[0], box)), region.polygon)]
    boxes = [box and box.part(i / len(texts), (i + 1) / len(texts), downwards=True) for i in range(len(texts))]
    return [Line(tuple(_words(row, region, text, part))) for text, part in zip(texts, boxes, strict=True)]


def _words(row: OcrRow, region: Region, text: str, box: Box | None) -> list[Word]:
    """`text` cut at white space, its box cut in proportion to the characters."""
    line = _SPACE.sub(" ", text).strip(" ")
    confidence = real_confidence(row, region)
    downwards = box is not None and runs_downwards(line, box)
    words: list[Word] = []
    start = 0
    for piece in line.split(" "):
        end = start + len(piece)
        part = box and box.part(start / len(line), end / len(line), downwards=downwards)
        words.append(Word(piece, part, confidence, box_is_estimated=box is not None and len(piece) < len(line)))
        start = end + 1
    return words
