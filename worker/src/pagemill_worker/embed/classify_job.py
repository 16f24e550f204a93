"""What a job's `classify` means: the classifier's settings, and what decides its labels.

Layer: `worker.embed`, its door for `kinds`; imports no machine-learning package.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Place:
    """Where files are found and kept: `absolute` completes paths of the job's file."""

    cache: Path
    open_store: Callable[[str], ObjectStore]
    absolute: Callable[[str], str]
    plans_for_gpu: bool = False

    def local(self, uri: str) -> Path:
        """A file that the job names, on this machine's disk."""
        return local_file(self.absolute(uri), self.cache, self.open_store)


def classifier_settings(given: Classify, place: Place) -> ClassifierSettings:
    """The classifier as the job asks for it, its files on this machine. Raises: as `weights.local_file`."""
    if given.device == "gpu" and not is_visible() and not place.plans_for_gpu:
        raise EngineUnavailableError("classify.device: there is no GPU on this machine", advice="say `device: auto`")
    on_gpu = given.effective_device != "cpu" and is_visible()
    return ClassifierSettings(
        checkpoint=place.local(given.checkpoint),
        model=given.effective_model,
        config=place.local(given.config) if given.config is not None else None,
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
