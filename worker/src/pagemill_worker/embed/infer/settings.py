"""What a job says of its tensor model, ready for loading.

Layer: `worker.embed.infer`, its bottom; no I/O, no machine-learning package.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pagemill_core.errors import InvalidSpecError

AdapterName = Literal["torchScript", "torchExport", "safetensors", "onnx", "pickle"]
Trust = Literal["none", "python", "pickle"]
Device = Literal["cpu", "cuda"]

SAMPLE_PACKAGE = "pagemill_worker.embed.infer.redshift"
"""The one package whose classes may be named unless the installation allows more: the sample model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceSettings:
    """A tensor model as a job asks for it.

    `weights` is a local file; `digest` is "sha256:…" of its bytes. `labels` is a key of the partition or its position
    as digits. `allowed_packages` are the Python packages whose classes `model_class` may name, themselves and all
    below them. `threads` is for the model's arithmetic.
    """

    adapter: AdapterName
    weights: Path
    digest: str | None = None
    model_class: str | None = None
    trust: Trust = "none"
    batch_size: int = 512
    labels: str | None = None
    device: Device = "cpu"
    threads: int = 1
    allowed_packages: tuple[str, ...] = (SAMPLE_PACKAGE,)


def check_settings(settings: InferenceSettings) -> None:
    """Refuse what may not be loaded, before anything is. Raises: InvalidSpecError, which says what to do instead."""
    if settings.adapter == "pickle" and (settings.trust != "pickle" or settings.digest is None):
        raise InvalidSpecError(
            "inference.adapter: pickle runs the code inside the file; it needs trust: pickle and a pinned digest",
            advice="better, save the model with torch.export or its weights as safetensors, which run nothing",
        )
    if settings.adapter == "safetensors" and settings.model_class is None:
        raise InvalidSpecError(
            "inference.modelClass: safetensors holds weights alone",
            advice="name the class that they belong to, as package.module:Class",
        )
    package, allowed = (settings.model_class or "").partition(":")[0], settings.allowed_packages
    if package and not any(package == one or package.startswith(f"{one}.") for one in allowed):
        raise InvalidSpecError(
            f"inference.modelClass: {package} is not among the allowed packages",
            advice=f"allowed are {', '.join(allowed)}; whoever runs the workers allows more: PAGEMILL_MODELS_PACKAGES",
        )
