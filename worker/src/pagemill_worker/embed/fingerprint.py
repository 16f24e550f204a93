"""Everything that decides an encoder's rows, as JSON, known before anything heavy is imported.

Layer: `worker.embed`. Left out on purpose: batch size, threads and paths, of which rows do not depend. The versions
of the packages are in, unlike with OCR engines: a vector that differs in the third digit is still another vector.
"""

from __future__ import annotations

from typing import Any

from pagemill_core.errors import EngineUnavailableError, InvalidSpecError
from pagemill_worker.embed.encoder import EncoderSettings, Precision
from pagemill_worker.embed.plugins import plugin_names, plugin_version
from pagemill_worker.embed.precision import cpu_flags, resolve_precision
from pagemill_worker.embed.recipe import TextRecipe, VisualRecipe, text_recipe, visual_recipe
from pagemill_worker.embed.registry import ResolvedModel, resolve
from pagemill_worker.ocr import packages
from pagemill_worker.ocr.gpu import is_visible

RECIPE_VERSION = 1  # raised when the same settings give other rows
_PACKAGES = {
    "openClip": ("torch", "open_clip_torch", "timm", "transformers"),
    "transformers": ("torch", "transformers"),
    "sentenceTransformers": ("torch", "transformers"),
    "modelImpl": ("torch",),
}


def fingerprint(settings: EncoderSettings) -> dict[str, Any]:
    """What decides the rows of this encoder on this machine. Raises: as `resolve`, and InvalidSpecError."""
    model = resolve(settings.model)
    recipe = visual_recipe(model, settings) if settings.side == "visual" else text_recipe(model, settings)
    return describe(settings, model, recipe)


def describe(settings: EncoderSettings, model: ResolvedModel, recipe: VisualRecipe | TextRecipe) -> dict[str, Any]:
    """`fingerprint` for whoever has found model and recipe already."""
    facts: dict[str, Any] = {
        "recipeVersion": RECIPE_VERSION,
        "side": settings.side,
        "model": model.facts(),
        **recipe.facts(),
        "normalize": settings.normalize,
        "dtype": settings.dtype,
        "dimensions": settings.dim,
        "precision": precision_of(settings, recipe),
        "packages": {name: packages.version(name) for name in _PACKAGES.get(model.loader, ())},
    }
    if settings.side == "text":
        facts["onTooLong"] = settings.on_too_long
    if model.loader in plugin_names():
        facts["plugin"] = plugin_version(model.loader)
    return facts


def precision_of(settings: EncoderSettings, recipe: VisualRecipe | TextRecipe) -> Precision:
    """The arithmetic on this machine; a job's other processes are told it, so that all rows are made alike."""
    has_batch_norm = isinstance(recipe, VisualRecipe) and recipe.has_batch_norm
    return resolve_precision(
        settings.precision, on_gpu=wants_gpu(settings), has_batch_norm=has_batch_norm, flags=cpu_flags()
    )


def wants_gpu(settings: EncoderSettings) -> bool:
    """Whether the model computes on a GPU. Raises: EngineUnavailableError, InvalidSpecError."""
    if settings.device not in ("auto", "cpu", "gpu"):
        raise InvalidSpecError(f"device: {settings.device} is unknown", advice="say auto, cpu or gpu")
    if settings.plans_for_gpu and settings.device != "cpu":
        return True
    if settings.device == "gpu" and not is_visible():
        raise EngineUnavailableError("device: there is no GPU on this machine", advice="say `device: auto`")
    return settings.device != "cpu" and is_visible()
