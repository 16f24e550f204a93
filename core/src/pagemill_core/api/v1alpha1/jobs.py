"""The two kinds, OcrJob and EmbeddingJob.

Layer: `core.api`. Fields shared by both specs stand in `JobSpec`; which of them may change when is said in
`core.api.mutability`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import Field

from pagemill_core.api.v1alpha1.base import ApiModel
from pagemill_core.api.v1alpha1.engine import Engine
from pagemill_core.api.v1alpha1.inference import Classify, Inference
from pagemill_core.api.v1alpha1.limits import Budget, Dependency, Retries, Sharding
from pagemill_core.api.v1alpha1.metadata import ObjectMeta
from pagemill_core.api.v1alpha1.models import Normalize, TextEncoder, TextFormat, VisualEncoder
from pagemill_core.api.v1alpha1.output import EmbeddingFormat, EmbeddingOutput, Files, OcrOutput, Output
from pagemill_core.api.v1alpha1.source import BadPages, EmbeddingSource, OcrSource
from pagemill_core.api.v1alpha1.status import JobStatus
from pagemill_core.api.v1alpha1.storage import Storage
from pagemill_core.api.v1alpha1.types import Listed
from pagemill_core.api.v1alpha1.workers import Stage, Stages, Workers

API_VERSION: Final = "pagemill.dev/v1alpha1"
Dependencies = Annotated[tuple[Dependency, ...], Listed(max_length=16)]


class JobSpec(ApiModel):
    """What both kinds have."""

    storage: Storage | None = Field(default=None, description="How the object store is reached. Default: AWS.")
    workers: Workers = Field(default=Workers(), description="Who does the work.")
    stages: Stages | None = Field(
        default=None, description="Stages to size, to retry or to add; the rest stays automatic. Default: none."
    )
    sharding: Sharding | None = Field(default=None, description="How items are cut into shards. Default: automatic.")
    retries: Retries | None = Field(default=None, description="How often what fails is tried again.")
    budget: Budget | None = Field(default=None, description="What the job may cost. Default: no limit.")
    deadline_seconds: int | None = Field(
        default=None, ge=1, le=31_536_000, description="Seconds of work after which the job stops. Default: no limit."
    )
    max_items: int | None = Field(
        default=None, ge=1, le=1_000_000_000, description="Only the first items: a trial run. Default: all."
    )
    suspend: bool | None = Field(default=None, description="true: pods finish their item and stop. Default false.")
    incremental: bool | None = Field(
        default=None, description="true: only what is new or changed since earlier runs on this output. Default false."
    )
    depends_on: Dependencies | None = Field(
        default=None, description="Jobs that must be complete before this one starts. Default: none."
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None,
        ge=0,
        le=315_360_000,
        description="Seconds after which a finished job's object is deleted; results stay. Default: never.",
    )

    @property
    def effective_storage(self) -> Storage:
        """How the object store is reached."""
        return Storage() if self.storage is None else self.storage

    @property
    def effective_stages(self) -> tuple[Stage, ...]:
        """Stages to size, to retry or to add."""
        return () if self.stages is None else self.stages

    @property
    def effective_sharding(self) -> Sharding:
        """How items are cut into shards."""
        return Sharding() if self.sharding is None else self.sharding

    @property
    def effective_retries(self) -> Retries:
        """How often what fails is tried again."""
        return Retries() if self.retries is None else self.retries

    @property
    def effective_suspend(self) -> bool:
        """Whether the job is paused."""
        return False if self.suspend is None else self.suspend

    @property
    def effective_incremental(self) -> bool:
        """Whether only what is new or changed is done."""
        return False if self.incremental is None else self.incremental

    def files_of(self, output: Output) -> Files:
        """Whether merged tables are one file or one per run; incremental runs only ever add files."""
        if output.files is not None:
            return output.files
        return "Partitioned" if self.effective_incremental else "Single"


class OcrWork(ApiModel):
    """What the work of an OcrJob is. A base of its own, so that these fields come first everywhere."""

    source: OcrSource = Field(description="What is read: exactly one of its fields.")
    engine: Engine | None = Field(default=None, description="The OCR engine. Default: rapidocr, English.")
    output: OcrOutput = Field(description="Where results go.")


class EmbeddingWork(ApiModel):
    """What the work of an EmbeddingJob is. A base of its own, so that these fields come first everywhere."""

    source: EmbeddingSource = Field(description="What is read: exactly one of its fields.")
    visual: VisualEncoder | None = Field(default=None, description="How pictures become rows.")
    text: TextEncoder | None = Field(default=None, description="How text becomes rows.")
    inference: Inference | None = Field(default=None, description="A tensor model over source.tensors.")
    classify: Classify | None = Field(default=None, description="A sequence model over the pages of each book.")
    output: EmbeddingOutput = Field(description="Where results go.")


class OcrJobSpec(JobSpec, OcrWork):
    """What to read, with which engine, and where to write."""

    @property
    def effective_engine(self) -> Engine:
        """The OCR engine."""
        return Engine() if self.engine is None else self.engine

    @property
    def effective_files(self) -> Files:
        """Whether merged tables are one file or one per run."""
        return self.files_of(self.output)

    @property
    def contextual_defaults(self) -> Mapping[str, object]:
        """Defaults that depend on other parts of the spec, by dotted path; the work key leaves equal values out."""
        return {"output.files": self.files_of(OcrOutput(uri=self.output.uri))}

    @property
    def source_job(self) -> None:
        """The job whose output is the source: an OcrJob reads no job's output."""
        return None

    @property
    def all_dependencies(self) -> tuple[Dependency, ...]:
        """Jobs that must be complete before this one starts."""
        return () if self.depends_on is None else self.depends_on


class EmbeddingJobSpec(JobSpec, EmbeddingWork):
    """What to encode, with which models, and where to write."""

    @property
    def has_books(self) -> bool:
        """Whether an item is a book whose pages are encoded, each side into a tensor."""
        ocr_job = self.source.ocr_job
        return self.source.books is not None or (ocr_job is not None and ocr_job.effective_group_by == "directory")

    @property
    def items_are_books(self) -> bool:
        """Whether an item is a book: a folder of pages, or the tensors that an earlier job made of one."""
        return self.has_books or self.source.embedding_job is not None

    @property
    def effective_bad_pages(self) -> BadPages:
        """What a bad page does to its book."""
        books = self.source.books or self.source.ocr_job
        return "Fail" if books is None else books.effective_bad_pages

    @property
    def default_visual_normalize(self) -> Normalize:
        """Books keep the model's own length, as the reference tensors do; everything else has length 1."""
        return "none" if self.has_books else "l2"

    @property
    def default_text_format(self) -> TextFormat:
        """Books embed the page's JSON, as the reference does; everything else the text itself."""
        return "referenceJson" if self.has_books else "plainText"

    @property
    def default_formats(self) -> tuple[EmbeddingFormat, ...]:
        """What is written when `output.formats` is not given."""
        if self.inference is not None:
            return ("parquet", "rankFiles")
        if self.visual is None and self.text is None:
            return ("labels",)
        if not self.has_books:
            return ("parquet",)
        return ("bookTensors",) if self.classify is None else ("bookTensors", "labels")

    @property
    def effective_visual_normalize(self) -> Normalize:
        """Whether visual rows are scaled to length 1."""
        given = self.visual.normalize if self.visual is not None else None
        return self.default_visual_normalize if given is None else given

    @property
    def effective_text_normalize(self) -> Normalize:
        """Whether text rows are scaled to length 1."""
        given = self.text.normalize if self.text is not None else None
        return "l2" if given is None else given

    @property
    def effective_text_format(self) -> TextFormat:
        """How a page's text is given to the model."""
        given = self.text.format if self.text is not None else None
        return self.default_text_format if given is None else given

    @property
    def effective_formats(self) -> tuple[EmbeddingFormat, ...]:
        """What is written."""
        return self.default_formats if self.output.formats is None else self.output.formats

    @property
    def effective_files(self) -> Files:
        """Whether merged tables are one file or one per run."""
        return self.files_of(self.output)

    @property
    def contextual_defaults(self) -> Mapping[str, object]:
        """Defaults that depend on other parts of the spec, by dotted path; the work key leaves equal values out."""
        return {
            "output.files": self.files_of(EmbeddingOutput(uri=self.output.uri)),
            "output.formats": self.default_formats,
            "visual.normalize": self.default_visual_normalize,
            "text.normalize": "l2",
            "text.format": self.default_text_format,
        }

    @property
    def source_job(self) -> Dependency | None:
        """The job whose output is the source, when the source names a job."""
        ocr, embedding = self.source.ocr_job, self.source.embedding_job
        if ocr is not None and ocr.name is not None:
            return Dependency(kind="OcrJob", name=ocr.name)
        if embedding is not None and embedding.name is not None:
            return Dependency(kind="EmbeddingJob", name=embedding.name)
        return None

    @property
    def all_dependencies(self) -> tuple[Dependency, ...]:
        """Jobs that must be complete before this one starts, the one that the source names among them."""
        found = () if self.depends_on is None else self.depends_on
        named = self.source_job
        return tuple(dict.fromkeys(found if named is None else (*found, named)))


class OcrJob(ApiModel):
    """Reads text from page images: every input once, results in the user's own store."""

    api_version: Literal["pagemill.dev/v1alpha1"] = Field(default=API_VERSION, description="The API's version.")
    kind: Literal["OcrJob"] = Field(default="OcrJob", description="The kind.")
    metadata: ObjectMeta = Field(description="Name, namespace and labels.")
    spec: OcrJobSpec = Field(description="What to do.")
    status: JobStatus | None = Field(default=None, description="What is known of the progress.")


class EmbeddingJob(ApiModel):
    """Turns pictures, text, books and tensors into vectors, predictions and labels."""

    api_version: Literal["pagemill.dev/v1alpha1"] = Field(default=API_VERSION, description="The API's version.")
    kind: Literal["EmbeddingJob"] = Field(default="EmbeddingJob", description="The kind.")
    metadata: ObjectMeta = Field(description="Name, namespace and labels.")
    spec: EmbeddingJobSpec = Field(description="What to do.")
    status: JobStatus | None = Field(default=None, description="What is known of the progress.")


Job = OcrJob | EmbeddingJob
KINDS: Mapping[str, type[OcrJob] | type[EmbeddingJob]] = {"OcrJob": OcrJob, "EmbeddingJob": EmbeddingJob}
SPECS: Mapping[str, type[JobSpec]] = {"OcrJob": OcrJobSpec, "EmbeddingJob": EmbeddingJobSpec}
