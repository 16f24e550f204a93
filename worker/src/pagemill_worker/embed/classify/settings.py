"""What a job says of its page classifier, and the sizes of the two sequence models.

Layer: `worker.embed.classify`, its bottom; no machine-learning package.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pagemill_core.errors import InvalidSpecError
from pagemill_worker.embed.classify.labels import LABELS

ClassifierModel = Literal["bookBert", "cosmo"]
InputOrder = Literal["visualText", "textVisual"]
DEFAULT_OVERLAP = 64


class ClassifierConfig(BaseModel):
    """Sizes of a sequence model. Names are those of the reference's constructors, so that its own settings fit.

    `max_pages` is the length of the position table in pages: longer books are read in windows. `hidden_dim` is the
    width of cosmo's last layers and unused by bookBert; `projection_dim` is bookBert's feed-forward width and unused
    by cosmo.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    visual_feature_dim: int = Field(default=1152, ge=1)
    textual_feature_dim: int = Field(default=1024, ge=1)
    bert_input_dim: int = Field(default=768, ge=1)
    projection_dim: int = Field(default=1024, ge=1)
    hidden_dim: int = Field(default=256, ge=4)
    num_attention_heads: int = Field(default=4, ge=1)
    num_hidden_layers: int = Field(default=4, ge=1)
    positional_embeddings: Literal["absolute", "learned", "none"] = "absolute"
    dropout_p: float = Field(default=0.4, ge=0, lt=1)
    max_pages: int = Field(default=512, ge=2)
    labels: tuple[str, ...] = Field(default=LABELS, min_length=2)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.bert_input_dim % self.num_attention_heads:
            raise ValueError("bert_input_dim must be a multiple of num_attention_heads")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must differ from one another")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierSettings:
    """A classifier as a job asks for it. `checkpoint` and `config` are local files, `digest` that of the checkpoint."""

    checkpoint: Path
    model: ClassifierModel = "bookBert"
    config: Path | None = None
    digest: str | None = None
    input_order: InputOrder = "visualText"
    window_overlap: int = DEFAULT_OVERLAP
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1


def default_config(model: ClassifierModel) -> ClassifierConfig:
    """The sizes of the reference checkpoints."""
    return ClassifierConfig(hidden_dim=512, dropout_p=0.3) if model == "cosmo" else ClassifierConfig()


def read_config(settings: ClassifierSettings) -> ClassifierConfig:
    """The sizes that a job's file gives, or the defaults. Raises: InvalidSpecError naming the first thing wrong."""
    if settings.config is None:
        return default_config(settings.model)
    defaults = default_config(settings.model).model_dump()
    try:
        given: object = json.loads(settings.config.read_bytes())
        if not isinstance(given, dict):
            raise InvalidSpecError(f"classify.config: {settings.config} is no JSON object")
        return ClassifierConfig.model_validate({**defaults, **given})
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InvalidSpecError(f"classify.config: {settings.config} cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InvalidSpecError(
            f"classify.config: {settings.config}: {place}: {first['msg']}",
            advice=f"known fields are {_shown(list(ClassifierConfig.model_fields))}",
        ) from error


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names)
