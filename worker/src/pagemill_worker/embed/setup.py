"""The first message to a child that encodes.

Layer: `worker.embed`; imports no machine-learning package, so whoever starts children needs none.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pagemill_core.storage.s3_settings import S3Settings
from pagemill_worker.embed.encoder import EncoderSettings, ModelSettings
from pagemill_worker.environment import reveal
from pagemill_worker.images.limits import ImageLimits
from pagemill_worker.stages.setup import ChainSetup

RUNNER = "pagemill_worker.embed.runner:make_runner"


class EmbedSetup(BaseModel):
    """What a child is told; holds secrets, so it travels through a pipe only.

    `prepare_threads` None: as many as the model's speed asks for. `gpu_share` is what of its GPU's memory it may
    take, `cores` those of the machine for each process.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    visual: dict[str, Any] | None
    text: dict[str, Any] | None
    text_format: Literal["referenceJson", "plainText"] = "plainText"
    bad_pages: Literal["Fail", "Drop"] = "Fail"
    is_books: bool = False
    classify: dict[str, Any] | None = None
    limits: dict[str, int]
    s3: dict[str, Any] = Field(repr=False)
    allowed_hosts: tuple[str, ...] = ()
    stages: ChainSetup = ChainSetup()
    prepare_threads: int | None = None
    gpu_share: float | None = None
    cores: int = 1

    @classmethod
    def of(
        cls, visual: EncoderSettings | None, text: EncoderSettings | None, limits: ImageLimits, s3: S3Settings
    ) -> EmbedSetup:
        """The set-up of plain rows; what books need besides is added by `model_copy`."""
        return cls(visual=_to_json(visual), text=_to_json(text), limits=dataclasses.asdict(limits), s3=reveal(s3))

    @property
    def encoders(self) -> tuple[EncoderSettings | None, EncoderSettings | None]:
        """The encoders' settings, of pictures and of texts."""
        return _from_json(self.visual), _from_json(self.text)


def setup_message(setup: EmbedSetup) -> dict[str, Any]:
    """The set-up message that makes a child an embedding runner."""
    return {"runner": RUNNER, "settings": setup.model_dump(mode="json")}


def _to_json(settings: EncoderSettings | None) -> dict[str, Any] | None:
    if settings is None:
        return None
    fields = dataclasses.asdict(settings)
    fields["model"]["cache"] = str(settings.model.cache)
    return fields


def _from_json(fields: dict[str, Any] | None) -> EncoderSettings | None:
    if fields is None:
        return None
    model = ModelSettings(**{**fields["model"], "cache": Path(fields["model"]["cache"])})
    return EncoderSettings(**{**fields, "model": model})
