"""Pages whose printed words are known, drawn at the moment they are asked for, and how many of those words were read.

Layer: `core.testing`; not for production. The same arguments give the same bytes. Pages are clean: black on white and
large enough for every engine, so that a word that is missing was lost by software and not by a scanner.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import as_file, files
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Kind = Literal["PNG", "JPEG", "TIFF", "WEBP", "BMP"]

FONT_PX = 30
MARGIN_PX = 40
LEADING = 1.65
DPI = 150  # of a scanned book; the print is then 14 points high

PROSE: tuple[tuple[str, ...], ...] = (
    (
        "The committee met on Monday and",
        "approved 42 of 57 proposals with a",
        "budget of 1,250 euros in total.",
        "Late reports are returned unread.",
    ),
    (
        "Every wagon carried timber from the",
        "northern forest down to the harbour,",
        "where seven ships waited for wind",
        "and the captains played at cards.",
    ),
    (
        "Dear reader, this chapter explains",
        "how paper was made before machines:",
        "rags were beaten, washed and pressed",
        "until a sheet could bear the ink.",
    ),
    (
        "Our garden needs water twice a day",
        "during summer, and patience during",
        "winter when nothing seems to grow",
        "beneath the frozen brown earth.",
    ),
    (
        "The station clock stopped at noon.",
        "Nobody noticed until the evening",
        "train arrived and left again with",
        "only one passenger on the platform.",
    ),
    (
        "Please keep this ticket until the",
        "end of your journey. Children below",
        "six travel free of charge when they",
        "are accompanied by an adult.",
    ),
)
FRENCH: tuple[str, ...] = (
    "Le café près de la forêt était déjà",
    "fermé quand les élèves sont arrivés.",
    "Où êtes-vous allés après le dîner ?",
    "Nous avons mangé des pâtes à Nîmes.",
)


@dataclass(frozen=True)
class PrintedPage:
    """A page of printed lines, `font_px` high."""

    lines: tuple[str, ...]
    font_px: int = FONT_PX

    @property
    def words(self) -> list[str]:
        """The printed words, in reading order."""
        return " ".join(self.lines).split()

    @cached_property
    def picture(self) -> Image.Image:
        font = _font(self.font_px)
        step = round(self.font_px * LEADING)
        width = max((round(font.getlength(line)) for line in self.lines), default=560)
        picture = Image.new("RGB", (width + 2 * MARGIN_PX, max(1, len(self.lines)) * step + 2 * MARGIN_PX), "white")
        pen = ImageDraw.Draw(picture)
        for row, line in enumerate(self.lines):
            pen.text((MARGIN_PX, MARGIN_PX + row * step), line, fill="black", font=font)
        return picture

    def as_bytes(self, kind: Kind = "PNG", *, dpi: int = DPI) -> bytes:
        """The page as a file."""
        return _saved(self.picture, kind, dpi=(dpi, dpi), quality=92)


def page(number: int) -> PrintedPage:
    """A page of prose; those of different numbers differ in at least their last line."""
    lines = PROSE[number % len(PROSE)]
    return PrintedPage(lines if number < len(PROSE) else (*lines, f"Page number {number} of the book."))


def note(number: int) -> PrintedPage:
    """Two lines of prose: enough to tell pages apart, and read in a tenth of a second."""
    return PrintedPage(PROSE[number % len(PROSE)][:2])


def french_page() -> PrintedPage:
    """A page of French, for accents."""
    return PrintedPage(FRENCH)


def blank_page() -> PrintedPage:
    """A white page, on which there is nothing to read."""
    return PrintedPage(())


def long_page(line_count: int, words_in_line: int = 16, *, font_px: int = 22) -> PrintedPage:
    """A page of so much small print that an engine is busy for seconds."""
    words = [word for lines in PROSE for line in lines for word in line.split()]
    total = line_count * words_in_line
    stream = [words[(7 * place) % len(words)] for place in range(total)]
    lines = (" ".join(stream[at : at + words_in_line]) for at in range(0, total, words_in_line))
    return PrintedPage(tuple(lines), font_px)


def noise_png(side_px: int, seed: int = 0) -> bytes:
    """A square of black and white noise: a whole picture with nothing to read, hard for page segmentation."""
    rng = np.random.default_rng(seed)
    grey = (rng.integers(0, 2, (side_px, side_px), dtype=np.uint8) * 255).astype(np.uint8)
    return _saved(Image.fromarray(grey), "PNG")


def large_white_png(width_px: int, height_px: int) -> bytes:
    """A white page of many pixels in a small file."""
    return _saved(Image.new("1", (width_px, height_px), 1), "PNG")


def pdf_of(pages: Sequence[PrintedPage]) -> bytes:
    """The pages as scans in a PDF file."""
    first, *others = [page.picture.convert("L") for page in pages]
    return _saved(first, "PDF", save_all=True, append_images=others, resolution=DPI)


def tiff_of(pages: Sequence[PrintedPage]) -> bytes:
    """The pages as a fax: one TIFF file, black and white, Group 4."""
    first, *others = [page.picture.convert("1") for page in pages]
    return _saved(first, "TIFF", save_all=True, append_images=others, compression="group4", dpi=(DPI, DPI))


def share_of_words_read(printed: Sequence[str], read: str) -> float:
    """The share of printed words that stand in the text that was read, each as often as it was printed."""
    wanted, found = Counter(printed), Counter(read.split())
    return sum(min(count, found[word]) for word, count in wanted.items()) / max(1, wanted.total())


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """Bitstream Vera, which reportlab brings: Pillow's own font has no accents."""
    with as_file(files("reportlab") / "fonts" / "Vera.ttf") as path:
        return ImageFont.truetype(io.BytesIO(path.read_bytes()), size_px)


def _saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()
