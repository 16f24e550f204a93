"""From the words of a model to regions of text: every form of answer seen in the wild, decided.

Layer: `worker.ocr`, pure; no page, no pixels, no network. What a model says is data: it is never evaluated, never
trusted to have a type, and never quoted in an error beyond a short, cleaned excerpt.

An answer is one of: a reading in JSON (alone, fenced, or with prose around it), a reading in grounding marks, prose
(kept as one region of low confidence, as the reference system does), or unusable. JSON that breaks off is unusable
even when its first regions could be saved: half a page must not pass for a page.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

Form = Literal["json", "grounding", "prose"]
Json = object

PROSE_CONFIDENCE: Final = 0.5
DEFAULT_CONFIDENCE: Final = 0.9

_REGION_KEYS: Final = ("text_regions", "textRegions", "regions")
_BOX_KEYS: Final = ("bbox", "bbox_2d", "box_2d", "box")
_THOUGHTS: Final = re.compile(r"\A\s*<think(?:ing)?>.*?</think(?:ing)?>", re.S | re.I)
_START: Final = re.compile(r"[{\[]")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_REGION_SIGN: Final = re.compile(r'"(?:text_regions|textRegions|regions|text)"\s*:')
_ESCAPE: Final = re.compile(r"\\(?:([\"\\/bfnrt]|u[0-9a-fA-F]{4})|)")
_MARKED: Final = re.compile(r"<\|ref\|>(.*?)<\|/ref\|>\s*<\|det\|>(.*?)<\|/det\|>([^<]*(?:<(?!\|ref\|>)[^<]*)*)", re.S)
_MARKS: Final = re.compile(r"<\|/?(?:ref|det|grounding|end▁of▁sentence)\|>")
_BOX_LIST: Final = re.compile(r"\[\s*(-?[\d.]+)\s*,\s*(-?[\d.]+)\s*,\s*(-?[\d.]+)\s*,\s*(-?[\d.]+)\s*\]")
# The labels that DeepSeek-OCR writes as <|ref|> in its document mode, where the text follows the box instead.
_LABELS: Final = frozenset(
    ("text", "title", "sub_title", "image", "image_caption", "table", "table_caption", "table_footnote", "equation")
    + ("header", "footer", "page_number")
)
_REFUSAL: Final = re.compile(
    r"\A\W*(?:i['’]?m (?:very )?sorry|sorry|i apologi[sz]e|i['’]m (?:unable|not able)|as an ai\b|unfortunately,? i\b"
    r"|i (?:can['’]?t|cannot|can not|am unable|am not able|won['’]?t)\b)",
    re.I,
)
# A refusal is short. A page that begins with "I'm sorry" is usually longer; 400 is arbitrary.
_REFUSAL_MAX_CHARS: Final = 400
# More starts than this in one answer means that it is not JSON with a little prose around it.
_MAX_STARTS: Final = 50


@dataclass(frozen=True, slots=True)
class SaidRegion:
    """One region as the model said it: `corners` in its own convention, `confidence` None where it gave none."""

    text: str
    confidence: float | None = None
    corners: tuple[float, float, float, float] | None = None
    location: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer holds, in the model's order. `dropped_count` regions had no text or were no regions at all."""

    regions: tuple[SaidRegion, ...]
    form: Form
    dropped_count: int = 0


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why an answer is none. `reason` completes "The model's answer …"."""

    reason: str


def parse_reply(content: str) -> Reading | Unusable:
    """Read one whole answer. Never raises, whatever `content` holds."""
    text = _THOUGHTS.sub("", content).strip()
    if not text:
        return Unusable("was empty")
    if "<|det|>" in text and (reading := _grounded(text)):
        return reading
    if found := _json_reading(text):
        return found
    return Unusable("was broken JSON") if _looks_like_json(text) else _prose(text)


def _prose(text: str) -> Reading | Unusable:
    if len(text) <= _REFUSAL_MAX_CHARS and _REFUSAL.match(text):
        return Unusable("was a refusal")
    words = clean_text(_MARKS.sub("", text))
    return Reading((SaidRegion(words, PROSE_CONFIDENCE),), "prose") if words else Unusable("held no words")


def clean_text(text: str) -> str:
    """`text` without control characters (line ends and tabs stay), lone surrogates replaced, trimmed."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return _SURROGATE.sub("\ufffd", _CONTROL.sub("", lines)).strip()


def _json_reading(text: str) -> Reading | Unusable | None:
    """The first JSON in `text` that has the shape asked for, or None when there is no whole JSON of any use."""
    other_shape = False
    # Second look: backslashes that JSON does not know, as models write them before \( and \', taken literally.
    for source in (text, _ESCAPE.sub(lambda match: match.group(0) if match.group(1) else "\\\\", text)):
        for is_first, value in _values(source):
            regions = _region_list(value, alone=is_first)
            if regions is not None:
                return _reading(regions)
            other_shape = other_shape or (is_first and isinstance(value, dict))
    return Unusable("was JSON of another shape") if other_shape else None


def _values(text: str) -> Iterator[tuple[bool, Json]]:
    """Every JSON object or array in `text` outside those already found; the flag marks the first place it may begin."""
    decoder = json.JSONDecoder(strict=False)
    place = 0
    for count in range(_MAX_STARTS):
        match = _START.search(text, place)
        if match is None:
            return
        try:
            value, place = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            place = match.end()
            continue
        yield count == 0, value


def _region_list(value: Json, *, alone: bool) -> list[Json] | None:
    """The regions of a decoded value, or None when it is of another shape.

    A lone region or a bare list counts only where the answer's JSON begins (`alone`): further in, it is a piece of
    something that broke.
    """
    if isinstance(value, dict):
        for key in _REGION_KEYS:
            if isinstance(value.get(key), list):
                return list(value[key])
        return [value] if alone and isinstance(value.get("text"), str) else None
    if not alone or not isinstance(value, list):
        return None
    return value if all(isinstance(part, dict) and "text" in part for part in value) else None


def _reading(values: list[Json]) -> Reading | Unusable:
    regions = tuple(region for region in map(_said, values) if region is not None)
    if values and not regions:
        return Unusable("held no region with text")
    return Reading(regions, "json", len(values) - len(regions))


def _said(value: Json) -> SaidRegion | None:
    if isinstance(value, str):
        value = {"text": value}
    if not isinstance(value, dict):
        return None
    raw_text = value.get("text")
    if isinstance(raw_text, bool) or not isinstance(raw_text, str | int | float):
        return None
    text = clean_text(str(raw_text))
    if not text:
        return None
    location = value.get("location")
    return SaidRegion(
        text=text,
        confidence=_confidence(value.get("confidence")),
        corners=_corners(value),
        location=clean_text(location)[:200] or None if isinstance(location, str) else None,
    )


def _confidence(value: Json) -> float | None:
    number = _number(value.strip().removesuffix("%") if isinstance(value, str) else value)
    if number is None or not 0 <= number <= 100:
        return None
    return number if number <= 1 else number / 100


def _corners(region: Mapping[str, Json]) -> tuple[float, float, float, float] | None:
    value = next((region[key] for key in _BOX_KEYS if key in region), None)
    if not isinstance(value, list) or len(value) != 4:
        return None
    numbers = [number for number in map(_number, value) if number is not None]
    return (numbers[0], numbers[1], numbers[2], numbers[3]) if len(numbers) == 4 else None


def _number(value: Json) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _looks_like_json(text: str) -> bool:
    inner = re.sub(r"\A```[A-Za-z0-9_-]*\s*", "", text)
    return inner.startswith(("{", "[{")) or _REGION_SIGN.search(text) is not None


def _grounded(text: str) -> Reading | None:
    """A reading from <|ref|>…<|/ref|><|det|>[[…]]<|/det|> marks, or None when no mark is whole."""
    regions: list[SaidRegion] = []
    dropped_count = 0
    for reference, boxes, following in _MARKED.findall(text):
        label = reference.strip()
        words = clean_text(_MARKS.sub("", following if label in _LABELS and following.strip() else label))
        if not words or (label == "image" and not following.strip()):
            dropped_count += 1
            continue
        regions.append(SaidRegion(words, corners=_hull(boxes), location=label if label in _LABELS else None))
    return Reading(tuple(regions), "grounding", dropped_count) if regions else None


def _hull(boxes: str) -> tuple[float, float, float, float] | None:
    """The smallest box around all boxes of a mark; text that occurs in several places has one region here."""
    found = [[_number(part) for part in match] for match in _BOX_LIST.findall(boxes)]
    whole = [[value for value in box if value is not None] for box in found]
    whole = [box for box in whole if len(box) == 4]
    if not whole:
        return None
    x1, y1, x2, y2 = zip(*whole, strict=True)
    return (min(x1), min(y1), max(x2), max(y2))
