"""Running a model of one's own over tensors, and classifying the pages of books.

Layer: `core.api`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pagemill_core.api.v1alpha1.base import ApiModel
from pagemill_core.api.v1alpha1.engine import Device
from pagemill_core.api.v1alpha1.models import Trust
from pagemill_core.api.v1alpha1.types import Digest, KeyPrefix, PythonClass, StoreUri, Text

Adapter = Literal["torchScript", "torchExport", "safetensors", "onnx", "pickle"]
ClassifierModel = Literal["bookBert", "cosmo"]
InputOrder = Literal["visualText", "textVisual"]


class Inference(ApiModel):
    """A tensor model over partitions: predictions in input order, and a report per rank."""

    adapter: Adapter = Field(description="How the weights are stored and called.")
    weights: StoreUri = Field(description="The file with the weights.")
    digest: Digest | None = Field(default=None, description="Digest of the weights; checked before loading.")
    model_class: PythonClass | None = Field(
        default=None, description="safetensors and pickle: the module's class, from an allowed package of the image."
    )
    trust: Trust | None = Field(
        default=None, description="pickle allows a pickled module and needs digest. Default none."
    )
    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=1_048_576,
        description="Rows given to the model at once; the last may be short. Default 512.",
    )
    world_size: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Ranks over which the partitions are dealt. Default: one a partition.",
    )
    result_path: KeyPrefix | None = Field(
        default=None, description="The folder below the output for the ranks' reports. Default results."
    )
    labels: Text | None = Field(
        default=None,
        description="Which tensor holds the true values: a key of the partition, or its position. Default: none, so no "
        "metrics.",
    )
    device: Device | None = Field(default=None, description="auto takes a GPU where the pool has one. Default auto.")

    @property
    def effective_trust(self) -> Trust:
        """What the weights may do when loaded."""
        return "none" if self.trust is None else self.trust

    @property
    def effective_batch_size(self) -> int:
        """Rows given to the model at once."""
        return 512 if self.batch_size is None else self.batch_size

    @property
    def effective_result_path(self) -> str:
        """The folder below the output for the ranks' reports."""
        return "results" if self.result_path is None else self.result_path

    @property
    def effective_device(self) -> Device:
        """Where the model computes."""
        return "auto" if self.device is None else self.device


class Classify(ApiModel):
    """A sequence model over the pages of each book, reading finished visual and text rows."""

    checkpoint: StoreUri = Field(description="The weights: a state_dict or safetensors file, loaded strictly.")
    model: ClassifierModel | None = Field(
        default=None,
        description="bookBert: one token per page. cosmo: two tokens per page, BERT layers. Default bookBert.",
    )
    config: StoreUri | None = Field(
        default=None, description="A JSON file with sizes and labels. Default: those of the reference checkpoints."
    )
    digest: Digest | None = Field(default=None, description="Digest of the checkpoint; checked before loading.")
    input_order: InputOrder | None = Field(
        default=None, description="Order of the two halves of a page's row. Default visualText."
    )
    window_overlap: Annotated[int, Field(ge=0, le=511)] | None = Field(
        default=None, description="Pages shared by neighbouring windows of books over the model's length. Default 64."
    )
    device: Device | None = Field(default=None, description="auto takes a GPU where the pool has one. Default auto.")

    @property
    def effective_model(self) -> ClassifierModel:
        """The kind of sequence model."""
        return "bookBert" if self.model is None else self.model

    @property
    def effective_input_order(self) -> InputOrder:
        """Order of the two halves of a page's row."""
        return "visualText" if self.input_order is None else self.input_order

    @property
    def effective_window_overlap(self) -> int:
        """Pages shared by neighbouring windows."""
        return 64 if self.window_overlap is None else self.window_overlap

    @property
    def effective_device(self) -> Device:
        """Where the model computes."""
        return "auto" if self.device is None else self.device
