"""The models: strict, frozen, documented, with one place for every default."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pagemill_core.api.v1alpha1 import (
    EmbeddingJob,
    Engine,
    ImagesSource,
    ManifestSource,
    OcrJob,
    OcrOutput,
    Retries,
    Storage,
    Workers,
)
from pagemill_core.api.v1alpha1.base import ApiModel
from pagemill_core.api.v1alpha1.jobs import EmbeddingJobSpec


def all_models(base: type[ApiModel] = ApiModel) -> list[type[ApiModel]]:
    return [base, *(model for below in base.__subclasses__() for model in all_models(below))]


MODELS = all_models()
OUT = {"uri": "s3://library/out"}
MODEL = {"model": {"name": "clip-vit-b-32"}}
BOOKS = {"books": {"uri": "s3://library/books", "annotations": "a.json"}}
GROUPED = {"ocrJob": {"name": "comics", "groupBy": "directory"}}
CLASSIFY = {"checkpoint": "best.pt"}


def ocr_job(**spec: Any) -> OcrJob:
    parts = {"source": {"images": {"uri": "pages"}}, "output": {"uri": "out"}, **spec}
    return OcrJob.model_validate({"metadata": {"name": "comics"}, "spec": parts})


def embedding_spec(source: Any, **parts: Any) -> EmbeddingJobSpec:
    return EmbeddingJobSpec.model_validate({"source": source, "output": OUT, **parts})


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_model_and_all_its_fields_are_described(model: type[ApiModel]) -> None:
    assert model.__doc__
    undescribed = [name for name, field in model.model_fields.items() if not field.description]
    assert undescribed == []


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_model_effective_accessor_belongs_to_a_field_that_is_none_by_default(model: type[ApiModel]) -> None:
    own = [name for name in vars(model) if name.startswith("effective_")]
    fields = [name.removeprefix("effective_") for name in own]
    # Defaults of the spec that depend on other parts name the part too: effective_visual_normalize.
    lone = [name for name in fields if model.__name__ not in ("OcrJobSpec", "EmbeddingJobSpec")]
    assert [name for name in lone if name not in model.model_fields] == []
    assert [name for name in lone if model.model_fields[name].default is not None] == []


def spoken_defaults() -> list[Any]:
    cases = []
    for model in MODELS:
        for name in model.model_fields:
            if not hasattr(model, f"effective_{name}"):
                continue
            try:
                default = getattr(model.model_construct(), f"effective_{name}")
            except AttributeError:
                continue  # depends on a required field, so no single value can be spoken of
            if isinstance(default, (str, int)) and default != "":
                cases.append(pytest.param(model, name, default, id=f"{model.__name__}.{name}"))
    return cases


@pytest.mark.parametrize(("model", "name", "default"), spoken_defaults())
def test_model_description_names_the_default_that_holds(model: type[ApiModel], name: str, default: Any) -> None:
    description = model.model_fields[name].description or ""
    spoken = str(default).lower() if isinstance(default, bool) else str(default)
    assert f"Default {spoken}" in description or f'Default "{spoken}"' in description


def test_model_parts_are_frozen() -> None:
    job = ocr_job()
    with pytest.raises(ValidationError, match="frozen"):
        job.spec.output.uri = "elsewhere"


@pytest.mark.parametrize(
    ("part", "value"),
    [
        (Workers, {"parallelism": "4"}),
        (Workers, {"parallelism": 4.5}),
        (Workers, {"parallelism": True}),
        (Workers, {"parallelism": -1}),
        (Workers, {"parallelism": 10_001}),
        (Workers, {"pool": "GPU Pool"}),
        (Workers, {"resources": {"limits": {"memory": "8 GB"}}}),
        (Workers, {"template": {"serviceAccountName": "admin"}}),
        (Workers, {"template": {"env": [{"name": "A", "valueFrom": {}}]}}),
        (Workers, {"template": {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}}),
        (Retries, {"maxFailedItems": 1}),
        (Retries, {"maxFailedItems": "101%"}),
        (Retries, {"maxFailedItems": "-1"}),
        (Engine, {"languages": []}),
        (Engine, {"languages": [False]}),
        (Engine, {"languages": "en"}),
        (Engine, {"name": "abbyy"}),
        (Engine, {"options": {"threshold": float("nan")}}),
        (Storage, {"endpoint": "store:9000"}),
        (Storage, {"endpoint": "http://user:secret@store:9000"}),
        (Storage, {"secretRef": {"name": "a", "namespace": "other"}}),
        (Storage, {"volumes": [{"claimName": "a", "mountPath": "/a/../etc"}]}),
        (OcrOutput, {"uri": "gs://library/out"}),
        (OcrOutput, {"uri": ""}),
        (OcrOutput, {"uri": "out", "prefix": "../elsewhere"}),
        (OcrOutput, {"uri": "out", "prefix": ".pagemill"}),
        (OcrOutput, {"uri": "out", "prefix": "/ocr"}),
        (OcrOutput, {"uri": "out", "formats": ["json", "json"]}),
        (OcrOutput, {"uri": "out", "formats": ["docx"]}),
        (ImagesSource, {"uri": "http://server/pages/"}),
        (ManifestSource, {"uri": "m.csv", "idColum": "id"}),
    ],
)
def test_model_value_that_the_api_server_would_refuse_is_refused(part: type[ApiModel], value: Any) -> None:
    with pytest.raises(ValidationError):
        part.model_validate(value)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://library",
        "s3://library/",
        "s3://library/a b/#ê%",
        "file:///data/pages",
        "pages",
        "./pages",
        "/a:b/c",
        "../x",
    ],
)
def test_model_uri_of_a_store_or_a_folder_is_accepted(uri: str) -> None:
    assert ImagesSource(uri=uri).uri == uri


def test_model_validation_error_never_shows_what_was_given() -> None:
    with pytest.raises(ValidationError) as caught:
        Storage.model_validate({"endpoint": "http://user:planted-secret@store"})
    assert "planted-secret" not in str(caught.value)


def test_model_null_and_absent_are_one_thing() -> None:
    with_null = ocr_job(engine=None, workers=None, budget=None)
    assert with_null == ocr_job()


def test_model_quantity_bare_integer_equals_its_text() -> None:
    bare, quoted = (Workers.model_validate({"resources": {"limits": {"cpu": cpu}}}) for cpu in (2, "2"))
    assert bare == quoted


def test_model_options_integral_float_becomes_the_integer_that_the_api_server_stores() -> None:
    engine = Engine.model_validate({"options": {"dpi": 300.0, "deep": [{"a": 1.0, "b": 0.5}], "none": None}})
    assert repr(engine.options) == "{'dpi': 300, 'deep': [{'a': 1, 'b': 0.5}]}"


def test_model_set_list_order_does_not_count_and_atomic_list_order_does() -> None:
    one, other = (
        OcrOutput.model_validate({**OUT, "formats": formats}) for formats in (["json", "alto"], ["alto", "json"])
    )
    assert one == other
    assert Engine(languages=("en", "fr")) != Engine(languages=("fr", "en"))


def test_model_secret_key_has_no_field_of_its_own() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        Engine.model_validate({"name": "qwen", "apiKey": "planted-secret"})


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        (embedding_spec(BOOKS, visual=MODEL, text=MODEL), ("none", "referenceJson", ("bookTensors",))),
        (embedding_spec(GROUPED, visual=MODEL, text=MODEL), ("none", "referenceJson", ("bookTensors",))),
        (
            embedding_spec(BOOKS, visual=MODEL, text=MODEL, classify=CLASSIFY),
            ("none", "referenceJson", ("bookTensors", "labels")),
        ),
        (embedding_spec({"dataset": {"uri": "laion"}}, visual=MODEL), ("l2", "plainText", ("parquet",))),
        (embedding_spec({"ocrJob": {"name": "comics"}}, text=MODEL), ("l2", "plainText", ("parquet",))),
        (embedding_spec({"embeddingJob": {"name": "books"}}, classify=CLASSIFY), ("l2", "plainText", ("labels",))),
        (
            embedding_spec({"tensors": {"uri": "p"}}, inference={"adapter": "onnx", "weights": "w.onnx"}),
            ("l2", "plainText", ("parquet", "rankFiles")),
        ),
    ],
    ids=["books", "grouped pages", "books classified", "dataset", "pages", "classify alone", "inference"],
)
def test_embedding_spec_defaults_follow_the_source(spec: EmbeddingJobSpec, want: tuple[Any, ...]) -> None:
    assert (spec.effective_visual_normalize, spec.effective_text_format, spec.effective_formats) == want
    assert spec.effective_text_normalize == "l2"


def test_embedding_spec_given_values_win_over_those_of_the_source() -> None:
    spec = embedding_spec(
        BOOKS,
        visual={**MODEL, "normalize": "l2"},
        text={**MODEL, "normalize": "none", "format": "plainText"},
        output={**OUT, "formats": ["parquet"]},
    )
    want = ("l2", "none", "plainText", ("parquet",))
    assert (
        spec.effective_visual_normalize,
        spec.effective_text_normalize,
        spec.effective_text_format,
        spec.effective_formats,
    ) == want


def test_job_named_source_is_a_dependency_once() -> None:
    spec = embedding_spec({"ocrJob": {"name": "comics"}}, text=MODEL, dependsOn=[{"kind": "OcrJob", "name": "comics"}])
    assert [(other.kind, other.name) for other in spec.all_dependencies] == [("OcrJob", "comics")]
    assert ocr_job().spec.all_dependencies == ()


def test_job_files_are_partitioned_when_incremental() -> None:
    assert ocr_job().spec.effective_files == "Single"
    assert ocr_job(incremental=True).spec.effective_files == "Partitioned"
    assert ocr_job(output={"uri": "out", "files": "Partitioned"}).spec.effective_files == "Partitioned"


def test_job_metadata_of_a_live_object_is_accepted() -> None:
    live = {
        "metadata": {
            "name": "comics",
            "uid": "a-b",
            "generation": 3,
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "managedFields": [{"manager": "kubectl"}],
        },
        "spec": {"source": {"dataset": {"uri": "laion"}}, "visual": MODEL, "output": OUT},
    }
    job = EmbeddingJob.model_validate(live)
    assert job.metadata.creation_timestamp is not None
    assert job.metadata.creation_timestamp.isoformat() == "2026-01-02T03:04:05+00:00"


def test_job_given_again_as_json_is_the_same_job() -> None:
    job = ocr_job(engine={"languages": ["en", "fr"]}, retries={"maxFailedItems": "2%"})
    assert OcrJob.model_validate(job.model_dump(mode="json")) == job
    assert OcrJob.model_validate_json(job.model_dump_json()) == job
