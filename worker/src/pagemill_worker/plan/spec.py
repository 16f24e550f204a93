"""From an OcrJob to what the planner is asked for.

Layer: the top of `worker.plan`; pure. The only module here that knows the API's models.
"""

from __future__ import annotations

from dataclasses import dataclass

from pagemill_core.api.v1alpha1.jobs import OcrJob, OcrJobSpec
from pagemill_core.api.v1alpha1.source import ImagesSource
from pagemill_core.errors import InvalidSpecError
from pagemill_worker.plan.estimate import seconds_per_item
from pagemill_worker.plan.request import (
    CutOptions,
    Folding,
    ImagesRequest,
    ItemsRequest,
    KeyRules,
    ManifestRequest,
    PlanRequest,
    SourceRequest,
)
from pagemill_worker.plan.source_bytes import split_object
from pagemill_worker.views.registry import VIEW_FORMATS


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecContext:
    """What a job's file does not say: how many processes will work at once, what names the output's file system takes
    for one, the items that `source.retryOf` stands for (`plan.retry`), and seconds per item if they were measured.
    """

    slots: int = 1
    folding: Folding = "none"
    retry: ItemsRequest | None = None
    measured_seconds_per_item: float | None = None


def from_spec(job: OcrJob, context: SpecContext) -> PlanRequest:
    """The planner's request for a job.

    Raises: InvalidSpecError when results would be read as pages later, or for stages, which nothing runs yet.
    """
    spec = job.spec
    if spec.effective_stages:
        raise InvalidSpecError(
            "spec.stages: this release runs its own stages only, and sizes them itself", advice="remove spec.stages"
        )
    sharding = spec.effective_sharding
    seconds = context.measured_seconds_per_item
    return PlanRequest(
        source=_source(spec, context),
        keys=_keys(spec, context),
        cut=CutOptions(
            items_per_shard=sharding.items_per_shard,
            target_seconds=float(sharding.effective_target_seconds_per_shard),
            seconds_per_item=seconds_per_item(spec.effective_engine.effective_name) if seconds is None else seconds,
            slots=context.slots,
        ),
        max_items=spec.max_items,
    )


def _source(spec: OcrJobSpec, context: SpecContext) -> SourceRequest:
    source = spec.source
    if source.manifest is not None:
        return ManifestRequest(
            uri=source.manifest.uri,
            id_column=source.manifest.effective_id_column,
            path_column=source.manifest.effective_path_column,
            path_prefix=source.manifest.path_prefix or "",
            bucket=source.manifest.bucket or "",
            format=source.manifest.format or "auto",
        )
    if source.images is not None:
        return _images(spec, source.images)
    if source.retry_of is not None and context.retry is not None:
        return context.retry
    raise InvalidSpecError("spec.source: name exactly one of manifest, images, retryOf")


def _images(spec: OcrJobSpec, images: ImagesSource) -> ImagesRequest:
    prefix = spec.output.effective_prefix
    if not prefix and spec.output.uri.rstrip("/") == images.uri.rstrip("/"):
        raise InvalidSpecError(
            "spec.output.prefix: with an empty prefix and the source's own uri, results would lie among the pages",
            advice="give output.prefix a name, or write somewhere else",
        )
    return ImagesRequest(
        uri=images.uri,
        include=images.effective_include,
        exclude=images.effective_exclude,
        recursive=images.effective_recursive,
        own_output_uri=spec.output.uri,
        own_prefixes=(prefix, "dataset"),
    )


def _keys(spec: OcrJobSpec, context: SpecContext) -> KeyRules:
    place = split_object(spec.output.uri)
    return KeyRules(
        prefix=spec.output.effective_prefix,
        suffixes=tuple(VIEW_FORMATS[name].suffix for name in spec.output.effective_formats),
        root=place[1].strip("/") if place else "",
        folding=context.folding,
    )
