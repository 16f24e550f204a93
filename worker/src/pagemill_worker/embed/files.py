"""Small files of a model's folder, read strictly.

Layer: `worker.embed`, its bottom. A config that is not what it says is a refusal, never a default.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pagemill_core.errors import InvalidSpecError

_MAX_BYTES = 16 << 20  # arbitrary: far above any model's config


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises: InvalidSpecError when it cannot be read or is none."""
    found = read_json_value(path)
    if not isinstance(found, dict):
        raise InvalidSpecError(f"{path} holds no JSON object")
    return found


def read_json_value(path: Path) -> Any:
    """Any JSON in `path`. Raises: InvalidSpecError."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InvalidSpecError(f"{path} is too large to be a model's config")
        return json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise InvalidSpecError(
            f"{path} cannot be read: {error.strerror}", advice="fetch the model again; a file of it is missing"
        ) from error
    except ValueError as error:
        raise InvalidSpecError(f"{path} is no JSON: {error}", advice="fetch the model again") from error
