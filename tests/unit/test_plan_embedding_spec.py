"""From an EmbeddingJob's file to the planner's request."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pagemill_core.api.v1alpha1.jobs import EmbeddingJob
from pagemill_core.api.v1alpha1.source import EmbeddingSource
from pagemill_core.errors import InvalidSpecError
from pagemill_worker.plan.request import (
    BooksRequest,
    DatasetRequest,
    ImagesRequest,
    ItemsRequest,
    KeyRules,
    ManifestRequest,
    OcrOutputRequest,
    SourceRequest,
    TensorsRequest,
    TextsRequest,
)
from pagemill_worker.plan.spec import EMBEDDING_PREFIXES, SpecContext, from_embedding_spec

OUT = "s3://library/out/vectors"
VISUAL = {"visual": {"model": {"name": "m"}}}
TEXT = {"text": {"model": {"name": "t"}}}
INFERENCE = {"inference": {"adapter": "torchScript", "weights": "m.ts", "batchSize": 100, "worldSize": 7}}


def job(source: dict[str, Any], **spec: Any) -> EmbeddingJob:
    body = {"source": source, "output": {"uri": OUT}, **spec}
    return EmbeddingJob.model_validate({"metadata": {"name": "vectors"}, "spec": body})


WANTED: dict[str, tuple[dict[str, Any], dict[str, Any], SourceRequest]] = {
    "manifest": ({"manifest": {"uri": "m.csv"}}, VISUAL, ManifestRequest(uri="m.csv")),
    "images": (
        {"images": {"uri": "s3://library/pics", "include": ["*.png"]}},
        VISUAL,
        ImagesRequest(uri="s3://library/pics", include=("*.png",), own_output_uri=OUT, own_prefixes=EMBEDDING_PREFIXES),
    ),
    "dataset": (
        {"dataset": {"uri": "s3://library/laion/"}},
        VISUAL,
        DatasetRequest(uri="s3://library/laion/", own_output_uri=OUT, own_prefixes=EMBEDDING_PREFIXES),
    ),
    "texts": (
        {"texts": {"uri": "t.parquet", "column": "body", "idColumn": "id"}},
        TEXT,
        TextsRequest(
            uri="t.parquet", column="body", id_column="id", own_output_uri=OUT, own_prefixes=EMBEDDING_PREFIXES
        ),
    ),
    "books": (
        {
            "books": {
                "uri": "s3://library/books",
                "annotations": "https://host/list.json",
                "textUri": "ocr",
                "order": "natural",
            }
        },
        VISUAL | TEXT,
        BooksRequest(uri="s3://library/books", annotations="https://host/list.json", text_uri="ocr", order="natural"),
    ),
    "books unlisted": ({"books": {"uri": "books"}}, VISUAL | TEXT, BooksRequest(uri="books")),
    "ocr pages": ({"ocrJob": {"uri": "s3://library/ocr"}}, VISUAL | TEXT, OcrOutputRequest(uri="s3://library/ocr")),
    "ocr books": (
        {"ocrJob": {"uri": "s3://library/ocr", "groupBy": "directory", "badPages": "Drop"}},
        VISUAL | TEXT,
        OcrOutputRequest(uri="s3://library/ocr", by_folder=True, as_reference_json=True),
    ),
    "tensors": (
        {"tensors": {"uri": "p", "pattern": "[0-9]*.pt", "order": "natural"}},
        INFERENCE,
        TensorsRequest(uri="p", pattern="[0-9]*.pt", order="natural", rows_per_item=800, world_size=7),
    ),
    "tensors whole": (
        {"tensors": {"uri": "p", "split": "files"}},
        INFERENCE,
        TensorsRequest(uri="p", world_size=7),
    ),
}


@pytest.mark.parametrize("name", WANTED)
def test_embedding_spec_source_is_carried_over(name: str) -> None:
    source, further, want = WANTED[name]
    request = from_embedding_spec(job(source, **further, maxItems=9), SpecContext(slots=3))
    assert request.source == want
    assert (request.max_items, request.cut.slots) == (9, 3)


@pytest.mark.parametrize("name", ["books", "dataset"])
def test_embedding_spec_only_books_have_ids_that_are_keys(name: str) -> None:
    source, further, _ = WANTED[name]
    keys = from_embedding_spec(job(source, **further), SpecContext(folding="case")).keys
    books = KeyRules(prefix="records", suffixes=(".pt", ".json"), root="out/vectors", folding="case")
    assert keys == (books if name == "books" else KeyRules(are_keys=False))


def test_embedding_spec_retry_takes_the_items_of_the_context() -> None:
    retry = ItemsRequest(items=[], uri="run 1")
    asked = job({"retryOf": {"run": "00000001-9c66e1f0"}}, **VISUAL)
    assert from_embedding_spec(asked, SpecContext(retry=retry)).source is retry


def test_embedding_spec_job_nobody_knows_is_refused() -> None:
    with pytest.raises(InvalidSpecError, match=r"spec\.source\.ocrJob\.name") as caught:
        from_embedding_spec(job({"ocrJob": {"name": "scan"}}, **VISUAL, **TEXT), SpecContext())
    assert "source.ocrJob.uri" in caught.value.advice


@pytest.mark.parametrize("uri", ["ftp://host/list.json", "http://", "s3://"])
def test_embedding_spec_annotations_of_other_schemes_are_refused(uri: str) -> None:
    with pytest.raises(ValidationError):
        job({"books": {"uri": "books", "annotations": uri}}, **VISUAL, **TEXT)


def test_every_example_of_the_guide_is_a_source() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guide" / "sources.md").read_text(encoding="utf-8")
    examples = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    assert len(examples) == 5
    for example in examples:
        EmbeddingSource.model_validate(yaml.safe_load(example)["source"])
