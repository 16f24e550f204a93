"""The work key: the same work gives the same key whoever asks, and every work field changes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagemill_core.api.mutability import Change, change_of
from pagemill_core.api.v1alpha1 import KINDS, SPECS, Job
from pagemill_core.api.v1alpha1.base import ApiModel
from pagemill_core.api.workkey import work_key, work_of

OCR: dict[str, Any] = {
    "source": {"manifest": {"uri": "s3://library/manifest.csv", "pathPrefix": "s3://library/pages"}},
    "engine": {"name": "tesseract", "languages": ["en", "fr"], "options": {"psm": 12, "oem": 1}},
    "output": {"uri": "s3://library/out/comics", "formats": ["json", "alto"]},
    "maxItems": 1000,
}
BOOKS: dict[str, Any] = {
    "source": {"books": {"uri": "s3://library/books", "annotations": "s3://library/train.json"}},
    "visual": {"model": {"name": "siglip-so400m-patch14-384"}, "pooling": "pooler"},
    "text": {"model": {"name": "qwen3-embedding-0.6b"}},
    "output": {"uri": "s3://library/embeddings"},
}
STAGES: dict[str, Any] = {
    "source": {"images": {"uri": "pages"}},
    "output": {"uri": "out"},
    "stages": [
        {"name": "redact", "use": "pkg.stages:Redact", "options": {"mode": "box"}, "cpus": "1"},
        {"name": "recognise", "processes": 2},
    ],
    "sharding": {"itemsPerShard": 500},
    "incremental": True,
}


def job(kind: str, spec: Any, **metadata: Any) -> Job:
    return KINDS[kind].model_validate({"metadata": {"name": "comics", **metadata}, "spec": spec})


# Frozen with v1alpha1: a key that changes orphans the runs of every finished job in the world.
GOLDEN = [
    ("OcrJob", OCR, "478a9c5aad0f175c34171497220e47398748c9536912ea28a1c6bb88ec08d3dc"),
    ("EmbeddingJob", BOOKS, "f03b8223cbc24c1de4dd3b9dde3228f52e040b29d75c91e886986c2a55cc8d90"),
    ("OcrJob", STAGES, "5329f9287f1097e63d854b5c7feca92e55753b6a3a11388605d6c09578890628"),
    (
        "OcrJob",
        {"source": {"images": {"uri": "pages"}}, "output": {"uri": "out"}},
        "540f6e030bca9cbf11c35a4e9b982719c6f4e31069d82635c0e0c1f471649ff8",
    ),
]


@pytest.mark.parametrize(("kind", "spec", "want"), GOLDEN, ids=["ocr", "books", "stages", "small"])
def test_work_key_is_frozen(kind: str, spec: Any, want: str) -> None:
    assert work_key(job(kind, spec)) == want


def test_work_of_says_what_the_key_is_of() -> None:
    assert work_of(job("OcrJob", {**OCR, "retries": {"waves": 9}, "workers": {"parallelism": 7}})) == {
        "kind": "OcrJob",
        "source": {"manifest": {"uri": "s3://library/manifest.csv", "pathPrefix": "s3://library/pages"}},
        "engine": {"name": "tesseract", "languages": ["en", "fr"], "options": {"psm": 12, "oem": 1}},
        "output": {"uri": "s3://library/out/comics", "formats": ["alto", "json"]},
        "maxItems": 1000,
    }


def shuffled(value: Any, draw: Any) -> Any:
    """The value with the fields of every object in another order."""
    if isinstance(value, dict):
        return {name: shuffled(value[name], draw) for name in draw(st.permutations(list(value)))}
    return [shuffled(inner, draw) for inner in value] if isinstance(value, list) else value


@given(st.data(), st.sampled_from([("OcrJob", OCR), ("EmbeddingJob", BOOKS), ("OcrJob", STAGES)]))
def test_work_key_order_of_fields_does_not_matter(data: st.DataObject, which: tuple[str, Any]) -> None:
    kind, spec = which
    assert work_key(job(kind, shuffled(spec, data.draw))) == work_key(job(kind, spec))


@given(
    name=st.from_regex(r"[a-z][a-z0-9]{0,20}", fullmatch=True), uid=st.text(max_size=36), generation=st.integers(1, 9)
)
def test_work_key_names_uids_and_generations_do_not_matter(name: str, uid: str, generation: int) -> None:
    other = job("OcrJob", OCR, name=name, uid=uid, generation=generation, namespace="books", labels={"a": "b"})
    assert work_key(other) == work_key(job("OcrJob", OCR))


def written_out(part: ApiModel) -> dict[str, Any]:
    """A part with every default that has one value written out."""
    written: dict[str, Any] = {}
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if value is None:
            value = getattr(part, f"effective_{name}", None)
        if isinstance(value, ApiModel):
            value = written_out(value)
        elif isinstance(value, tuple):
            value = [written_out(inner) if isinstance(inner, ApiModel) else inner for inner in value]
        written[field.alias or name] = value
    return written


@pytest.mark.parametrize(("kind", "spec"), [(kind, spec) for kind, spec, _ in GOLDEN])
def test_work_key_defaults_written_out_do_not_matter(kind: str, spec: Any) -> None:
    short = job(kind, spec)
    long = written_out(short.spec)
    long["sharding"] = spec.get("sharding", {})  # its two fields exclude each other
    long["output"]["files"] = short.spec.effective_files
    if kind == "EmbeddingJob":
        del long["output"]["index"]  # only with faiss
        long["output"]["formats"] = ["bookTensors"]
        long["visual"]["normalize"] = "none"
        long["text"].update(normalize="l2", format="referenceJson")
    assert len(str(long)) > 2 * len(str(spec))
    assert work_key(job(kind, long)) == work_key(short)


@pytest.mark.parametrize(
    "extra",
    [
        {"output": {**OCR["output"], "onConflict": "Replace"}},
        {"stages": [{"name": "recognise", "processes": 2}]},
        {"stages": []},
        {"storage": {"secretRef": {"name": "pagemill-b"}, "endpoint": "http://store:9000"}},
        {"engine": {**OCR["engine"], "options": {"oem": 1.0, "psm": 12, "none": None}}},
        {"output": {**OCR["output"], "formats": ["alto", "json"]}},
        {"sharding": {}},
        {"incremental": False},
    ],
    ids=lambda extra: next(iter(extra)),
)
def test_work_key_what_is_no_other_work_does_not_matter(extra: Any) -> None:
    assert work_key(job("OcrJob", {**OCR, **extra})) == work_key(job("OcrJob", OCR))


def test_work_key_name_of_a_secret_does_not_matter() -> None:
    keys = {
        work_key(job("OcrJob", {**OCR, "engine": {"name": "qwen", "apiKeySecretRef": {"name": name}}}))
        for name in ("pagemill-a", "pagemill-b")
    }
    assert len(keys) == 1


def test_work_key_order_of_languages_matters() -> None:
    turned = {**OCR, "engine": {**OCR["engine"], "languages": ["fr", "en"]}}
    assert work_key(job("OcrJob", turned)) != work_key(job("OcrJob", OCR))


def test_work_key_kind_matters() -> None:
    spec = {"source": {"images": {"uri": "pages"}}, "output": {"uri": "out"}}
    one = work_of(job("OcrJob", spec))
    other = work_of(job("EmbeddingJob", {**spec, "visual": {"model": {"name": "a"}}}))
    assert one["kind"] != other["kind"]
    assert work_key(job("OcrJob", spec)) != work_key(job("EmbeddingJob", {**spec, "visual": {"model": {"name": "a"}}}))


def model_in(annotation: Any) -> type[ApiModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := model_in(inner)) is not None), None)


def leaves(model: type[ApiModel]) -> Iterator[tuple[str, ...]]:
    """The attribute path of every field that holds no further model."""
    for name, field in model.model_fields.items():
        inner = model_in(field.annotation)
        if inner is None:
            yield (name,)
        else:
            yield from ((name, *path) for path in leaves(inner))


def with_leaf(part: ApiModel, path: tuple[str, ...], value: Any) -> ApiModel:
    """A copy with one field set, unchecked; parts and list entries on the way are made where they are missing."""
    name, *rest = path
    if not rest:
        return part.model_copy(update={name: value})
    field = type(part).model_fields[name]
    model = model_in(field.annotation)
    assert model is not None
    held = getattr(part, name, None)
    is_list = "tuple" in str(field.annotation)
    inner = held if isinstance(held, ApiModel) else bare(model)
    changed = with_leaf(inner, tuple(rest), value)
    return part.model_copy(update={name: (changed,) if is_list else changed})


def bare(model: type[ApiModel]) -> ApiModel:
    """A part with its required fields alone; a stage is one of the user's own."""
    required = {
        name: bare(inner) if (inner := model_in(field.annotation)) is not None else "x"
        for name, field in model.model_fields.items()
        if field.is_required()
    }
    return model.model_construct(None, **required, **({"use": "pkg:Own"} if model.__name__ == "Stage" else {}))


def dotted(model: type[ApiModel], path: tuple[str, ...]) -> str:
    text = ""
    for name in path:
        field = model.model_fields[name]
        inner = model_in(field.annotation)
        mark = "[]" if inner is not None and "tuple" in str(field.annotation) else ""
        text += f".{field.alias}{mark}"
        model = inner or model
    return text.removeprefix(".")


@pytest.mark.parametrize(
    ("kind", "path"),
    [pytest.param(kind, path, id=f"{kind}-{'.'.join(path)}") for kind, spec in SPECS.items() for path in leaves(spec)],
)
def test_work_key_changes_with_each_work_field_and_with_no_other(kind: str, path: tuple[str, ...]) -> None:
    start = job(kind, OCR if kind == "OcrJob" else BOOKS)
    keys = {
        work_key(start.model_copy(update={"spec": with_leaf(start.spec, path, value)})) for value in ("one", "other")
    }
    is_work = change_of(kind, dotted(SPECS[kind], path)) is Change.WORK
    assert len(keys) == (2 if is_work else 1)
