"""From a job's file to the planner's request."""

from __future__ import annotations

from typing import Any

import pytest

from pagemill_core.api.v1alpha1.jobs import OcrJob
from pagemill_core.errors import InvalidSpecError
from pagemill_worker.items import PlannedItem
from pagemill_worker.plan.request import CutOptions, ImagesRequest, ItemsRequest, KeyRules, ManifestRequest
from pagemill_worker.plan.spec import SpecContext, from_spec


def job(source: dict[str, Any], **spec: Any) -> OcrJob:
    output = spec.pop("output", {"uri": "s3://library/out/comics"})
    body = {"source": source, "output": output, **spec}
    return OcrJob.model_validate({"metadata": {"name": "comics"}, "spec": body})


def test_spec_manifest_with_everything_is_carried_over() -> None:
    source = {"uri": "s3://lib/m.csv", "idColumn": "id", "pathColumn": "p", "bucket": "library", "format": "csv"}
    request = from_spec(job({"manifest": source}, maxItems=9), SpecContext(slots=3))
    assert request.source == ManifestRequest(
        uri="s3://lib/m.csv", id_column="id", path_column="p", bucket="library", format="csv"
    )
    assert request.keys == KeyRules(prefix="ocr_results", suffixes=("_ocr.json",), root="out/comics")
    assert request.cut == CutOptions(seconds_per_item=1.9, slots=3)
    assert request.max_items == 9


def test_spec_manifest_defaults_are_the_columns_of_the_contract() -> None:
    request = from_spec(job({"manifest": {"uri": "m.csv", "pathPrefix": "pages"}}), SpecContext())
    assert request.source == ManifestRequest(uri="m.csv", path_prefix="pages")


def test_spec_images_know_their_own_output() -> None:
    source = {"uri": "s3://library/pages/", "include": ["*.png"], "exclude": ["x*"], "recursive": False}
    output = {"uri": "s3://library/pages/", "prefix": "text", "formats": ["json", "pdf"]}
    request = from_spec(job({"images": source}, output=output), SpecContext(folding="case"))
    assert request.source == ImagesRequest(
        uri="s3://library/pages/",
        include=("*.png",),
        exclude=("x*",),
        recursive=False,
        own_output_uri="s3://library/pages/",
        own_prefixes=("text", "dataset"),
    )
    assert request.keys.suffixes == ("_ocr.json", ".pdf")
    assert request.keys.folding == "case"


def test_spec_results_among_the_pages_are_refused() -> None:
    bad = job({"images": {"uri": "s3://lib/p"}}, output={"uri": "s3://lib/p/", "prefix": ""})
    with pytest.raises(InvalidSpecError, match=r"spec\.output\.prefix"):
        from_spec(bad, SpecContext())


def test_spec_retry_takes_the_items_given() -> None:
    retry = ItemsRequest(items=[PlannedItem(0, "a", "s3://lib/a")], uri="run 00000007-9c66e1f0")
    request = from_spec(job({"retryOf": {"run": "00000007-9c66e1f0"}}), SpecContext(retry=retry))
    assert request.source == retry


@pytest.mark.parametrize(
    ("sharding", "measured", "want"),
    [
        ({"itemsPerShard": 500}, None, CutOptions(items_per_shard=500, seconds_per_item=0.46)),
        ({"targetSecondsPerShard": 60}, 0.2, CutOptions(target_seconds=60.0, seconds_per_item=0.2)),
    ],
)
def test_spec_sharding_is_carried_over(sharding: dict[str, int], measured: float | None, want: CutOptions) -> None:
    asked = job({"manifest": {"uri": "m.csv"}}, sharding=sharding, engine={"name": "tesseract"})
    assert from_spec(asked, SpecContext(measured_seconds_per_item=measured)).cut == want
