"""What decides an engine's output, as JSON: model digests, languages, options, recipe version.

Layer: `worker.ocr`. Left out on purpose: package versions (a patch release strands no run; the recipe version is
raised when output may change), the device (pods of one run may differ; fields agree across devices), paths, and
every credential.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pagemill_core.errors import EngineUnavailableError
from pagemill_worker.ocr.options import EngineOptions

_BLOCK_BYTES = 1 << 20


def file_digest(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits; remembered for this process by path, size and modification time.

    Raises: EngineUnavailableError when the file cannot be read.
    """
    try:
        stat = path.stat()
        return _digest(str(path), stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise EngineUnavailableError(f"the model file {path} cannot be read: {error.strerror}") from error


@functools.lru_cache(maxsize=256)
def _digest(path: str, _size_bytes: int, _mtime_ns: int) -> str:
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            sha.update(block)
    return sha.hexdigest()


def engine_fingerprint(
    name: str, recipe_version: int, *, models: Mapping[str, Path], languages: Sequence[str], options: EngineOptions
) -> dict[str, Any]:
    """The fingerprint of a local engine; `models` maps each model's name to its file, `languages` are the engine's."""
    return {
        "engine": name,
        "recipeVersion": recipe_version,
        "models": {model: f"sha256:{file_digest(path)}" for model, path in sorted(models.items())},
        "languages": list(languages),
        "options": options.model_dump(mode="json", by_alias=True),
    }
