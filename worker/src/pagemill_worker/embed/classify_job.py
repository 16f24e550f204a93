"""What a job's `classify` means: the classifier's settings, and what decides its labels.

Layer: `worker.embed`, its door for `kinds`; imports no machine-learning package.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pagemill_core.api.v1alpha1 import Classify
from pagemill_core.errors import EngineUnavailableError
from pagemill_core.storage.store import ObjectStore
from pagemill_worker.embed.classify.settings import ClassifierSettings, read_config
from pagemill_worker.embed.weights import checked_digest, local_file
from pagemill_worker.ocr import packages
from pagemill_worker.ocr.gpu import is_visible

RECIPE_VERSION = 1  # raised when the same checkpoint gives other labels


def classifier_settings(
    given: Classify, cache: Path, open_store: Callable[[str], ObjectStore], absolute: Callable[[str], str]
) -> ClassifierSettings:
    """The classifier as the job asks for it, its files on this machine. Raises: as `weights.local_file`."""
    if given.device == "gpu" and not is_visible():
        raise EngineUnavailableError("classify.device: there is no GPU on this machine", advice="say `device: auto`")
    on_gpu = given.effective_device != "cpu" and is_visible()
    return ClassifierSettings(
        checkpoint=local_file(absolute(given.checkpoint), cache, open_store),
        model=given.effective_model,
        config=local_file(absolute(given.config), cache, open_store) if given.config is not None else None,
        digest=given.digest,
        input_order=given.effective_input_order,
        window_overlap=given.effective_window_overlap,
        device="cuda" if on_gpu else "cpu",
    )


def classifier_fingerprint(settings: ClassifierSettings) -> dict[str, Any]:
    """Everything that decides a book's labels. Raises: IntegrityError, InvalidSpecError."""
    return {
        "recipeVersion": RECIPE_VERSION,
        "model": settings.model,
        "checkpoint": checked_digest(settings.checkpoint, settings.digest),
        "sizes": read_config(settings).model_dump(mode="json"),
        "inputOrder": settings.input_order,
        "windowOverlap": settings.window_overlap,
        "packages": {"torch": packages.version("torch"), "transformers": packages.version("transformers")},
    }


def to_json(settings: ClassifierSettings) -> dict[str, Any]:
    """`settings` for a pipe to a child."""
    fields = dataclasses.asdict(settings)
    return {name: str(value) if isinstance(value, Path) else value for name, value in fields.items()}


def from_json(fields: dict[str, Any]) -> ClassifierSettings:
    """The settings that `to_json` gave."""
    paths = {name: Path(fields[name]) for name in ("checkpoint", "config") if fields[name] is not None}
    return ClassifierSettings(**{**fields, **paths})
