"""Which model makes the vectors, and how its answer becomes a row.

Layer: `core.api`. Loading is the worker's; what may be loaded (`trust`) is said here, per job, never by default.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pagemill_core.api.v1alpha1.base import ApiModel
from pagemill_core.api.v1alpha1.engine import Device
from pagemill_core.api.v1alpha1.types import CountOrAuto, Digest, ModelUri, Text, Word

Trust = Literal["none", "python", "pickle"]
Pooling = Literal["pooler", "projection", "cls", "mean", "lastToken"]
Normalize = Literal["none", "l2"]
Dtype = Literal["float32", "float16"]
Precision = Literal["auto", "float32", "bfloat16", "float16", "int8"]
TextFormat = Literal["referenceJson", "plainText"]
OnTooLong = Literal["truncate", "fail", "window"]


class ModelRef(ApiModel):
    """A model: by name from the registry, or by address with what is needed to trust it."""

    name: Text | None = Field(default=None, description="A model of config/models; `pagemill models list` shows them.")
    uri: ModelUri | None = Field(
        default=None, description="A folder or prefix with the model's files, or hf://organisation/model."
    )
    revision: Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z._/-]*$", max_length=128)] | None = Field(
        default=None, description="The pinned revision of a hub model."
    )
    digest: Digest | None = Field(default=None, description="Digest of the model's files; checked before loading.")
    loader: Word | None = Field(
        default=None,
        description="How it is loaded: openClip, transformers, sentenceTransformers, modelImpl, or a plug-in's name. "
        "Default: told from the files.",
    )
    trust: Trust | None = Field(
        default=None,
        description="none: safetensors and plain weights only. python: code in the model's folder may run. pickle: "
        "pickled objects may be loaded. Both need digest. Default none.",
    )

    @property
    def effective_trust(self) -> Trust:
        """What the model's files may do when loaded."""
        return "none" if self.trust is None else self.trust


class Encoder(ApiModel):
    """What encoders of pictures and of text share."""

    model: ModelRef = Field(description="The model.")
    pooling: Pooling | None = Field(
        default=None, description="How a row is taken from the model's output. Default: as the model's own files say."
    )
    normalize: Normalize | None = Field(
        default=None, description="l2 scales each row to length 1. Default l2; none for the visual rows of books."
    )
    dtype: Dtype | None = Field(default=None, description="Number format of the rows. Default float32.")
    dimensions: int | None = Field(
        default=None, ge=1, le=65_536, description="Cut rows to this length (Matryoshka models). Default: the model's."
    )
    precision: Precision | None = Field(
        default=None, description="Arithmetic of the model; auto is resolved from the pool when planning. Default auto."
    )
    batch_size: CountOrAuto | None = Field(
        default=None, description="Items given to the model at once, or auto: as memory allows. Default auto."
    )
    device: Device | None = Field(default=None, description="auto takes a GPU where the pool has one. Default auto.")

    @property
    def effective_dtype(self) -> Dtype:
        """Number format of the rows."""
        return "float32" if self.dtype is None else self.dtype

    @property
    def effective_precision(self) -> Precision:
        """Arithmetic of the model."""
        return "auto" if self.precision is None else self.precision

    @property
    def effective_batch_size(self) -> int | str:
        """Items given to the model at once, or the word `auto`."""
        return "auto" if self.batch_size is None else self.batch_size

    @property
    def effective_device(self) -> Device:
        """Where the model computes."""
        return "auto" if self.device is None else self.device


class VisualEncoder(Encoder):
    """How pictures become rows."""


class TextEncoder(Encoder):
    """How text becomes rows."""

    format: TextFormat | None = Field(
        default=None,
        description="referenceJson: json.dumps of a page's OCRResult, escapes included. plainText: the text itself. "
        "Default referenceJson for books, else plainText.",
    )
    on_too_long: OnTooLong | None = Field(
        default=None,
        description="What to do with text over the model's length; cut text is flagged and counted. Default truncate.",
    )
    max_tokens: int | None = Field(
        default=None, ge=1, le=1_048_576, description="Tokens of a text at most. Default: the model's own limit."
    )
    prompt: Annotated[str, Field(max_length=2048)] | None = Field(
        default=None, description="Put in front of each text. Default: none."
    )

    @property
    def effective_on_too_long(self) -> OnTooLong:
        """What to do with text over the model's length."""
        return "truncate" if self.on_too_long is None else self.on_too_long

    @property
    def effective_prompt(self) -> str:
        """Put in front of each text."""
        return "" if self.prompt is None else self.prompt
