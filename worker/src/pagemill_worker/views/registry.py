"""The views an OCR job can write: which there are, their keys, and how a committed row becomes them.

Layer: the top of `worker.views`; no store. Views exist for items that succeeded, and for no others: a failed page has
no `_ocr.json` that could be taken for an empty page, and a skipped one keeps the views of the run that read it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from pagemill_core.ids import check_item_id
from pagemill_worker.views.alto import render_alto
from pagemill_worker.views.hocr import render_hocr
from pagemill_worker.views.ocr_json import render_ocr_json
from pagemill_worker.views.ocr_result import render_ocr_result
from pagemill_worker.views.row import OcrRow
from pagemill_worker.views.text import render_text

ViewName = Literal["json", "ocrResult", "hocr", "alto", "text", "pdf"]
VIEW_NAMES: tuple[ViewName, ...] = get_args(ViewName)

Pixels = Callable[[], bytes]
"""Gives the upright page at full size as JPEG or PNG; called at most once, and only for a view that shows it."""


@dataclass(frozen=True, slots=True)
class ViewFormat:
    """One format: `suffix` follows the item's id in the key, `render` is pure."""

    name: ViewName
    suffix: str
    content_type: str
    render: Callable[[OcrRow, bytes], bytes]
    needs_pixels: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """A file to publish: `key` is relative to the output."""

    key: str
    data: bytes
    content_type: str


def _render_pdf(row: OcrRow, picture: bytes) -> bytes:
    # pikepdf costs 0.1 s and 9 MB, which jobs without PDFs need not pay
    from pagemill_worker.views.pdf import render_pdf

    return render_pdf(row, picture)


VIEW_FORMATS: Mapping[ViewName, ViewFormat] = {
    view.name: view
    for view in (
        ViewFormat("json", "_ocr.json", "application/json", lambda row, _: render_ocr_json(row)),
        ViewFormat("ocrResult", ".json", "application/json", lambda row, _: render_ocr_result(row)),
        ViewFormat("hocr", ".hocr", "application/xhtml+xml", lambda row, _: render_hocr(row)),
        ViewFormat("alto", ".alto.xml", "application/xml", lambda row, _: render_alto(row)),
        ViewFormat("text", ".txt", "text/plain; charset=utf-8", lambda row, _: render_text(row)),
        ViewFormat("pdf", ".pdf", "application/pdf", _render_pdf, needs_pixels=True),
    )
}


def view_key(item_id: str, name: ViewName, prefix: str) -> str:
    """Where a view of an item lies: `prefix/id + suffix`, the id verbatim. Raises: UnsafeId."""
    suffix = VIEW_FORMATS[name].suffix
    check_item_id(item_id, prefix=prefix, suffix=suffix)
    return f"{prefix}/{item_id}{suffix}" if prefix else item_id + suffix


def view_keys(item_id: str, formats: Iterable[ViewName], prefix: str) -> list[str]:
    """The keys that an item takes, for whoever checks that no two items take the same one. Raises: UnsafeId.

    Two ids can meet only with `json` and `ocrResult` together: `a` and `a_ocr` both want `a_ocr.json`.
    """
    return [view_key(item_id, name, prefix) for name in formats]


def needs_pixels(formats: Iterable[ViewName]) -> bool:
    """Whether any of `formats` shows the page and not its text alone."""
    return any(VIEW_FORMATS[name].needs_pixels for name in formats)


def render_views(row: OcrRow, formats: Iterable[ViewName], prefix: str, pixels: Pixels | None = None) -> Iterator[View]:
    """The item's views, rendered one at a time in the order of `formats`; none unless it succeeded.

    Raises: UnsafeId; ValueError when a format shows the page and `pixels` is None; what `render_pdf` raises.
    """
    if row.status != "succeeded":
        return
    picture: bytes | None = None
    for name in formats:
        view = VIEW_FORMATS[name]
        if view.needs_pixels and picture is None:
            if pixels is None:
                raise ValueError(f"the view {name} shows the page, and nobody gave its pixels")
            picture = pixels()
        data = view.render(row, picture or b"")
        yield View(view_key(row.id, name, prefix), data, view.content_type)
