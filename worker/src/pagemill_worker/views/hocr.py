"""`<prefix>/<id>.hocr`: one page as hOCR 1.2, text with its places inside a valid XHTML page.

Layer: `worker.views`; pure. hOCR demands a box of every line: text that the engine gave no place has the whole page's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pagemill_worker.views.characters import language_tag, xml_text
from pagemill_worker.views.layout import Block, Box, Line, Word, arrange
from pagemill_worker.views.row import OcrRow

_HEAD = """\
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml"{language}>
<head>
<title>{id}</title>
<meta http-equiv="Content-Type" content="text/html; charset=utf-8" />
<meta name="ocr-system" content="{system}" />
<meta name="ocr-capabilities" content="ocr_page ocr_carea ocr_line ocrx_word" />
<meta name="ocr-number-of-pages" content="1" />
<meta name="ocr-langs" content="{tag}" />
<meta name="ocr-scripts" content="unknown" />
</head>
<body>
<div class="ocr_page" id="page_1" title="{page}">
"""
_TAIL = "</div>\n</body>\n</html>\n"


def render_hocr(row: OcrRow) -> bytes:
    """The page as UTF-8 XHTML: `ocr_page` > `ocr_carea` > `ocr_line` > `ocrx_word`, boxes as [x1, y1, x2, y2] pixels.

    `x_wconf` is the confidence times 100, absent when the engine gives none or a stand-in. Where the engine read whole
    lines, a word's box is its share of the line's.
    """
    writer = _Writer(Box(0, 0, row.width_px or 0, row.height_px or 0))
    parts = [_head(row)]
    for number, block in enumerate(arrange(row), 1):
        parts += writer.block(block, str(number))
    parts.append(_TAIL)
    return "".join(parts).encode()


def _head(row: OcrRow) -> str:
    tag = language_tag(row.languages)
    # Readers split a title at semicolons and end the name at a quote, and hOCR has no escape for either.
    source = row.source_uri.replace('"', "%22").replace(";", "%3B")
    page = f'image "{source}"; bbox 0 0 {row.width_px} {row.height_px}; ppageno {row.page or 0}'
    if row.dpi:
        page += f"; scan_res {round(row.dpi)} {round(row.dpi)}"
    return _HEAD.format(
        tag=tag or "unknown",
        language=f' xml:lang="{tag}" lang="{tag}"' if tag else "",
        id=xml_text(row.id),
        system=xml_text(f"pagemill {row.engine_name} {row.engine_version}"),
        page=xml_text(page),
    )


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes elements of one page, whose box is `page`."""

    page: Box

    def block(self, block: Block, number: str) -> Iterator[str]:
        yield f'<div class="ocr_carea" id="block_{number}" title="{self._bbox(block.box)}">\n'
        for index, line in enumerate(block.lines, 1):
            yield self._line(line, f"{number}_{index}")
        yield "</div>\n"

    def _line(self, line: Line, number: str) -> str:
        words = " ".join(self._word(word, f"{number}_{index}") for index, word in enumerate(line.words, 1))
        return f'<span class="ocr_line" id="line_{number}" title="{self._bbox(line.box)}">{words}</span>\n'

    def _word(self, word: Word, number: str) -> str:
        title = self._bbox(word.box)
        if word.confidence is not None:
            title += f"; x_wconf {round(100 * word.confidence)}"
        return f'<span class="ocrx_word" id="word_{number}" title="{title}">{xml_text(word.text)}</span>'

    def _bbox(self, box: Box | None) -> str:
        return "bbox {} {} {} {}".format(*(box or self.page).whole())
