"""One page of the HTML report: its picture with boxes over it, and its text.

Layer: `worker.views`; pure. Every character that comes from a page, a path or an engine goes through `xml_text`; what a
model answered is shown as the text it is.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, urlsplit

from pagemill_worker.ocr.engine import Region
from pagemill_worker.views.characters import xml_text
from pagemill_worker.views.pictures import read_info
from pagemill_worker.views.row import OcrRow, real_confidence
from pagemill_worker.views.run import Link

GOOD_CONFIDENCE = 0.9  # these two only colour the report: engines' confidences cannot be compared
LOW_CONFIDENCE = 0.7
MAX_REGIONS = 2000  # a page of small print has 1,200 words; more would make the browser slow

PageState = Literal["ok", "low", "empty"]


@dataclass(frozen=True, slots=True)
class ReportPage:
    """An item for the report. `picture` is its page as JPEG, PNG or WebP of any size, None when there is none to show.

    `links` lead to its views.
    """

    row: OcrRow
    picture: bytes | None = None
    links: tuple[Link, ...] = ()

    @property
    def confidence(self) -> float | None:
        """Mean over the regions that have a real one, weighted by their length; None when none has."""
        given = ((real_confidence(self.row, region), max(len(region.text), 1)) for region in self.row.regions)
        known = [(confidence, length) for confidence, length in given if confidence is not None]
        weight = sum(length for _, length in known)
        return sum(confidence * length for confidence, length in known) / weight if weight else None

    @property
    def state(self) -> PageState:
        if not any(region.text.strip() for region in self.row.regions):
            return "empty"
        return "low" if self.confidence is not None and self.confidence < LOW_CONFIDENCE else "ok"


def page_card(page: ReportPage) -> Iterator[str]:
    """The page as an element of the gallery, in pieces."""
    name = xml_text(page.row.id)
    count = len(page.row.regions)
    about = "no text" if page.state == "empty" else f"{count:,} region{'' if count == 1 else 's'}"
    if page.confidence is not None:
        about += f" · {_percent(page.confidence)}"
    yield f'<li class="card" data-state="{page.state}" data-name="{name}">'
    yield f'<button type="button" class="thumb" aria-label="Show page {name}">'
    yield from _frame(page)
    yield f'<span class="name"><bdi>{name}</bdi></span>'
    yield f'<span class="meta"><span class="dot {_grade(page.confidence)}"></span>{about}</span></button>\n'
    yield from _record(page)
    yield "</li>\n"


def anchor(link: Link) -> str:
    """The link as an element; plain text where its address is of a kind that no browser opens, or should not.

    A relative address is a key or path as it is, not yet escaped.
    """
    label, target = xml_text(link.label), xml_text(link.href)
    scheme = urlsplit(link.href).scheme if "://" in link.href else ""
    if scheme in ("http", "https", "file"):
        return f'<a href="{target}" rel="noreferrer">{label}</a>'
    if scheme or link.href.startswith("//"):
        return f"<span>{label}: {target}</span>"
    # "./" keeps a name such as "javascript:x" a name
    path = link.href if link.href.startswith(("/", "./", "../")) else f"./{link.href}"
    return f'<a href="{quote(path.encode("utf-8", "replace"))}">{label}</a>'


def _frame(page: ReportPage) -> Iterator[str]:
    row = page.row
    width, height = row.width_px or 1, row.height_px or 1
    yield f'<span class="frame" style="--shape: {width / height:.5f}">'
    if page.picture is not None:
        media_type = read_info(page.picture).media_type
        data = base64.b64encode(page.picture).decode("ascii")
        yield f'<img alt="" loading="lazy" decoding="async" src="data:{media_type};base64,{data}">'
    yield f'<svg viewBox="0 0 {width} {height}" preserveAspectRatio="none" aria-hidden="true">'
    for index, region in enumerate(row.regions[:MAX_REGIONS]):
        yield _outline(row, region, index)
    yield "</svg></span>"


def _outline(row: OcrRow, region: Region, index: int) -> str:
    grade = _grade(real_confidence(row, region))
    if region.polygon is not None:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in region.polygon)
        return f'<polygon class="box {grade}" data-region="{index}" points="{points}"/>'
    if region.bbox is None:
        return ""
    x, y, width, height = region.bbox
    return (
        f'<rect class="box {grade}" data-region="{index}" x="{x:.1f}" y="{y:.1f}" '
        f'width="{width:.1f}" height="{height:.1f}"/>'
    )


def _record(page: ReportPage) -> Iterator[str]:
    row = page.row
    yield f'<div class="record"><div class="about"><p>{xml_text(row.source_uri)}</p><p>'
    yield f"{row.width_px:,} × {row.height_px:,} px"
    if row.page is not None:
        yield f" · page {row.page + 1}"
    if row.seconds:
        yield f" · {sum(row.seconds.values()):.2f} s"
    yield "</p>"
    if page.links:
        yield f"<p>{' '.join(anchor(link) for link in page.links)}</p>"
    yield "</div>\n"
    if page.state == "empty":
        yield '<p class="empty">No text was found on this page.</p></div>\n'
        return
    yield '<ol class="texts">'
    for index, region in enumerate(row.regions[:MAX_REGIONS]):
        yield _text(row, region, index)
    yield "</ol>\n"
    if len(row.regions) > MAX_REGIONS:
        yield f'<p class="empty">{len(row.regions) - MAX_REGIONS:,} further regions are not shown here.</p>'
    yield "</div>\n"


def _text(row: OcrRow, region: Region, index: int) -> str:
    confidence = real_confidence(row, region)
    certainty = "" if confidence is None else f'<small class="{_grade(confidence)}">{_percent(confidence)}</small>'
    return f'<li tabindex="0" data-region="{index}"><span dir="auto">{xml_text(region.text)}</span>{certainty}</li>'


def _grade(confidence: float | None) -> str:
    if confidence is None:
        return "plain"
    if confidence >= GOOD_CONFIDENCE:
        return "good"
    return "fair" if confidence >= LOW_CONFIDENCE else "poor"


def _percent(confidence: float) -> str:
    return f"{100 * confidence:.0f}%"
