"""`<prefix>/<id>.pdf`: the page's picture with its text, invisible, exactly above where it is printed.

Layer: `worker.views`; pure given the picture. The only module that imports pikepdf; the registry imports it late.
"""

from __future__ import annotations

import io

from pikepdf import Array, Dictionary, Name, Object, Pdf, Stream, String
from PIL import Image

from pagemill_core.errors import IntegrityError
from pagemill_worker.views.characters import language_tag, legal_text
from pagemill_worker.views.glyphless import ASCENT, DESCENT, GLYPH, GLYPH_WIDTH, glyphless_font
from pagemill_worker.views.layout import arrange
from pagemill_worker.views.pdf_text import TextLayer, to_unicode
from pagemill_worker.views.pictures import read_info
from pagemill_worker.views.row import OcrRow

POINTS_PER_INCH = 72.0
DEFAULT_DPI = 150.0  # arbitrary: halfway between a screen and a scan
PLAUSIBLE_DPI = (30.0, 4800.0)  # outside it the file's claim is a camera's default or nonsense
MAX_SIDE_POINTS = 14400.0  # the longest side a PDF page may have (ISO 32000-1, annex C)


def render_pdf(row: OcrRow, picture: bytes) -> bytes:
    """A PDF of one page of the picture's size, readable by search, selection and screen readers.

    `picture` is the upright page as JPEG (embedded as it is) or PNG, of the row's size. Text without a place is left
    out: there is nowhere to put it.
    Raises: IntegrityError when the picture has another size; ValueError when it is neither JPEG nor PNG.
    """
    scale = _points_per_pixel(row)
    layer = TextLayer(scale, row.height_px or 0)
    for block in arrange(row):
        for line in block.lines:
            layer.add(line)
    with Pdf.new() as pdf:
        width, height = (row.width_px or 0) * scale, (row.height_px or 0) * scale
        page = pdf.add_blank_page(page_size=(width, height))
        page.obj.Resources = Dictionary(
            XObject=Dictionary(Page=_image(pdf, row, picture)), Font=Dictionary(F=_font(pdf, layer.characters))
        )
        content = f"q {width:.4f} 0 0 {height:.4f} 0 0 cm /Page Do Q\n{layer.operators()}"
        page.obj.Contents = pdf.make_stream(content.encode("ascii"))
        tag = language_tag(row.languages)
        if tag:
            pdf.Root.Lang = String(tag)
        pdf.docinfo = pdf.make_indirect(Dictionary(Title=String(legal_text(row.id)), Producer=String("Pagemill")))
        out = io.BytesIO()
        pdf.save(out, deterministic_id=True)
    return out.getvalue()


def _points_per_pixel(row: OcrRow) -> float:
    low, high = PLAUSIBLE_DPI
    dpi = row.dpi if row.dpi and low <= row.dpi <= high else DEFAULT_DPI
    longest = max(row.width_px or 0, row.height_px or 0)
    return min(POINTS_PER_INCH / dpi, MAX_SIDE_POINTS / longest)


def _image(pdf: Pdf, row: OcrRow, picture: bytes) -> Object:
    info = read_info(picture)
    if (info.width_px, info.height_px) != (row.width_px, row.height_px):
        raise IntegrityError(
            f"the picture of {row.id!r} is {info.width_px} x {info.height_px} pixels, its text was read on "
            f"{row.width_px} x {row.height_px}"
        )
    if info.format == "jpeg" and info.mode in ("RGB", "L"):
        stream = Stream(pdf, picture)
        stream.Filter = Name.DCTDecode
    elif info.format in ("jpeg", "png"):
        with Image.open(io.BytesIO(picture)) as image:
            stream = Stream(pdf, image.convert("RGB").tobytes())
    else:
        raise ValueError(f"a PDF page is made of JPEG or PNG, not {info.format}")
    stream.Type, stream.Subtype = Name.XObject, Name.Image
    stream.Width, stream.Height, stream.BitsPerComponent = info.width_px, info.height_px, 8
    stream.ColorSpace = Name.DeviceGray if info.mode == "L" and info.format == "jpeg" else Name.DeviceRGB
    return pdf.make_indirect(stream)


def _font(pdf: Pdf, characters: list[str]) -> Object:
    """A composite font whose code n is `characters[n - 1]` and always draws the empty glyph."""
    file = Stream(pdf, glyphless_font())
    descriptor = Dictionary(
        Type=Name.FontDescriptor,
        FontName=Name.PagemillGlyphless,
        Flags=4,  # symbolic: the font has no character set of its own
        FontBBox=Array([0, DESCENT, GLYPH_WIDTH, ASCENT]),
        ItalicAngle=0,
        Ascent=ASCENT,
        Descent=DESCENT,
        CapHeight=ASCENT,
        StemV=80,
        FontFile2=pdf.make_indirect(file),
    )
    glyphs = GLYPH.to_bytes(2, "big") * (len(characters) + 1)
    descendant = Dictionary(
        Type=Name.Font,
        Subtype=Name.CIDFontType2,
        BaseFont=Name.PagemillGlyphless,
        CIDSystemInfo=Dictionary(Registry=String("Adobe"), Ordering=String("Identity"), Supplement=0),
        FontDescriptor=pdf.make_indirect(descriptor),
        DW=GLYPH_WIDTH,
        CIDToGIDMap=pdf.make_indirect(Stream(pdf, glyphs)),
    )
    font = Dictionary(
        Type=Name.Font,
        Subtype=Name.Type0,
        BaseFont=Name.PagemillGlyphless,
        Encoding=Name("/Identity-H"),
        DescendantFonts=Array([pdf.make_indirect(descendant)]),
        ToUnicode=pdf.make_indirect(Stream(pdf, to_unicode(characters))),
    )
    return pdf.make_indirect(font)
