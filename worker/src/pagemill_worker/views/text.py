"""`<prefix>/<id>.txt`: one page's text and nothing else.

Layer: `worker.views`; pure. One item is one page, so there are no form feeds.
"""

from __future__ import annotations

from pagemill_worker.views.characters import valid_text
from pagemill_worker.views.layout import reading_lines
from pagemill_worker.views.row import OcrRow


def render_text(row: OcrRow) -> bytes:
    """The page's text as UTF-8, a line feed after every region, regions in reading order and unchanged.

    Words that the engine gave one by one share the line they stand on, with one space between. Regions of white space
    are left out, and a page without text is an empty file.
    """
    lines = (" ".join(region.text for region in line) for line in reading_lines(row))
    return "".join(valid_text(line) + "\n" for line in lines).encode()
