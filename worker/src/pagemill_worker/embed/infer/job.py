"""What a job's `inference` means: the settings of its model, and what decides its predictions.

Layer: `worker.embed.infer`, its door for `kinds`; imports no machine-learning package.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pagemill_core.api.v1alpha1 import Inference
from pagemill_core.errors import EngineUnavailableError
from pagemill_core.storage.store import ObjectStore
from pagemill_worker.embed.infer.settings import SAMPLE_PACKAGE, InferenceSettings, check_settings
from pagemill_worker.embed.settings import ModelsSettings
from pagemill_worker.embed.weights import checked_digest, local_file
from pagemill_worker.ocr import packages
from pagemill_worker.ocr.gpu import is_visible

RECIPE_VERSION = 1  # raised when the same model gives other rows


def inference_settings(
    given: Inference, models: ModelsSettings, open_store: Callable[[str], ObjectStore], absolute: Callable[[str], str]
) -> InferenceSettings:
    """The model as the job asks for it, its file on this machine.

    Raises: as `weights.local_file`; InvalidSpecError for a model that may not be loaded.
    """
    if given.device == "gpu" and not is_visible():
        raise EngineUnavailableError("inference.device: there is no GPU on this machine", advice="say `device: auto`")
    on_gpu = given.effective_device != "cpu" and is_visible()
    settings = InferenceSettings(
        adapter=given.adapter,
        weights=local_file(absolute(given.weights), models.dir, open_store),
        digest=given.digest,
        model_class=given.model_class,
        trust=given.effective_trust,
        batch_size=given.effective_batch_size,
        labels=given.labels,
        device="cuda" if on_gpu else "cpu",
        allowed_packages=(SAMPLE_PACKAGE, *models.allowed_packages),
    )
    check_settings(settings)
    return settings


def inference_fingerprint(settings: InferenceSettings) -> dict[str, Any]:
    """Everything that decides a row's prediction. Raises: IntegrityError for another digest than the job's."""
    package = "onnxruntime" if settings.adapter == "onnx" else "torch"
    return {
        "recipeVersion": RECIPE_VERSION,
        "adapter": settings.adapter,
        "weights": checked_digest(settings.weights, settings.digest),
        "modelClass": settings.model_class,
        "labels": settings.labels,
        "packages": {package: packages.version(package)},
    }


def to_json(settings: InferenceSettings) -> dict[str, Any]:
    """`settings` for a pipe to a child."""
    return {**dataclasses.asdict(settings), "weights": str(settings.weights)}


def from_json(fields: dict[str, Any]) -> InferenceSettings:
    """The settings that `to_json` gave."""
    packages_allowed = tuple(fields["allowed_packages"])
    return InferenceSettings(**{**fields, "weights": Path(fields["weights"]), "allowed_packages": packages_allowed})
