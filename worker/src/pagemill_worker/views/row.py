"""The typed row every OCR view is rendered from, and its JSON form in the committed shard.

Layer: `worker.views`, above `worker.items` and the engine's types; no I/O, no store. The payload made here is what a
worker commits. Views are rendered from it alone, by whoever publishes, as often as needed: the same payload gives the
same bytes in every process.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import AwareDatetime, TypeAdapter, ValidationError

from pagemill_core.errors import EngineFailed, IntegrityError
from pagemill_worker.items import ItemFailure, Status
from pagemill_worker.ocr.engine import Region, Usage
from pagemill_worker.views.characters import valid_text

PAYLOAD_VERSION = 1
MAX_METADATA_DEPTH = 8  # arbitrary; engines nest twice at most, and a cycle must end somewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class OcrRow:
    """One item of an OCR job as it ended.

    `regions` are in reading order, with boxes in pixels of the upright page, origin top left; empty unless the item
    succeeded. `width_px` and `height_px` are the page's, None when it was never decoded. `page` is the page of a
    PDF or multi-page TIFF from 0, `frames` the pictures of an animated file. `confidence_is_default`: the engine gives
    no confidences, and those of its regions are stand-ins. `metadata` is what the engine says of the whole page (JSON),
    `seconds` are by stage.
    """

    id: str
    source_uri: str
    status: Status
    engine_name: str
    engine_version: str
    finished_at: AwareDatetime
    failure: ItemFailure | None = None
    regions: tuple[Region, ...] = ()
    width_px: int | None = None
    height_px: int | None = None
    dpi: float | None = None
    languages: tuple[str, ...] = ()
    confidence_is_default: bool = False
    usage: Usage | None = None
    page: int | None = None
    frames: int = 1
    metadata: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises: ValueError when the parts contradict one another."""
        if self.finished_at.tzinfo is None:
            raise ValueError("finished_at has no time zone")
        if (self.status == "failed") != (self.failure is not None):
            raise ValueError("a failure belongs to a failed item, and to no other")
        if self.status == "succeeded" and not ((self.width_px or 0) > 0 and (self.height_px or 0) > 0):
            raise ValueError("a page that succeeded has a size")
        if self.regions and self.status != "succeeded":
            raise ValueError("only a page that succeeded has regions")


@dataclass(frozen=True, slots=True)
class _Envelope:
    """The payload as committed: a version beside the row, so that a later release knows what it reads."""

    v: Literal[1]
    row: OcrRow


_READER = TypeAdapter(_Envelope)


def to_payload(row: OcrRow) -> dict[str, Any]:
    """`row` as values that JSON can say; `from_payload` gives an equal row.

    Halves of surrogate pairs, which no UTF-8 file can hold, become U+FFFD.
    Raises: EngineFailed when the engine's numbers are not finite or its metadata is not JSON.
    """
    return {"v": PAYLOAD_VERSION, "row": _row_values(row)}


def from_payload(payload: Mapping[str, Any]) -> OcrRow:
    """The row that was written by `to_payload`. Raises: IntegrityError when `payload` is none."""
    try:
        return _READER.validate_python(payload).row
    except ValidationError as error:
        raise IntegrityError(f"a committed OCR row cannot be read: {_first_problem(error)}") from error


def to_json(row: OcrRow) -> str:
    """The payload as one line of JSON with sorted keys: equal rows give equal strings. Raises: as `to_payload`."""
    return json.dumps(to_payload(row), ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def from_json(text: str) -> OcrRow:
    """The row that was written by `to_json`. Raises: IntegrityError when `text` is none."""
    try:
        return _READER.validate_json(text).row
    except ValidationError as error:
        raise IntegrityError(f"a committed OCR row cannot be read: {_first_problem(error)}") from error


def _row_values(row: OcrRow) -> dict[str, Any]:
    failure = row.failure
    return {
        "id": valid_text(row.id),
        "source_uri": valid_text(row.source_uri),
        "status": row.status,
        "failure": failure and {"error_class": failure.error_class, "message": valid_text(failure.message)},
        "engine_name": row.engine_name,
        "engine_version": row.engine_version,
        "finished_at": row.finished_at.astimezone(dt.UTC).isoformat(),
        "regions": [_region_values(region) for region in row.regions],
        "width_px": row.width_px,
        "height_px": row.height_px,
        "dpi": None if row.dpi is None else _finite(row.dpi, "dpi"),
        "languages": list(row.languages),
        "confidence_is_default": row.confidence_is_default,
        "usage": row.usage and usage_values(row.usage),
        "page": row.page,
        "frames": row.frames,
        "metadata": json_value(row.metadata),
        "seconds": {stage: _finite(seconds, "seconds") for stage, seconds in row.seconds.items()},
    }


def _region_values(region: Region) -> dict[str, Any]:
    confidence, bbox, polygon = region.confidence, region.bbox, region.polygon
    return {
        "text": valid_text(region.text),
        "confidence": None if confidence is None else _finite(confidence, "confidence"),
        "bbox": None if bbox is None else [_finite(number, "bbox") for number in bbox],
        "polygon": None if polygon is None else [[_finite(x, "polygon"), _finite(y, "polygon")] for x, y in polygon],
        "level": region.level,
        "metadata": json_value(region.metadata),
    }


def usage_values(usage: Usage) -> dict[str, Any]:
    """`usage` by the names of its fields."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "requests": usage.requests,
        "cost_usd": None if usage.cost_usd is None else _finite(usage.cost_usd, "cost_usd"),
    }


def _finite(number: float, name: str) -> float:
    value = float(number)  # NumPy's scalars too, which json refuses
    if not math.isfinite(value):
        raise EngineFailed(f"the engine gave a {name} of {value}")
    return value


def confidence_is_default(row: OcrRow, region: Region) -> bool:
    """Whether the region's confidence is a stand-in: what the region says of itself counts, else what the page says."""
    return bool(region.metadata.get("confidence_is_default", row.confidence_is_default))


def real_confidence(row: OcrRow, region: Region) -> float | None:
    """What the engine gave, 0 to 1; None when it gave nothing."""
    if region.confidence is None or confidence_is_default(row, region):
        return None
    return min(max(region.confidence, 0.0), 1.0)


def json_value(value: object, name: str = "metadata", depth: int = 0) -> Any:
    """`value` with its mappings, sorted by key, and its sequences as dict and list; all else must be a JSON scalar.

    Raises: EngineFailed, naming the place in `value` that JSON cannot say.
    """
    if value is None or isinstance(value, int):  # bool is one
        return value
    if isinstance(value, str):
        return valid_text(value)
    if isinstance(value, float):
        return _finite(value, name)
    if depth > MAX_METADATA_DEPTH:
        raise EngineFailed(f"the engine's {name} is nested too deep")
    return _json_container(value, name, depth + 1)


def _json_container(value: object, name: str, depth: int) -> Any:
    if isinstance(value, list | tuple):
        return [json_value(item, name, depth) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {valid_text(key): json_value(value[key], key, depth) for key in sorted(value)}
    raise EngineFailed(f"the engine's {name} is a {type(value).__name__}, which JSON cannot say")


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
