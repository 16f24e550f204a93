"""The one door to encoders: settings in, a loaded model out, or a refusal that says what to do.

Layer: `worker.embed`, its front. Imports machine-learning packages only while a model loads, and only those that its
loader needs. Whatever they raise while loading becomes EngineUnavailableError.
"""

from __future__ import annotations

from typing import cast

from pagemill_core.errors import InvalidSpecError
from pagemill_worker.embed.encoder import EncoderSettings, TextEncoder, VisualEncoder
from pagemill_worker.embed.fingerprint import describe, precision_of, wants_gpu
from pagemill_worker.embed.plugins import load_plugin
from pagemill_worker.embed.recipe import text_recipe, visual_recipe
from pagemill_worker.embed.registry import LOADERS, ResolvedModel, resolve
from pagemill_worker.ocr import packages
from pagemill_worker.ocr.guard import load_boundary

_NEEDS = {
    "openClip": ("torch", "open_clip", "timm", "transformers"),
    "transformers": ("torch", "transformers"),
    "sentenceTransformers": ("torch", "transformers"),
    "modelImpl": ("torch",),
}


def load_visual(settings: EncoderSettings) -> VisualEncoder:
    """Load the encoder of pictures.

    Raises: InvalidSpecError, IntegrityError, EngineUnavailableError; MemoryError.
    """
    if settings.side != "visual":
        raise InvalidSpecError(f"an encoder for {settings.side} was asked for pictures")
    model = resolve(settings.model)
    _require(model)
    with load_boundary(model.loader):
        if model.loader not in LOADERS:
            return cast("VisualEncoder", load_plugin(settings, model.loader, model.path))
        return _visual(settings, model)


def load_text(settings: EncoderSettings) -> TextEncoder:
    """Load the encoder of texts. Raises: as `load_visual`."""
    if settings.side != "text":
        raise InvalidSpecError(f"an encoder for {settings.side} was asked for texts")
    model = resolve(settings.model)
    _require(model)
    with load_boundary(model.loader):
        if model.loader not in LOADERS:
            return cast("TextEncoder", load_plugin(settings, model.loader, model.path))
        return _text(settings, model)


def _require(model: ResolvedModel) -> None:
    for module in _NEEDS.get(model.loader, ()):
        packages.require(module, engine=model.loader, extra="embed")


def _visual(settings: EncoderSettings, model: ResolvedModel) -> VisualEncoder:
    recipe = visual_recipe(model, settings)
    facts = describe(settings, model, recipe)
    if model.loader == "modelImpl":
        from pagemill_worker.embed.modelimpl import load_model_impl_visual

        return load_model_impl_visual(model, settings, facts)
    from pagemill_worker.embed.device import place
    from pagemill_worker.embed.visual import TorchVisualEncoder

    where = place(settings, precision_of(settings, recipe), on_gpu=wants_gpu(settings))
    if model.loader == "openClip":
        from pagemill_worker.embed import openclip

        return TorchVisualEncoder(openclip.load_visual_tower(model, recipe, where), settings, facts)
    from pagemill_worker.embed import transformers_visual

    return TorchVisualEncoder(transformers_visual.load_visual_tower(model, recipe, where), settings, facts)


def _text(settings: EncoderSettings, model: ResolvedModel) -> TextEncoder:
    recipe = text_recipe(model, settings)
    facts = describe(settings, model, recipe)
    if model.loader == "modelImpl":
        from pagemill_worker.embed.modelimpl import load_model_impl_text

        return load_model_impl_text(model, settings, facts)
    from pagemill_worker.embed.device import place
    from pagemill_worker.embed.text import TorchTextEncoder

    where = place(settings, precision_of(settings, recipe), on_gpu=wants_gpu(settings))
    if model.loader == "openClip":
        from pagemill_worker.embed import openclip

        return TorchTextEncoder(openclip.load_text_tower(model, recipe, where), settings, facts, recipe.prompt)
    from pagemill_worker.embed import transformers_text

    return TorchTextEncoder(transformers_text.load_text_tower(model, recipe, where), settings, facts, recipe.prompt)
