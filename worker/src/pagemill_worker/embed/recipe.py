"""What a model's own files say about its use: pictures' preprocessing, pooling, length of texts, prompts.

Layer: `worker.embed`; reads small JSON files only, so that a plan knows everything that decides a row before any
machine-learning package is imported. Loaders take the same recipes: what was planned is what is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pagemill_core.errors import IntegrityError, InvalidSpecError
from pagemill_worker.embed import sentence
from pagemill_worker.embed.catalogue import Preprocessing
from pagemill_worker.embed.encoder import EncoderSettings, Pooling
from pagemill_worker.embed.files import read_json
from pagemill_worker.embed.openclip_config import OpenClipConfig, read_open_clip
from pagemill_worker.embed.picture import PictureRecipe, open_clip_recipe, transformers_recipe
from pagemill_worker.embed.registry import ResolvedModel

# Vision transformers whose row is in the model's own output; every other kind has to be told how rows are taken.
_VISUAL_POOLING: Mapping[str, Pooling] = {"siglip": "pooler", "clip": "projection", "dinov2": "pooler", "vit": "cls"}
_TEXT_POOLING: Mapping[str, Pooling] = {"siglip": "pooler", "clip": "projection"}
_BATCH_NORM_TYPES = frozenset({"resnet", "regnet", "efficientnet", "mobilenet_v1", "mobilenet_v2"})
_UNLIMITED_TOKENS = 1 << 20  # tokenizers say "no limit" with numbers of thirty digits


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualRecipe:
    """How pictures become rows. `picture` None: the model prepares them itself (modelImpl, plug-ins)."""

    picture: PictureRecipe | None = None
    pooling: Pooling | None = None
    has_batch_norm: bool = False

    def facts(self) -> dict[str, Any]:
        return {"pooling": self.pooling, "preprocessing": self.picture.as_json() if self.picture else None}


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRecipe:
    """How texts become rows: `max_tokens` with special ones, `prompt` before each text, `pad_to_max` for towers that
    were trained on texts of one length. `folder` holds the transformer, `dense` the layers after pooling."""

    max_tokens: int
    pooling: Pooling | None
    prompt: str = ""
    lowercase: bool = False
    pad_to_max: bool = False
    folder: Path = Path()
    dense: tuple[Path, ...] = ()

    def facts(self) -> dict[str, Any]:
        return {
            "pooling": self.pooling,
            "maxTokens": self.max_tokens,
            "prompt": self.prompt,
            "lowercase": self.lowercase,
            "dense": len(self.dense),
        }


def visual_recipe(model: ResolvedModel, settings: EncoderSettings) -> VisualRecipe:
    """How this model takes pictures. Raises: InvalidSpecError, IntegrityError."""
    if model.known and "visual" not in model.known.sides:
        raise InvalidSpecError(f"the model {model.name} reads texts, no pictures", advice="name a model for `visual`")
    match model.loader:
        case "openClip":
            config = read_open_clip(model.path)
            _check_pooling(settings.pooling, "projection", "openClip")
            recipe = VisualRecipe(
                picture=open_clip_recipe(config.image_size, config.preprocess),
                pooling="projection",
                has_batch_norm=config.has_batch_norm,
            )
        case "transformers":
            recipe = _transformers_visual(model, settings)
        case "sentenceTransformers":
            raise InvalidSpecError(
                f"{model.name}: a sentence-transformers folder reads texts", advice="name a vision model for `visual`"
            )
        case _:
            return VisualRecipe(pooling=settings.pooling)
    if model.known and model.known.preprocessing and recipe.picture:
        _check_preprocessing(model.name, recipe.picture, model.known.preprocessing)
    return recipe


def text_recipe(model: ResolvedModel, settings: EncoderSettings) -> TextRecipe:
    """How this model takes texts. Raises: InvalidSpecError."""
    if model.known and "text" not in model.known.sides:
        raise InvalidSpecError(f"the model {model.name} reads pictures, no texts", advice="name a model for `text`")
    match model.loader:
        case "openClip":
            recipe = _open_clip_text(read_open_clip(model.path), model, settings)
        case "transformers":
            recipe = _transformers_text(model, settings)
        case "sentenceTransformers":
            recipe = _sentence_text(model, settings)
        case _:
            recipe = TextRecipe(max_tokens=settings.max_tokens or 0, pooling=settings.pooling, folder=model.folder)
    prompt = settings.prompt or (model.known.prompts.document if model.known else "") or recipe.prompt
    return replace(recipe, prompt=prompt, max_tokens=_max_tokens(settings.max_tokens, recipe.max_tokens, model))


def query_prompt(model: ResolvedModel) -> str:
    """What the model wants in front of a text that is searched for; empty for most."""
    if model.known and model.known.prompts.query:
        return model.known.prompts.query
    if model.loader == "sentenceTransformers":
        return sentence.read_sentence_folder(model.folder).prompts.get("query", "")
    return ""


def _max_tokens(asked: int | None, limit: int, model: ResolvedModel) -> int:
    if asked is not None and 0 < limit < asked:
        raise InvalidSpecError(
            f"text.maxTokens: {asked} is more than the {limit} tokens that {model.name} reads",
            advice="say less, or `onTooLong: window` to have all of a long text read",
        )
    return asked or limit


def _check_pooling(asked: Pooling | None, own: Pooling, loader: str) -> None:
    if asked is not None and asked != own:
        raise InvalidSpecError(
            f"pooling: a model loaded by {loader} gives its {own}, not {asked}", advice="leave `pooling` out"
        )


def _check_preprocessing(name: str, found: PictureRecipe, known: Preprocessing) -> None:
    want = PictureRecipe(
        height_px=known.side_px,
        width_px=known.side_px,
        resize=known.resize,
        shortest_px=known.shortest_px if known.resize == "shortest" else None,
        interpolation=known.interpolation or found.interpolation,
        mean=known.mean,
        std=known.std,
        floors_middle=found.floors_middle,
    )
    if found != want:
        raise IntegrityError(
            f"{name}: the fetched files prepare pictures by {found.as_json()}, the catalogue says {want.as_json()}",
            advice=f"fetch the pinned revision again: `pagemill models fetch {name}`",
        )


def _transformers_visual(model: ResolvedModel, settings: EncoderSettings) -> VisualRecipe:
    kind = model_type(model.folder)
    if kind == "siglip2":
        raise InvalidSpecError(
            f"{model.name}: SigLIP 2 with free proportions (NaFlex) is not offered",
            advice="take a model of one size, such as siglip2-base-patch16-224",
        )
    asked = settings.pooling or (model.known.pooling.get("visual") if model.known else None)
    pooling = asked or _VISUAL_POOLING.get(kind)
    if pooling is None or pooling == "lastToken":
        raise InvalidSpecError(
            f"{model.name}: how a row is taken from a model of the type {kind} has to be said",
            advice="set `pooling` to pooler, cls or mean",
        )
    if pooling == "projection" and kind != "clip":
        raise InvalidSpecError(
            f"{model.name}: a model of the type {kind} has no projection", advice="leave `pooling` out"
        )
    return VisualRecipe(
        picture=transformers_recipe(read_json(model.folder / "preprocessor_config.json")),
        pooling=pooling,
        has_batch_norm=kind in _BATCH_NORM_TYPES,
    )


def model_type(folder: Path) -> str:
    """The `model_type` of a transformers model, towers counted as their whole. Raises: InvalidSpecError."""
    kind = read_json(folder / "config.json").get("model_type")
    if not isinstance(kind, str):
        raise InvalidSpecError(f"{folder / 'config.json'} names no model_type", advice="fetch the model's own config")
    return kind.removesuffix("_vision_model").removesuffix("_text_model")


def _open_clip_text(config: OpenClipConfig, model: ResolvedModel, settings: EncoderSettings) -> TextRecipe:
    _check_pooling(settings.pooling, "projection", "openClip")
    return TextRecipe(
        max_tokens=config.context_length,
        pooling="projection",
        pad_to_max=not config.has_transformers_text,
        folder=model.folder,
    )


def _transformers_text(model: ResolvedModel, settings: EncoderSettings) -> TextRecipe:
    config = read_json(model.folder / "config.json")
    kind = model_type(model.folder)
    asked = settings.pooling or (model.known.pooling.get("text") if model.known else None)
    pooling = asked or _TEXT_POOLING.get(kind)
    if pooling is None:
        raise InvalidSpecError(
            f"{model.name}: how a row is taken from a model of the type {kind} has to be said",
            advice="set `pooling` to mean, cls or lastToken, as the model's card says",
        )
    text = config.get("text_config") if kind in _TEXT_POOLING else config
    return TextRecipe(
        max_tokens=_length_limit(model.folder, text if isinstance(text, dict) else {}, 64 if kind == "siglip" else 77),
        pooling=pooling,
        pad_to_max=kind == "siglip",
        folder=model.folder,
    )


def _sentence_text(model: ResolvedModel, settings: EncoderSettings) -> TextRecipe:
    folder = sentence.read_sentence_folder(model.folder)
    pooling = settings.pooling or folder.pooling
    if settings.pooling and folder.dense and settings.pooling != folder.pooling:
        raise InvalidSpecError("pooling: this model's further layers were trained with its own pooling; leave it out")
    limit = _length_limit(folder.transformer, read_json(folder.transformer / "config.json"), 512)
    return TextRecipe(
        max_tokens=min(folder.max_tokens or limit, limit),
        pooling=pooling,
        prompt=folder.default_prompt,
        lowercase=folder.lowercase,
        folder=folder.transformer,
        dense=folder.dense,
    )


def _length_limit(folder: Path, config: Mapping[str, Any], default: int) -> int:
    """The tokens a transformer reads: what its positions allow, or its tokenizer."""
    limits = []
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int):
        # RoBERTa's positions start after the padding's own, so two of them are never reached.
        limits.append(
            positions - 2 if config.get("model_type") in ("roberta", "xlm-roberta", "camembert") else positions
        )
    if (folder / "tokenizer_config.json").is_file():
        said = read_json(folder / "tokenizer_config.json").get("model_max_length")
        if isinstance(said, (int, float)) and 0 < said < _UNLIMITED_TOKENS:
            limits.append(int(said))
    return min(limits) if limits else default
