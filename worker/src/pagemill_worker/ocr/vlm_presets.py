"""What is known about families of vision-language models: where they live, what they are asked, how they count boxes.

Layer: `worker.ocr`, pure tables. Models come and go faster than releases, so every value here is only a default:
`engine.model`, `engine.endpoint`, `options.boxes` and `options.dialect` override them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

OPENROUTER_URL: Final = "https://openrouter.ai/api/v1"


class Boxes(StrEnum):
    """How a model counts the corners of its boxes."""

    NONE = "none"
    """It gives none, or none to be trusted; none is asked for."""
    PIXELS = "pixels"
    """[x1, y1, x2, y2] in pixels of the picture it was sent (Qwen2.5-VL)."""
    THOUSANDTHS = "thousandths"
    """[x1, y1, x2, y2], each side of the picture being 1000 long (Qwen2-VL, Qwen3-VL, DeepSeek-OCR)."""
    THOUSANDTHS_YX = "thousandthsYx"
    """[y1, x1, y2, x2], each side of the picture being 1000 long (the Gemini line, and Gemma after it)."""


class Dialect(StrEnum):
    """What a model is asked to answer in."""

    JSON = "json"
    """Instructions in words; the answer is JSON with `text_regions`."""
    GROUNDING = "grounding"
    """The fixed prompt of DeepSeek-OCR; the answer is text behind <|ref|> and <|det|> marks."""


@dataclass(frozen=True, slots=True)
class Family:
    """How the models whose id matches `pattern` want to be used. `grid_px`: sides are made multiples of it.

    Qwen2.5-VL resizes every picture to multiples of 28 before it looks and counts pixels of the result; sending
    such a picture in the first place keeps its pixels ours.
    """

    pattern: re.Pattern[str]
    boxes: Boxes
    dialect: Dialect = Dialect.JSON
    grid_px: int = 1


@dataclass(frozen=True, slots=True)
class Preset:
    """One engine name. `model` is None where the job has to name it."""

    name: str
    model: str | None
    base_url: str = OPENROUTER_URL


PRESETS: Final[dict[str, Preset]] = {
    preset.name: preset
    for preset in (
        Preset("vlm", None),
        Preset("qwen", "qwen/qwen3-vl-235b-a22b-instruct"),
        Preset("gemma", "google/gemma-4-31b-it"),
        Preset("deepseek", "deepseek/deepseek-ocr"),
    )
}

# Looked through in order. Sources: the model cards and issue threads of the families; none of the hosts repeats them.
_FAMILIES: Final = (
    Family(re.compile(r"qwen-?2[.-]?5-?vl", re.I), Boxes.PIXELS, grid_px=28),
    Family(re.compile(r"qwen.*vl", re.I), Boxes.THOUSANDTHS),
    Family(re.compile(r"gemma-?3(?!\d)", re.I), Boxes.NONE),
    Family(re.compile(r"gemma|gemini", re.I), Boxes.THOUSANDTHS_YX),
    Family(re.compile(r"deepseek.*ocr", re.I), Boxes.THOUSANDTHS, Dialect.GROUNDING),
)
_UNKNOWN_FAMILY: Final = Family(re.compile(""), Boxes.NONE)


def family_of(model: str) -> Family:
    """The conventions of `model` by its id; for one nobody knows: JSON without boxes, which every model can give."""
    return next((family for family in _FAMILIES if family.pattern.search(model)), _UNKNOWN_FAMILY)
