"""The invisible text layer of a searchable PDF: where every character goes, as PDF operators.

Layer: `worker.views`; pure, and knows nothing of pikepdf. Source: ISO 32000-1, 9.4 (text operators) and 9.10.3
(ToUnicode). Text is laid so that it fills the box it was read in, whatever its script's real proportions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pagemill_worker.views.characters import REPLACEMENT, legal_text, visual_order
from pagemill_worker.views.glyphless import ASCENT, DESCENT, GLYPH_WIDTH, UNITS_PER_EM
from pagemill_worker.views.layout import Box, Line, runs_downwards

MAX_CODE = 65_535  # codes are two bytes; a page with more different characters gets U+FFFD for the rest
FLAT_PX = 1.0  # an outline that leaves its box by less than this is the box
MIN_SIDE_PX = 1.0  # a box without area would make a matrix that no reader can invert
CMAP_BLOCK = 100  # the most entries one bfchar operator may have

Vector = tuple[float, float]

_CMAP = """\
/CIDInit /ProcSet findresource begin
12 dict begin
begincmap
/CIDSystemInfo << /Registry (Adobe) /Ordering (UCS) /Supplement 0 >> def
/CMapName /Adobe-Identity-UCS def
/CMapType 2 def
1 begincodespacerange
<0000> <FFFF>
endcodespacerange
{entries}endcmap
CMapName currentdict /CMap defineresource pop
end
end
"""


@dataclass(frozen=True, slots=True)
class Frame:
    """The parallelogram that a run of text fills, in pixels, y downwards.

    `origin` is the corner below the first character, `along` leads to the end of the run, `up` to the top of it.
    """

    origin: Vector
    along: Vector
    up: Vector


class TextLayer:
    """Collects a page's lines as text operators; each different character gets the next two-byte code."""

    def __init__(self, points_per_pixel: float, height_px: int) -> None:
        self._scale = points_per_pixel
        self._height_px = height_px
        self._codes: dict[str, int] = {}
        self._parts: list[str] = []

    @property
    def characters(self) -> list[str]:
        """The characters used, the one with code 1 first."""
        return list(self._codes)

    def operators(self) -> str:
        """The whole layer: mode 3 is invisible."""
        return "BT 3 Tr /F 1 Tf\n" + "".join(self._parts) + "ET\n"

    def add(self, line: Line) -> None:
        """Lay a line: whole when the engine gave it whole, else word by word. A line without a place is left out."""
        for text, corners in _runs(line):
            self._show(visual_order(legal_text(text)), _frame(text, corners))

    def _show(self, text: str, frame: Frame) -> None:
        codes = "".join(f"{self._code(char):04X}" for char in text)
        self._parts.append(f"{self._matrix(frame, len(text))} Tm <{codes}> Tj\n")

    def _matrix(self, frame: Frame, length: int) -> str:
        advance = length * GLYPH_WIDTH / UNITS_PER_EM
        height = (ASCENT - DESCENT) / UNITS_PER_EM
        base = -DESCENT / (ASCENT - DESCENT)  # the part of a character below its baseline
        numbers = (
            frame.along[0] / advance,
            -frame.along[1] / advance,
            frame.up[0] / height,
            -frame.up[1] / height,
            frame.origin[0] + base * frame.up[0],
            self._height_px - frame.origin[1] - base * frame.up[1],
        )
        return " ".join(f"{number * self._scale:.5f}" for number in numbers)

    def _code(self, char: str) -> int:
        if char not in self._codes and len(self._codes) >= MAX_CODE - 1:
            char = REPLACEMENT
        return self._codes.setdefault(char, len(self._codes) + 1)


def to_unicode(characters: list[str]) -> bytes:
    """The CMap that tells readers what code n, `characters[n - 1]`, means."""
    entries = ""
    for start in range(0, len(characters), CMAP_BLOCK):
        block = characters[start : start + CMAP_BLOCK]
        lines = "".join(
            f"<{code:04X}> <{char.encode('utf-16-be').hex().upper()}>\n" for code, char in enumerate(block, start + 1)
        )
        entries += f"{len(block)} beginbfchar\n{lines}endbfchar\n"
    return _CMAP.format(entries=entries).encode("ascii")


Corners = tuple[Vector, Vector, Vector, Vector]


def _runs(line: Line) -> Iterator[tuple[str, Corners]]:
    """The line's runs of text with their corners, clockwise from the top left of the text."""
    if line.box is None:
        return
    if len(line.words) == 1 or any(word.box_is_estimated for word in line.words):
        yield line.text, _outline(line, line.box)
        return
    for word, after in zip(line.words, (*line.words[1:], None), strict=True):
        if word.box is None:
            continue
        yield word.text, _corners(word.box)
        # Readers guess a space from a gap, and guess wrong in tight print.
        if after is not None and after.box is not None and after.box.left > word.box.right:
            yield " ", _corners(Box(word.box.right, word.box.top, after.box.left, word.box.bottom))


def _outline(line: Line, box: Box) -> Corners:
    corners = _corners(box)
    if line.polygon is None or len(line.polygon) != len(corners):
        return corners
    first, second, third, fourth = line.polygon
    distances = (_length(point, corner) for point, corner in zip(line.polygon, corners, strict=True))
    is_thin = min(_length(first, second), _length(first, fourth)) < MIN_SIDE_PX
    return corners if is_thin or max(distances) <= FLAT_PX else (first, second, third, fourth)


def _corners(box: Box) -> Corners:
    right, bottom = max(box.right, box.left + MIN_SIDE_PX), max(box.bottom, box.top + MIN_SIDE_PX)
    return (box.left, box.top), (right, box.top), (right, bottom), (box.left, bottom)


def _frame(text: str, corners: Corners) -> Frame:
    top_left, top_right, bottom_right, bottom_left = corners
    width, height = _length(top_left, top_right), _length(top_left, bottom_left)
    if runs_downwards(text, Box(0, 0, width, height)):
        return Frame(top_left, _between(top_left, bottom_left), _between(top_left, top_right))
    return Frame(bottom_left, _between(bottom_left, bottom_right), _between(bottom_left, top_left))


def _between(start: Vector, end: Vector) -> Vector:
    return end[0] - start[0], end[1] - start[1]


def _length(start: Vector, end: Vector) -> float:
    x, y = _between(start, end)
    return float((x * x + y * y) ** 0.5)
