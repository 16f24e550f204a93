"""`<prefix>/<id>.alto.xml`: one page as ALTO 4, the form of libraries and archives.

Layer: `worker.views`; pure. Source: the ALTO 4.4 schema of the Library of Congress; units are pixels, origin top left.
"""

from __future__ import annotations

from collections.abc import Iterator

from pagemill_core.clock import iso
from pagemill_worker.views.characters import language_tag, xml_text
from pagemill_worker.views.layout import Block, Box, Line, Word, arrange
from pagemill_worker.views.row import OcrRow

_HEAD = """\
<?xml version="1.0" encoding="UTF-8"?>
<alto xmlns="http://www.loc.gov/standards/alto/ns-v4#" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" \
xsi:schemaLocation="http://www.loc.gov/standards/alto/ns-v4# http://www.loc.gov/standards/alto/v4/alto-4-4.xsd" \
SCHEMAVERSION="4.4">
<Description>
<MeasurementUnit>pixel</MeasurementUnit>
<sourceImageInformation><fileName>{source}</fileName><documentIdentifier>{id}</documentIdentifier>\
</sourceImageInformation>
<Processing ID="ocr"><processingCategory>contentGeneration</processingCategory>\
<processingDateTime>{finished_at}</processingDateTime>\
<processingStepDescription>text recognition</processingStepDescription>\
<processingStepSettings>{settings}</processingStepSettings>\
<processingSoftware><softwareCreator>Pagemill</softwareCreator><softwareName>{engine}</softwareName>\
<softwareVersion>{version}</softwareVersion></processingSoftware></Processing>
</Description>
<Layout>
<Page ID="page_1" PHYSICAL_IMG_NR="{number}" WIDTH="{width}" HEIGHT="{height}" PROCESSING="ocr"{language}>
<PrintSpace HPOS="0" VPOS="0" WIDTH="{width}" HEIGHT="{height}">
"""
_TAIL = "</PrintSpace>\n</Page>\n</Layout>\n</alto>\n"


def render_alto(row: OcrRow) -> bytes:
    """The page as UTF-8 XML: a `String` per word, an `SP` between two, `WC` where the engine gives real confidences.

    Where the engine read whole lines, a word's box is its share of the line's, and `processingStepSettings` says so.
    """
    blocks = arrange(row)
    parts = [_head(row, blocks)]
    for number, block in enumerate(blocks, 1):
        parts += _block(block, str(number))
    parts.append(_TAIL)
    return "".join(parts).encode()


def _head(row: OcrRow, blocks: list[Block]) -> str:
    tag = language_tag(row.languages)
    estimated = any(word.box_is_estimated for block in blocks for line in block.lines for word in line.words)
    settings = f"languages={','.join(row.languages)}; wordBoxes={'estimated' if estimated else 'measured'}"
    return _HEAD.format(
        source=xml_text(row.source_uri),
        id=xml_text(row.id),
        finished_at=iso(row.finished_at),
        settings=xml_text(settings),
        engine=xml_text(row.engine_name),
        version=xml_text(row.engine_version),
        number=(row.page or 0) + 1,
        width=row.width_px,
        height=row.height_px,
        language=f' LANG="{tag}"' if tag else "",
    )


def _block(block: Block, number: str) -> Iterator[str]:
    yield f'<TextBlock ID="block_{number}"{_place(block.box)}>\n'
    for index, line in enumerate(block.lines, 1):
        yield _line(line, f"{number}_{index}")
    yield "</TextBlock>\n"


def _line(line: Line, number: str) -> str:
    shape = ""
    if line.polygon is not None:
        points = " ".join(f"{round(x)},{round(y)}" for x, y in line.polygon)
        shape = f'<Shape><Polygon POINTS="{points}"/></Shape>'
    words = "<SP/>".join(_string(word, f"{number}_{index}") for index, word in enumerate(line.words, 1))
    return f'<TextLine ID="line_{number}"{_place(line.box)}>{shape}{words}</TextLine>\n'


def _string(word: Word, number: str) -> str:
    certainty = "" if word.confidence is None else f' WC="{word.confidence:.4f}"'
    return f'<String ID="string_{number}"{_place(word.box)}{certainty} CONTENT="{xml_text(word.text)}"/>'


def _place(box: Box | None) -> str:
    if box is None:
        return ""
    left, top, right, bottom = box.whole()
    return f' HPOS="{left}" VPOS="{top}" WIDTH="{right - left}" HEIGHT="{bottom - top}"'
