"""Pieces of a page put together again: a stage of the job's own may cut a page before it is read.

Layer: `worker.ocr`; pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pagemill_worker.images.page import PageImage
from pagemill_worker.ocr.engine import PageText, Region, Usage
from pagemill_worker.stages.contract import StageItem


def joined(pieces: Sequence[StageItem], texts: Sequence[PageText]) -> PageText:
    """One text of the pieces' texts: regions in the order of the pieces, boxes moved to where each piece lies."""
    if len(texts) == 1 and pieces[0].offset_px == (0, 0):
        return texts[0]
    usages = [text.usage for text in texts if text.usage is not None]
    return PageText(
        regions=tuple(
            _moved(region, *piece.offset_px)
            for piece, text in zip(pieces, texts, strict=True)
            for region in text.regions
        ),
        confidence_is_default=any(text.confidence_is_default for text in texts),
        usage=_total(usages) if usages else None,
        metadata={name: value for text in texts for name, value in text.metadata.items()},
    )


def size_of(pieces: Sequence[StageItem], page: PageImage) -> tuple[int, int]:
    """Width and height of the picture that boxes lie in, pixels: the page's own once it was cut, else the last
    stage's, which may have turned or scaled it."""
    if len(pieces) == 1 and pieces[0].offset_px == (0, 0):
        return pieces[0].value.width_px, pieces[0].value.height_px
    return page.width_px, page.height_px


def _moved(region: Region, right_px: int, down_px: int) -> Region:
    box, polygon = region.bbox, region.polygon
    return replace(
        region,
        bbox=None if box is None else (box[0] + right_px, box[1] + down_px, box[2], box[3]),
        polygon=None if polygon is None else tuple((x + right_px, y + down_px) for x, y in polygon),
    )


def _total(usages: Sequence[Usage]) -> Usage:
    costs = [usage.cost_usd for usage in usages if usage.cost_usd is not None]
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        requests=sum(usage.requests for usage in usages),
        cost_usd=sum(costs) if costs else None,
    )
