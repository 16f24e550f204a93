"""Makes the demo's pages from real documents and pictures: nothing is fetched, no picture is committed.

Project tooling. Texts are documents of this repository and of installed packages, pictures the sample photographs of
scikit-image. Kinds: typeset pages, a PDF, a two-page TIFF, comic-like pages with balloons, scans, photos of a page.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import pypdfium2
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps
from reportlab.lib.pagesizes import A5
from reportlab.lib.styles import ParagraphStyle
from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer

ROOT = Path(__file__).resolve().parent.parent
DPI = 150
MARGINS = {f"{side}Margin": 40 for side in ("left", "right", "top", "bottom")}
PAGES_PER_DOCUMENT = 6
HANDBOOK = (
    *("CONTRIBUTING.md", "SECURITY.md", "README.md", "ARCHITECTURE.md"),
    *("docs/guide/running.md", "docs/guide/results.md", "docs/guide/engines.md"),
)
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "hubble_deep_field.jpg")
SCANS = ("page.png", "text.png")
DIALOGUES = (
    ("Every page that came down the chute was counted.", "And how many are there?", "A million. Give or take."),
    ("Who reads all of these?", "The mill does.", "All night long!"),
    ("This one has coffee on it.", "Then read around the coffee."),
    ("We launch at dawn.", "Did somebody check the manifest?", "Twice. One row was missing."),
    ("I lost my place again.", "Nothing is lost. Run it again.", "Only what is missing?", "Only what is missing."),
    ("How far does this go?", "To the last shard.", "And then?", "Then it says so. Once."),
)


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file of the demo: `name` is its path below the pages' folder."""

    name: str
    data: bytes


def all_pages() -> Iterator[PageFile]:
    """Every file, in the order of the manifest."""
    license_pdf = _typeset("The Apache License", (ROOT / "LICENSE").read_text(), "Times-Roman")
    for number, page in enumerate(_render(license_pdf)[:PAGES_PER_DOCUMENT], 1):
        yield PageFile(f"license/page_{number:03}.png", _png(page))
    for name in HANDBOOK:
        title = Path(name).stem.lower()
        for number, page in enumerate(_render(_typeset(title.title(), _plain(ROOT / name), "Helvetica"))[:4], 1):
            yield PageFile(f"handbook/{title}_{number:03}.jpg", _jpeg(page))
    yield PageFile("vera license.pdf", _typeset("Bitstream Vera", _package_text(), "Courier", pages=4))
    yield PageFile("fax #2.tiff", _fax(_render(license_pdf)[-2:]))
    for number in range(12):
        yield PageFile(f"comics/Night Mill/page_{number + 1:03}.png", _png(_comic_page(number)))
    for name in SCANS:
        yield PageFile(f"scans/{name}", (files("skimage") / "data" / name).read_bytes())
    for number, page in enumerate(_render(license_pdf)[1:4], 1):
        yield PageFile(f"photos/phone_{number}.jpg", _jpeg(_photo_of(page, number)))


# -- documents --------------------------------------------------------------------------------------------------------


def _plain(path: Path) -> str:
    return "\n\n".join(part.strip("#`|- ") for part in path.read_text(encoding="utf-8").split("\n\n"))


def _package_text() -> str:
    return (files("reportlab") / "fonts" / "bitstream-vera-license.txt").read_text(encoding="latin-1")


def _typeset(title: str, text: str, font: str, pages: int = 0) -> bytes:
    """A5 pages as PDF; `pages` sizes the text so that there are about as many."""
    size = 9 if not pages else 13
    body = ParagraphStyle("body", fontName=font, fontSize=size, leading=size * 1.35, spaceAfter=6)
    head = ParagraphStyle("head", parent=body, fontSize=size * 1.8, leading=size * 2.4, spaceAfter=14)
    story = [Paragraph(_escaped(title), head), Spacer(1, 4)]
    story += [Paragraph(_escaped(" ".join(part.split())), body) for part in text.split("\n\n") if part.strip()]
    out = io.BytesIO()
    SimpleDocTemplate(out, pagesize=A5, title=title, invariant=1, **MARGINS).build(story)
    return out.getvalue()


def _escaped(text: str) -> str:
    plain = text.encode("latin-1", "ignore").decode("latin-1")  # the standard fonts have no more
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _render(pdf: bytes) -> list[Image.Image]:
    document = pypdfium2.PdfDocument(pdf)
    try:
        return [page.render(scale=DPI / 72).to_pil().convert("RGB") for page in document]
    finally:
        document.close()


def _fax(pages: list[Image.Image]) -> bytes:
    out = io.BytesIO()
    first, *others = [page.convert("1") for page in pages]
    first.save(out, "TIFF", save_all=True, append_images=others, compression="group4", dpi=(DPI, DPI))
    return out.getvalue()


# -- comics -----------------------------------------------------------------------------------------------------------


def _comic_page(number: int) -> Image.Image:
    """Three panels of photographs, each with balloons of upper-case text."""
    page = Image.new("RGB", (1000, 1400), "white")
    draw = ImageDraw.Draw(page)
    lines = list(DIALOGUES[number % len(DIALOGUES)])
    for panel in range(3):
        top = 30 + panel * 455
        photo = _photo(PHOTOS[(number + panel) % len(PHOTOS)]).resize((940, 430), Image.Resampling.LANCZOS)
        page.paste(_inked(photo), (30, top))
        draw.rectangle((30, top, 970, top + 430), outline="black", width=6)
        for balloon, line in enumerate(lines[panel::3]):
            _balloon(draw, (90 + (panel * 170) % 330 + balloon * 60, top + 24 + balloon * 190), line)
    draw.text((920, 1368), str(number + 1), font=ImageFont.load_default(24), fill="black")
    return page


def _balloon(draw: ImageDraw.ImageDraw, corner: tuple[int, int], line: str) -> None:
    font = ImageFont.load_default(30)
    text = textwrap.fill(line.upper(), 22)
    left, top, right, bottom = draw.multiline_textbbox(corner, text, font=font, align="center")
    draw.polygon([(left + 30, bottom + 10), (left + 80, bottom + 10), (left + 20, bottom + 75)], fill="white")
    draw.rounded_rectangle(
        (left - 26, top - 18, right + 26, bottom + 20), radius=34, fill="white", outline="black", width=4
    )
    draw.multiline_text(corner, text, font=font, fill="black", align="center")


def _photo(name: str) -> Image.Image:
    with (files("skimage") / "data" / name).open("rb") as file:
        return Image.open(file).convert("RGB")


def _inked(photo: Image.Image) -> Image.Image:
    return ImageOps.posterize(photo.filter(ImageFilter.MedianFilter(3)), 3)


# -- photos of pages --------------------------------------------------------------------------------------------------


def _photo_of(page: Image.Image, number: int) -> Image.Image:
    """The page as a phone sees it: on a table, a little from the side, unevenly lit, with noise."""
    table = _photo("brick.png").resize((1240, 1640))
    lean = 18 * number
    corners = ((90 + lean, 70), (60, 1570), (1180, 1590 - lean), (1130 - lean, 60 + lean))
    warped = page.transform(
        table.size, Image.Transform.PERSPECTIVE, _perspective(corners, page.size), Image.Resampling.BICUBIC
    )
    mask = Image.new("L", page.size, 255).transform(
        table.size, Image.Transform.PERSPECTIVE, _perspective(corners, page.size)
    )
    table.paste(warped, mask=mask)
    pixels = np.asarray(table, np.float32)
    light = np.linspace(1.04, 0.72, table.width, dtype=np.float32)[None, :, None]
    noise = np.random.default_rng(number).normal(0, 4, pixels.shape).astype(np.float32)
    return Image.fromarray(np.clip(pixels * light + noise, 0, 255).astype(np.uint8))


def _perspective(corners: tuple[tuple[int, int], ...], size: tuple[int, int]) -> list[float]:
    """Coefficients that map a quadrilateral (top left, bottom left, bottom right, top right) onto a page of `size`."""
    width, height = size
    targets = ((0, 0), (0, height), (width, height), (width, 0))
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, targets, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    solved: list[float] = np.linalg.solve(np.asarray(rows, float), np.asarray(values, float)).tolist()
    return solved


def _png(page: Image.Image) -> bytes:
    out = io.BytesIO()
    page.save(out, "PNG", dpi=(DPI, DPI))
    return out.getvalue()


def _jpeg(page: Image.Image) -> bytes:
    out = io.BytesIO()
    page.save(out, "JPEG", quality=88, dpi=(DPI, DPI))
    return out.getvalue()
