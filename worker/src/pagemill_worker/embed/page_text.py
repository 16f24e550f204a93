"""What is written on a page of a book, from the OCR JSON that lies beside its picture.

Layer: `worker.embed`; pure, no machine-learning package. Two readings of one file: `json_text` is what existing readers
of books embed, to the letter; `plain` is the text a person would read, whichever program wrote the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pagemill_worker.views.characters import valid_text

OcrState = Literal["text", "missing", "invalid", "empty", "noResult", "null"]
MAX_DEPTH = 32  # arbitrary; engines nest a handful of levels, and a forged file must not end the process


@dataclass(frozen=True, slots=True)
class PageText:
    """The text of one page.

    `json_text` is `OCRResult` as JSON with ASCII escapes, "{}" where the file has none, "" where there is no readable
    file. `state` says which of these it was: `empty` is a file without content.
    """

    json_text: str
    plain: str
    state: OcrState


def page_text(data: bytes | None) -> PageText:
    """The text in a page's OCR JSON; None stands for a file that is missing or cannot be read."""
    if data is None:
        return PageText("", "", "missing")
    if not data.strip():
        return PageText("", "", "empty")
    try:
        # Not utf-8-sig: existing readers take a file with a byte order mark for an unreadable one.
        value = json.loads(data.decode("utf-8"))
        return _of_object(value) if isinstance(value, dict) else PageText("", "", "invalid")
    except (ValueError, RecursionError):
        return PageText("", "", "invalid")


def own_page_text(data: bytes | None) -> PageText:
    """As `page_text` for a file `<id>_ocr.json`, whose fields stand at the top instead of under `OCRResult`.

    `json_text` is what the same page's `ocrResult` file would give, but for the engine's own metadata.
    """
    found = page_text(data)
    if found.state != "noResult" or data is None:
        return found
    value = json.loads(data)
    if not isinstance(value.get("text_regions"), list):
        return found
    return PageText(json.dumps(reference_result(value["text_regions"])), found.plain, "text")


def reference_result(regions: Sequence[Any]) -> dict[str, Any]:
    """Regions with boxes [x, y, width, height] as the value of `OCRResult`: boxes [x1, y1, x2, y2], text in lines."""
    kept = ("text", "confidence", "bbox", "polygon")
    rows = []
    for region in regions:
        if not isinstance(region, Mapping):
            continue
        row = {name: region[name] for name in kept if region.get(name) is not None}
        box = row.get("bbox")
        if isinstance(box, list) and len(box) == 4 and all(isinstance(number, int | float) for number in box):
            x, y, width, height = box
            row["bbox"] = [x, y, x + width, y + height]
        rows.append(row)
    texts = [str(row.get("text", "")) for row in rows]
    return {"full_text": "\n".join(text for text in texts if text.strip()), "text_regions": rows}


def _of_object(value: dict[str, Any]) -> PageText:
    if "OCRResult" not in value:
        return PageText("{}", _plain(value), "noResult")
    result = value["OCRResult"]
    json_text = json.dumps(result)
    if result is None:
        return PageText(json_text, "", "null")
    return PageText(json_text, _plain(result), "text")


def _plain(result: object) -> str:
    """The text of a result in any dialect: its `full_text`, else its regions' texts in order."""
    if isinstance(result, str):
        return valid_text(result)
    if isinstance(result, dict):
        whole = result.get("full_text")
        if isinstance(whole, str) and whole.strip():
            return valid_text(whole)
    return valid_text("\n".join(text for text in _texts(result, 0) if text.strip()))


def _texts(value: object, depth: int) -> Iterator[str]:
    """Every `text` below `value`, in the order of the file."""
    if depth > MAX_DEPTH:
        return
    if isinstance(value, list):
        for entry in value:
            yield from _texts(entry, depth + 1)
    elif isinstance(value, dict):
        own = value.get("text")
        if isinstance(own, str):
            yield own
        for name, entry in value.items():
            if name not in ("text", "metadata", "pagemill") and isinstance(entry, dict | list):
                yield from _texts(entry, depth + 1)
