"""From a job's file to what the planner is asked for.

Layer: the top of `worker.plan`; pure. The only module here that knows the API's models.
"""

from __future__ import annotations

from dataclasses import dataclass

from pagemill_core.api.v1alpha1.jobs import EmbeddingJob, EmbeddingJobSpec, JobSpec, OcrJob, OcrJobSpec
from pagemill_core.api.v1alpha1.source import ImagesSource, ManifestSource
from pagemill_core.errors import InvalidSpecError
from pagemill_worker.plan.estimate import (
    SECONDS_PER_BOOK,
    SECONDS_PER_PICTURE,
    SECONDS_PER_ROW_RANGE,
    SECONDS_PER_TEXT,
    seconds_per_item,
)
from pagemill_worker.plan.request import (
    BooksRequest,
    CutOptions,
    DatasetRequest,
    FinishedBooksRequest,
    Folding,
    ImagesRequest,
    ItemsRequest,
    KeyRules,
    ManifestRequest,
    OcrOutputRequest,
    PlanRequest,
    SourceRequest,
    TensorsRequest,
    TextsRequest,
)
from pagemill_worker.plan.source_bytes import split_object
from pagemill_worker.views.registry import VIEW_FORMATS

# What an EmbeddingJob writes at the top of its output: never its own input. A table may be a file or a folder.
EMBEDDING_PREFIXES = (
    "dataset",
    "summary",
    "records",
    "visual",
    "text",
    "labels",
    "index",
    "embeddings.parquet",
    "failures.parquet",
)
# Items of a shard of tensors are row ranges of so many batches: large enough to hide what an item costs, and whole
# batches, so that cutting a partition changes no batch but its last.
BATCHES_PER_ITEM = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecContext:
    """What a job's file does not say: how many processes will work at once, what names the output's file system takes
    for one, the items that `source.retryOf` stands for (`plan.retry`), and seconds per item if they were measured.

    Where a job writes that the source names stands in the source itself by now (`JobEnvironment.absolute_job`).
    """

    slots: int = 1
    folding: Folding = "none"
    retry: ItemsRequest | None = None
    measured_seconds_per_item: float | None = None


def from_spec(job: OcrJob, context: SpecContext) -> PlanRequest:
    """The planner's request for an OcrJob.

    Raises: InvalidSpecError when results would be read as pages later.
    """
    spec = job.spec
    seconds = seconds_per_item(spec.effective_engine.effective_name)
    return PlanRequest(
        source=_source(spec, context),
        keys=_keys(spec, context),
        cut=_cut(spec, context, seconds),
        max_items=spec.max_items,
    )


def from_embedding_spec(job: EmbeddingJob, context: SpecContext) -> PlanRequest:
    """The planner's request for an EmbeddingJob that encodes, or that infers over tensors.

    Raises: InvalidSpecError when its source is finished tensors, which are not planned from a listing, or an OcrJob
    whose output nobody named.
    """
    spec = job.spec
    return PlanRequest(
        source=_embedding_source(spec, context),
        keys=_embedding_keys(spec, context),
        cut=_cut(spec, context, _expected_seconds(spec)),
        max_items=spec.max_items,
    )


def _cut(spec: JobSpec, context: SpecContext, expected_seconds: float) -> CutOptions:
    sharding = spec.effective_sharding
    measured = context.measured_seconds_per_item
    return CutOptions(
        items_per_shard=sharding.items_per_shard,
        target_seconds=float(sharding.effective_target_seconds_per_shard),
        seconds_per_item=expected_seconds if measured is None else measured,
        slots=context.slots,
    )


def _expected_seconds(spec: EmbeddingJobSpec) -> float:
    """What an item takes, before anything was measured."""
    if spec.has_books:
        return SECONDS_PER_BOOK
    if spec.inference is not None:
        return SECONDS_PER_ROW_RANGE
    return SECONDS_PER_TEXT if spec.visual is None else SECONDS_PER_PICTURE


def _source(spec: OcrJobSpec, context: SpecContext) -> SourceRequest:
    source = spec.source
    if source.manifest is not None:
        return _manifest(source.manifest)
    if source.images is not None:
        return _images(spec, source.images)
    if source.retry_of is not None and context.retry is not None:
        return context.retry
    raise InvalidSpecError("spec.source: name exactly one of manifest, images, retryOf")


def _embedding_source(spec: EmbeddingJobSpec, context: SpecContext) -> SourceRequest:
    source, output = spec.source, spec.output.uri
    if source.manifest is not None:
        return _manifest(source.manifest)
    if source.images is not None:
        return _pictures(source.images, output, EMBEDDING_PREFIXES)
    if source.retry_of is not None and context.retry is not None:
        return context.retry
    if source.dataset is not None:
        return DatasetRequest(
            uri=source.dataset.uri,
            with_captions=spec.text is not None,
            own_output_uri=output,
            own_prefixes=EMBEDDING_PREFIXES,
        )
    if source.texts is not None:
        return TextsRequest(
            uri=source.texts.uri,
            column=source.texts.effective_column,
            id_column=source.texts.id_column or "",
            own_output_uri=output,
            own_prefixes=EMBEDDING_PREFIXES,
        )
    return _grouped(spec)


def _grouped(spec: EmbeddingJobSpec) -> SourceRequest:
    """The sources whose items are more than a row."""
    source = spec.source
    if source.books is not None:
        return BooksRequest(
            uri=source.books.uri,
            annotations=source.books.annotations or "",
            text_uri=source.books.text_uri or "",
            order=source.books.effective_order,
        )
    if source.tensors is not None:
        inference = spec.inference
        rows = inference.effective_batch_size * BATCHES_PER_ITEM if inference else None
        return TensorsRequest(
            uri=source.tensors.uri,
            pattern=source.tensors.effective_pattern,
            order=source.tensors.effective_order,
            rows_per_item=rows if source.tensors.effective_split == "rows" else None,
            world_size=inference.world_size if inference else None,
        )
    if source.ocr_job is not None:
        uri = source.ocr_job.uri
        if not uri:
            raise _unknown_job("ocrJob", source.ocr_job.name or "")
        return OcrOutputRequest(
            uri=uri,
            by_folder=source.ocr_job.effective_group_by == "directory",
            as_reference_json=spec.effective_text_format == "referenceJson",
        )
    if source.embedding_job is not None and spec.classify is not None:
        if not source.embedding_job.uri:
            raise _unknown_job("embeddingJob", source.embedding_job.name or "")
        return FinishedBooksRequest(uri=source.embedding_job.uri)
    raise InvalidSpecError("spec.source: the finished tensors of an EmbeddingJob are for `classify`")


def _unknown_job(field: str, name: str) -> InvalidSpecError:
    return InvalidSpecError(
        f"spec.source.{field}.name: nobody knows where the job {name} writes",
        advice=f"write source.{field}.uri with that job's output.uri instead",
    )


def _manifest(manifest: ManifestSource) -> ManifestRequest:
    return ManifestRequest(
        uri=manifest.uri,
        id_column=manifest.effective_id_column,
        path_column=manifest.effective_path_column,
        path_prefix=manifest.path_prefix or "",
        bucket=manifest.bucket or "",
        format=manifest.format or "auto",
    )


def _images(spec: OcrJobSpec, images: ImagesSource) -> ImagesRequest:
    prefix = spec.output.effective_prefix
    if not prefix and spec.output.uri.rstrip("/") == images.uri.rstrip("/"):
        raise InvalidSpecError(
            "spec.output.prefix: with an empty prefix and the source's own uri, results would lie among the pages",
            advice="give output.prefix a name, or write somewhere else",
        )
    return _pictures(images, spec.output.uri, (prefix, "dataset"))


def _pictures(images: ImagesSource, output_uri: str, own_prefixes: tuple[str, ...]) -> ImagesRequest:
    return ImagesRequest(
        uri=images.uri,
        include=images.effective_include,
        exclude=images.effective_exclude,
        recursive=images.effective_recursive,
        own_output_uri=output_uri,
        own_prefixes=own_prefixes,
    )


def _keys(spec: OcrJobSpec, context: SpecContext) -> KeyRules:
    return KeyRules(
        prefix=spec.output.effective_prefix,
        suffixes=tuple(VIEW_FORMATS[name].suffix for name in spec.output.effective_formats),
        root=_key_root(spec.output.uri),
        folding=context.folding,
    )


def _embedding_keys(spec: EmbeddingJobSpec, context: SpecContext) -> KeyRules:
    """Books have files of their own; every other item is a row of a table, whatever its id."""
    if not spec.items_are_books:
        return KeyRules(are_keys=False)
    return KeyRules(
        prefix="records",  # the longest of visual, text, labels and records
        suffixes=(".pt", ".json"),
        root=_key_root(spec.output.uri),
        folding=context.folding,
    )


def _key_root(output_uri: str) -> str:
    place = split_object(output_uri)
    return place[1].strip("/") if place else ""
