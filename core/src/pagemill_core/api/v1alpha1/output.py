"""Where results go and in which forms.

Layer: `core.api`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pagemill_core.api.v1alpha1.base import ApiModel
from pagemill_core.api.v1alpha1.types import KeyPrefix, Listed, Ratio, StoreUri

Files = Literal["Single", "Partitioned"]
OnConflict = Literal["Refuse", "Replace"]
OcrFormat = Literal["json", "ocrResult", "hocr", "alto", "text", "pdf"]
EmbeddingFormat = Literal["bookTensors", "parquet", "faiss", "pt", "rankFiles", "labels"]
IndexKind = Literal["auto", "flat", "ivfPq", "hnsw"]


class Output(ApiModel):
    """What the outputs of both kinds share."""

    uri: StoreUri = Field(
        description="The folder or prefix that holds all results and Pagemill's own records (.pagemill/). On a cluster "
        "an object store that the operator reaches."
    )
    files: Files | None = Field(
        default=None,
        description="Single: one file per merged table. Partitioned: one file per run and part. Default Single; "
        "Partitioned when incremental.",
    )
    on_conflict: OnConflict | None = Field(
        default=None,
        description="What to do when the output belongs to other work or another fingerprint: Refuse, or Replace it. "
        "Default Refuse.",
    )

    @property
    def effective_on_conflict(self) -> OnConflict:
        """What to do when the output belongs to other work."""
        return "Refuse" if self.on_conflict is None else self.on_conflict


class OcrOutput(Output):
    """Where an OcrJob writes."""

    prefix: KeyPrefix | None = Field(
        default=None, description="The folder below uri for the pages' files. Default ocr_results."
    )
    formats: Annotated[tuple[OcrFormat, ...], Listed(kind="set", min_length=1, max_length=6)] | None = Field(
        default=None,
        description="json: <id>_ocr.json. ocrResult: the dialect that the books pipeline reads. hocr, alto, text, pdf: "
        "derived from the same data. Default [json].",
    )

    @property
    def effective_prefix(self) -> str:
        """The folder below uri for the pages' files; empty for none."""
        return "ocr_results" if self.prefix is None else self.prefix

    @property
    def effective_formats(self) -> tuple[OcrFormat, ...]:
        """The forms in which each page is written."""
        return ("json",) if self.formats is None else self.formats


class SearchIndex(ApiModel):
    """How the search index is built when formats holds faiss."""

    kind: IndexKind | None = Field(
        default=None, description="auto: flat (exact) while that is fast, else a compressed index. Default auto."
    )
    min_recall: Ratio | None = Field(
        default=None,
        description='Recall at 10 that an index which is not exact must reach on a sample. Default "0.95".',
    )

    @property
    def effective_kind(self) -> IndexKind:
        """The kind of index."""
        return "auto" if self.kind is None else self.kind

    @property
    def effective_min_recall(self) -> str:
        """Recall at 10 against exact search, a decimal string from 0 to 1."""
        return "0.95" if self.min_recall is None else self.min_recall


class EmbeddingOutput(Output):
    """Where an EmbeddingJob writes."""

    formats: Annotated[tuple[EmbeddingFormat, ...], Listed(kind="set", min_length=1, max_length=6)] | None = Field(
        default=None,
        description="bookTensors: visual/ and text/ .pt per book. parquet: embeddings.parquet and metadata.json. "
        "faiss: a search index. pt, rankFiles: predictions as tensors, a report per rank. labels: classified pages. "
        "Default: bookTensors for books, parquet and rankFiles for inference, labels for classify alone, else parquet.",
    )
    index: SearchIndex | None = Field(default=None, description="How the search index is built.")

    @property
    def effective_index(self) -> SearchIndex:
        """How the search index is built."""
        return SearchIndex() if self.index is None else self.index
