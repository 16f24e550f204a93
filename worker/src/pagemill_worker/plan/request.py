"""What the planner is asked for, free of the API's models, so that tests and other callers need no job.

Layer: `worker.plan`; pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pagemill_core.api.v1alpha1.source import PICTURE_PATTERNS
from pagemill_worker.items import PlannedItem

ManifestFormat = Literal["auto", "csv", "jsonLines", "parquet"]
ListingOrder = Literal["codePoint", "natural"]
Folding = Literal["none", "case", "normal", "caseAndNormal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRequest:
    """A table of items. `uri` is a local path, file:// or s3://; at most one of `path_prefix` and `bucket` is set."""

    uri: str
    id_column: str = "canonical_id"
    path_column: str = "absolute_image_path"
    path_prefix: str = ""
    bucket: str = ""
    format: ManifestFormat = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesRequest:
    """All pictures of a folder or of an s3:// prefix. `include` and `exclude` are globs, letter case ignored.

    `own_output_uri` and `own_prefixes` say where this job writes, so that its results are never read as input:
    everything below the output when it lies inside the input, and only the prefixes when both are the same place.
    """

    uri: str
    include: tuple[str, ...] = PICTURE_PATTERNS
    exclude: tuple[str, ...] = ()
    recursive: bool = True
    order: ListingOrder = "codePoint"
    own_output_uri: str = ""
    own_prefixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsRequest:
    """Items that are already known, such as the failed ones of an earlier run; `row` and `failure` are ignored.

    `columns` maps the source's own further columns to their types, as the earlier run knew them.
    """

    items: Iterable[PlannedItem]
    uri: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)


SourceRequest = ManifestRequest | ImagesRequest | ItemsRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRules:
    """The keys that items' views will have: `prefix/` + id + each of `suffixes`, below `root` of the bucket.

    `folding` says which different names the target takes for one: a folder on a Mac or on Windows does.
    """

    prefix: str = ""
    suffixes: tuple[str, ...] = ("",)
    root: str = ""
    folding: Folding = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class CutOptions:
    """How to cut. `items_per_shard` is the user's own number and is kept exactly; None: by estimated seconds.

    `slots` is how many processes will work at once; with it a small job is cut fine enough to keep all of them busy.
    """

    items_per_shard: int | None = None
    target_seconds: float = 120.0
    seconds_per_item: float = 2.0
    slots: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """One planning. `max_items` keeps the first items of the plan alone."""

    source: SourceRequest
    keys: KeyRules = KeyRules()
    cut: CutOptions = CutOptions()
    max_items: int | None = None
