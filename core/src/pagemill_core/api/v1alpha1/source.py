"""Where the items come from: exactly one kind of source per job.

Layer: `core.api`. Says what the user asked for; listing and parsing is the planner's.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pagemill_core.api.v1alpha1.base import ApiModel
from pagemill_core.api.v1alpha1.types import Listed, ListUri, ObjectName, RunId, StoreUri, Text

Order = Literal["codePoint", "natural"]
BadPages = Literal["Fail", "Drop"]
Patterns = Annotated[tuple[Text, ...], Listed(kind="set", max_length=64)]
SomePatterns = Annotated[tuple[Text, ...], Listed(kind="set", min_length=1, max_length=64)]

PICTURE_PATTERNS = ("*.bmp", "*.gif", "*.jpeg", "*.jpg", "*.pdf", "*.png", "*.tif", "*.tiff", "*.webp")


class PagedSource(ApiModel):
    """What sources of pictures share: PDF files and multi-page TIFFs become one item per page."""

    pdf_dpi: int | None = Field(
        default=None, ge=36, le=1200, description="Dots per inch at which PDF pages are drawn. Default 200."
    )

    @property
    def effective_pdf_dpi(self) -> int:
        """Dots per inch at which PDF pages are drawn."""
        return 200 if self.pdf_dpi is None else self.pdf_dpi


class ManifestSource(PagedSource):
    """A table with one row per item: CSV, JSON Lines or Parquet."""

    uri: StoreUri = Field(description="The table: s3://…, file:///…, or a path relative to the job's file.")
    format: Literal["csv", "jsonLines", "parquet"] | None = Field(
        default=None, description="How the table is written. Default: told from the name (.csv, .jsonl, .parquet)."
    )
    id_column: Text | None = Field(
        default=None, description="The column with the item's id, kept verbatim. Default canonical_id."
    )
    path_column: Text | None = Field(
        default=None,
        description="The column with the item's picture: s3://…, http(s)://… or a path. Default absolute_image_path.",
    )
    path_prefix: StoreUri | None = Field(
        default=None, description='Joined with exactly one "/" to paths that have no scheme and no leading "/".'
    )
    bucket: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,62}$",
        max_length=63,
        description="Set when the paths have the form bucket/key; paths without this bucket in front get it.",
    )

    @property
    def effective_id_column(self) -> str:
        """The column with the item's id."""
        return "canonical_id" if self.id_column is None else self.id_column

    @property
    def effective_path_column(self) -> str:
        """The column with the item's picture."""
        return "absolute_image_path" if self.path_column is None else self.path_column


class ImagesSource(PagedSource):
    """All pictures below a folder or prefix; an item's id is its relative path without the suffix."""

    uri: StoreUri = Field(description="The folder or prefix: s3://…, file:///…, or a path relative to the job's file.")
    include: SomePatterns | None = Field(
        default=None,
        description="File name patterns (*, ?, […]), letter case ignored. Default: every kind of picture and PDF.",
    )
    exclude: Patterns | None = Field(
        default=None, description="File name patterns to leave out, letter case ignored. Default: none."
    )
    recursive: bool | None = Field(default=None, description="Whether folders below are searched too. Default true.")

    @property
    def effective_include(self) -> tuple[str, ...]:
        """File name patterns, letter case ignored."""
        return PICTURE_PATTERNS if self.include is None else self.include

    @property
    def effective_exclude(self) -> tuple[str, ...]:
        """File name patterns to leave out, letter case ignored."""
        return () if self.exclude is None else self.exclude

    @property
    def effective_recursive(self) -> bool:
        """Whether folders below are searched too."""
        return True if self.recursive is None else self.recursive


class RetryOfSource(PagedSource):
    """Exactly the failed items of an earlier run on the same output; `pdfDpi` must be that run's."""

    run: RunId = Field(description="The run's id, such as 00000007-9c66e1f0; `pagemill runs` lists them.")


class BooksSource(ApiModel):
    """Books as folders of pages: <uri>/<hash_code>/*.png|jpg|jpeg, each page's OCR JSON beside it or under textUri."""

    uri: StoreUri = Field(description="The folder or prefix that holds one folder per book.")
    annotations: ListUri | None = Field(
        default=None,
        description="JSON list of objects; hash_code names a book, the rest comes along. Default: every folder below "
        "uri that directly holds a page is a book.",
    )
    text_uri: StoreUri | None = Field(
        default=None,
        description="Where <hash_code>/<page stem>.json lies, when not beside the pages. Default: beside the pages.",
    )
    order: Order | None = Field(
        default=None, description="Order of a book's pages by file name: codePoint or natural. Default codePoint."
    )
    bad_pages: BadPages | None = Field(
        default=None,
        description="Fail: a bad page fails its book, naming every bad page. Drop: the good pages are written with "
        "their page index. Default Fail.",
    )

    @property
    def effective_text_uri(self) -> str:
        """Where the pages' OCR JSON lies, one folder per book."""
        return self.uri if self.text_uri is None else self.text_uri

    @property
    def effective_order(self) -> Order:
        """Order of a book's pages by file name."""
        return "codePoint" if self.order is None else self.order

    @property
    def effective_bad_pages(self) -> BadPages:
        """What a bad page does to its book."""
        return "Fail" if self.bad_pages is None else self.bad_pages


class DatasetSource(ApiModel):
    """Shards of img2dataset (NNNNN.parquet with url, caption, key …) or WebDataset (NNNNN.tar), in name order."""

    uri: StoreUri = Field(description="The folder or prefix with the shards, searched recursively.")


class TextsSource(ApiModel):
    """One text per row of a Parquet, CSV or JSON Lines file, or of all such files below a prefix."""

    uri: StoreUri = Field(description="The file, or the folder or prefix with the files.")
    column: Text | None = Field(default=None, description="The column with the text. Default text.")
    id_column: Text | None = Field(
        default=None, description="The column with the row's id. Default: file name and row number."
    )

    @property
    def effective_column(self) -> str:
        """The column with the text."""
        return "text" if self.column is None else self.column


class TensorsSource(ApiModel):
    """Partitions of tensors (.pt files) for a model of one's own."""

    uri: StoreUri = Field(description="The folder or prefix with the partitions.")
    pattern: Text | None = Field(default=None, description="File name pattern of the partitions. Default *.pt.")
    order: Order | None = Field(
        default=None, description="Order of the partitions by name: codePoint or natural. Default codePoint."
    )
    split: Literal["rows", "files"] | None = Field(
        default=None,
        description="rows: large partitions are cut into row ranges. files: a partition is never cut. Default rows.",
    )

    @property
    def effective_pattern(self) -> str:
        """File name pattern of the partitions."""
        return "*.pt" if self.pattern is None else self.pattern

    @property
    def effective_order(self) -> Order:
        """Order of the partitions by name."""
        return "codePoint" if self.order is None else self.order

    @property
    def effective_split(self) -> Literal["rows", "files"]:
        """Whether large partitions are cut."""
        return "rows" if self.split is None else self.split


class OcrJobSource(ApiModel):
    """Pages and text of an OcrJob. Naming a job waits for it, as dependsOn does."""

    name: ObjectName | None = Field(default=None, description="An OcrJob of this namespace or of the same file.")
    uri: StoreUri | None = Field(default=None, description="An OcrJob's output, when the job itself is gone.")
    group_by: Literal["none", "directory"] | None = Field(
        default=None, description="directory: the pages of one folder become a book. Default none: one item a page."
    )
    bad_pages: BadPages | None = Field(
        default=None,
        description="What a page that could not be read or encoded does to its book, as in source.books. Default Fail.",
    )

    @property
    def effective_group_by(self) -> Literal["none", "directory"]:
        """How pages are grouped into items."""
        return "none" if self.group_by is None else self.group_by

    @property
    def effective_bad_pages(self) -> BadPages:
        """What a bad page does to its book."""
        return "Fail" if self.bad_pages is None else self.bad_pages


class EmbeddingJobSource(ApiModel):
    """Finished visual/ and text/ tensors of an EmbeddingJob. Naming a job waits for it, as dependsOn does."""

    name: ObjectName | None = Field(default=None, description="An EmbeddingJob of this namespace or of the same file.")
    uri: StoreUri | None = Field(default=None, description="An EmbeddingJob's output, when the job itself is gone.")


class OcrSource(ApiModel):
    """What an OcrJob reads: exactly one of the fields."""

    manifest: ManifestSource | None = Field(default=None, description="A table with one row per page.")
    images: ImagesSource | None = Field(default=None, description="All pictures and PDFs below a folder or prefix.")
    retry_of: RetryOfSource | None = Field(default=None, description="Exactly the failed items of an earlier run.")


class EmbeddingSource(ApiModel):
    """What an EmbeddingJob reads: exactly one of the fields."""

    books: BooksSource | None = Field(default=None, description="Books as folders of pages with OCR JSON.")
    images: ImagesSource | None = Field(default=None, description="All pictures below a folder or prefix.")
    manifest: ManifestSource | None = Field(default=None, description="A table with one row per picture.")
    dataset: DatasetSource | None = Field(default=None, description="Shards of img2dataset or WebDataset.")
    texts: TextsSource | None = Field(default=None, description="One text per row of a table.")
    tensors: TensorsSource | None = Field(default=None, description="Partitions of tensors, for spec.inference.")
    ocr_job: OcrJobSource | None = Field(default=None, description="Pages and text of an OcrJob.")
    embedding_job: EmbeddingJobSource | None = Field(
        default=None, description="Finished tensors of an EmbeddingJob, for spec.classify alone."
    )
    retry_of: RetryOfSource | None = Field(default=None, description="Exactly the failed items of an earlier run.")
