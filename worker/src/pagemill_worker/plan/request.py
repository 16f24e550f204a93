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
    """A table of items. `uri` is a local path, file:// or s3://; at most one of `path_prefix` and `bucket` is set.

    `columns_field` is what messages about a missing column tell the user to set.
    """

    uri: str
    id_column: str = "canonical_id"
    path_column: str = "absolute_image_path"
    path_prefix: str = ""
    bucket: str = ""
    format: ManifestFormat = "auto"
    columns_field: str = "spec.source.manifest.idColumn and pathColumn"


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

    `columns` maps the source's own further columns to their types, as the earlier run knew them. `is_paged`: a file of
    several pages among them that was not counted before is counted now.
    """

    items: Iterable[PlannedItem]
    uri: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    is_paged: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class BooksRequest:
    """Folders of pages below `uri`, one item each: those that `annotations` lists, or every folder that holds a page.

    `text_uri` is where `<book>/<page stem>.json` lies when not beside the pages.
    """

    uri: str
    annotations: str = ""
    text_uri: str = ""
    order: ListingOrder = "codePoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRequest:
    """Shards of img2dataset (Parquet) or WebDataset (tar) below `uri`, one item a row.

    `own_output_uri` and `own_prefixes` are as in `ImagesRequest`. `with_captions`: captions are encoded too, and a row
    without one cannot be.
    """

    uri: str
    with_captions: bool = False
    own_output_uri: str = ""
    own_prefixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TextsRequest:
    """One text a row of a table, or of all tables below a folder; without `id_column` ids are file and row number."""

    uri: str
    column: str = "text"
    id_column: str = ""
    own_output_uri: str = ""
    own_prefixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OcrOutputRequest:
    """Pages and text of the OcrJob whose output is `uri`, one item a page or, with `by_folder`, a book a folder of ids.

    `as_reference_json`: texts are the OCRResult of the page as JSON, not the text itself.
    """

    uri: str
    by_folder: bool = False
    as_reference_json: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedBooksRequest:
    """The books whose visual/ and text/ tensors an EmbeddingJob has written to `uri`."""

    uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorsRequest:
    """Partitions of tensors below `uri`, dealt over `world_size` ranks (None: one rank a partition).

    `rows_per_item` cuts partitions whose row count can be told into ranges of that many rows; None never cuts.
    """

    uri: str
    pattern: str = "*.pt"
    order: ListingOrder = "codePoint"
    rows_per_item: int | None = None
    world_size: int | None = None


SourceRequest = (
    ManifestRequest
    | ImagesRequest
    | ItemsRequest
    | BooksRequest
    | DatasetRequest
    | TextsRequest
    | OcrOutputRequest
    | FinishedBooksRequest
    | TensorsRequest
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRules:
    """The keys that items' views will have: `prefix/` + id + each of `suffixes`, below `root` of the bucket.

    `folding` says which different names the target takes for one: a folder on a Mac or on Windows does.
    `are_keys` is false where no view is named after an item: then an id may be any text but an empty one.
    """

    are_keys: bool = True
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
