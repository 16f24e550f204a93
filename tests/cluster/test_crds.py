"""The CRDs on a real API server: each rule both ways, what is fixed, what is pruned, what a person sees.

Most requests are dry runs: the server does all but store, and one namespace serves every case.
"""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from testcluster import binaries
from testcluster.api import MERGE_PATCH, Answer, KubeApi, object_path
from testcluster.pytest_plugin import Kubernetes

from pagemill_core.api.crd.generate import PLURALS, crd
from pagemill_core.api.mutability import fixed_rules
from pagemill_core.api.rules import RULES, Example, Rule

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
API_VERSION = "pagemill.dev/v1alpha1"
KINDS = list(PLURALS)
SAMPLES = sorted((ROOT / "config" / "samples").glob("*job*.yaml"))

Job = dict[str, Any]

OUT = {"uri": "s3://library/out"}
PAGES = {"images": {"uri": "s3://library/pages/"}}
DATASET = {"dataset": {"uri": "s3://library/laion/"}}
TENSORS = {"tensors": {"uri": "s3://library/partitions/"}}
BOOKS = {"books": {"uri": "s3://library/books", "annotations": "s3://library/comics.json"}}
MODEL = {"model": {"name": "clip-vit-b-32"}}
CLASSIFY = {"checkpoint": "s3://library/best.pt"}


def make_job(kind: str, spec: Any, name: str = "case") -> Job:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def ocr(**parts: Any) -> Job:
    return make_job("OcrJob", {"source": PAGES, "output": OUT, **parts})


def embedding(**parts: Any) -> Job:
    return make_job("EmbeddingJob", {"source": DATASET, "output": OUT, **parts})


# A whole job around an example of a rule's scope, right in everything else.
AROUND: dict[str, Callable[[Example], Job]] = {
    "OcrSource": lambda example: ocr(source=example),
    "EmbeddingSource": lambda example: embedding(source=example, visual=MODEL),
    "OcrJobSource": lambda example: embedding(source={"ocrJob": example}, visual=MODEL, text=MODEL),
    "EmbeddingJobSource": lambda example: embedding(source={"embeddingJob": example}, classify=CLASSIFY),
    "ManifestSource": lambda example: ocr(source={"manifest": example}),
    "Engine": lambda example: ocr(engine=example),
    "Storage": lambda example: ocr(storage=example),
    "Volume": lambda example: ocr(storage={"volumes": [example]}),
    "CountOrAuto": lambda example: ocr(workers={"processesPerPod": example}),
    "EnvVar": lambda example: ocr(workers={"template": {"env": [example]}}),
    "PodTemplate": lambda example: ocr(workers={"template": example}),
    "Stage": lambda example: ocr(stages=[example]),
    "Sharding": lambda example: ocr(sharding=example),
    "Budget": lambda example: ocr(budget=example),
    "ModelRef": lambda example: embedding(visual={"model": example}),
    "Inference": lambda example: embedding(source=TENSORS, inference=example),
    "EmbeddingOutput": lambda example: embedding(output=example, visual=MODEL),
    "EmbeddingJobSpec": lambda example: make_job("EmbeddingJob", example),
    "JobSpec": lambda example: make_job("OcrJob", example),
    "OcrJob": lambda example: example,
    "EmbeddingJob": lambda example: example,
}

SHARED: dict[str, Any] = {
    "output": {"uri": "s3://library/out"},
    "sharding": {"itemsPerShard": 10},
    "maxItems": 5,
    "incremental": True,
    "storage": {
        "endpoint": "http://store:9000",
        "region": "eu-west-1",
        "secretRef": {"name": "pagemill-a"},
        "caSecretRef": {"name": "pagemill-ca"},
        "addressing": "path",
        "sse": "kms",
        "kmsKeyId": "a",
        "volumes": [{"claimName": "a", "mountPath": "/a"}],
    },
    "stages": [{"name": "redact", "use": "pkg.stages:Redact", "after": "decode"}, {"name": "write", "processes": 2}],
    "workers": {"parallelism": 2, "priorityClass": "a"},
    "dependsOn": [{"kind": "OcrJob", "name": "a"}],
}
PLANNED = {
    "OcrJob": make_job("OcrJob", {**SHARED, "source": PAGES, "engine": {"name": "rapidocr"}}, "planned"),
    "EmbeddingJob": make_job(
        "EmbeddingJob", {**SHARED, "source": BOOKS, "visual": MODEL, "text": MODEL, "classify": CLASSIFY}, "planned"
    ),
}
# What is put in place of a fixed field; the others are removed.
REPLACEMENTS: dict[str, Any] = {
    "source": {"images": {"uri": "s3://library/other/"}},
    "output": {"uri": "s3://library/other"},
    "inference": {"adapter": "torchScript", "weights": "s3://library/model.pt"},
}
FREE_CHANGES: list[tuple[str, Any]] = [
    ("workers.parallelism", 9),
    ("workers.pool", "gpu"),
    ("workers.processesPerPod", "auto"),
    ("workers.resources", {"limits": {"memory": "8Gi"}}),
    ("storage.secretRef", {"name": "pagemill-b"}),
    ("stages", SHARED["stages"][:1]),
    ("budget", {"maxCost": "2"}),
    ("deadlineSeconds", 120),
    ("suspend", True),
    ("retries", {"waves": 3}),
    ("ttlSecondsAfterFinished", 60),
]


def rule_cases(which: str) -> list[Any]:
    return [
        pytest.param(rule, example, id=f"{rule.scope}-{number}-{index}")
        for number, rule in enumerate(RULES)
        for index, example in enumerate(getattr(rule, which))
    ]


def fixed_cases() -> list[Any]:
    return [pytest.param(kind, rule, id=f"{kind}-{rule.path}") for kind in KINDS for rule in fixed_rules(kind)]


def jobs_path(kind: str, namespace: str, name: str = "", subresource: str = "") -> str:
    return object_path(API_VERSION, PLURALS[kind], namespace, name, subresource)


def edited(job: Job, path: str, value: Any) -> Job:
    """A copy of the job with one field of its spec set, or removed when the value is None."""
    changed = copy.deepcopy(job)
    *parents, last = path.split(".")
    part = changed["spec"]
    for name in parents:
        part = part.setdefault(name, {})
    if value is None:
        del part[last]
    else:
        part[last] = value
    return changed


def undescribed(schema: Any, path: str = "") -> Iterator[str]:
    """The paths of fields below a schema that `kubectl explain` would show without a word."""
    for name, inner in schema.get("properties", {}).items():
        if not inner.get("description"):
            yield f"{path}.{name}"
        yield from undescribed(inner, f"{path}.{name}")
    if isinstance(schema.get("items"), dict):
        yield from undescribed(schema["items"], f"{path}[]")


@pytest.fixture(scope="module")
def place(kube_api: KubeApi) -> Iterator[str]:
    """A namespace for the whole file, with one planned job of each kind."""
    created = kube_api.call(
        "POST",
        "/api/v1/namespaces",
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "pagemill-test-"}},
    )
    name = str(created["metadata"]["name"])
    for kind, job in PLANNED.items():
        kube_api.call("POST", jobs_path(kind, name), job, fieldValidation="Strict")
        status = {"status": {"plannedAt": "2026-01-02T03:04:05Z"}}
        kube_api.call("PATCH", jobs_path(kind, name, "planned", "status"), status, content_type=MERGE_PATCH)
    yield name
    kube_api.call("DELETE", f"/api/v1/namespaces/{name}")


def create(api: KubeApi, namespace: str, job: Job) -> Answer:
    """What the server says to a creation, all validation on, nothing stored."""
    return api.ask("POST", jobs_path(job["kind"], namespace), job, dryRun="All", fieldValidation="Strict")


def change(api: KubeApi, namespace: str, path: str, value: Any, *, kind: str) -> Answer:
    """What the server says to a change of the planned job, nothing stored."""
    current = api.call("GET", jobs_path(kind, namespace, "planned"))
    return api.ask("PUT", jobs_path(kind, namespace, "planned"), edited(current, path, value), dryRun="All")


@pytest.mark.parametrize(("rule", "example"), rule_cases("good"))
def test_crd_good_example_of_a_rule_is_accepted(kube_api: KubeApi, place: str, rule: Rule, example: Example) -> None:
    answer = create(kube_api, place, AROUND[rule.scope](example))

    assert (answer.status, answer.warnings) == (201, ()), answer.message


@pytest.mark.parametrize(("rule", "example"), rule_cases("bad"))
def test_crd_bad_example_of_a_rule_is_refused_with_its_message(
    kube_api: KubeApi, place: str, rule: Rule, example: Example
) -> None:
    answer = create(kube_api, place, AROUND[rule.scope](example))

    assert answer.status == 422
    assert rule.message in answer.message


@pytest.mark.parametrize(("kind", "rule"), fixed_cases())
def test_crd_fixed_field_of_a_planned_job_cannot_change(kube_api: KubeApi, place: str, kind: str, rule: Any) -> None:
    path = rule.path.partition("[]")[0]

    answer = change(kube_api, place, path, REPLACEMENTS.get(path), kind=kind)

    assert answer.status == 422
    assert rule.message in answer.message
    assert {"FieldValueForbidden"} <= {cause["reason"] for cause in answer.body["details"]["causes"]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("path", "value"), FREE_CHANGES, ids=[path for path, _ in FREE_CHANGES])
def test_crd_free_field_of_a_planned_job_can_change(
    kube_api: KubeApi, place: str, kind: str, path: str, value: Any
) -> None:
    answer = change(kube_api, place, path, value, kind=kind)

    assert answer.status == 200, answer.message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["output", "sharding", "maxItems", "storage", "dependsOn", "stages"])
def test_crd_fixed_field_of_an_unplanned_job_can_change(
    kube_api: KubeApi, namespace: str, kind: str, path: str
) -> None:
    job = kube_api.call("POST", jobs_path(kind, namespace), PLANNED[kind])
    changed = edited(job, path, REPLACEMENTS.get(path))

    answer = kube_api.ask("PUT", jobs_path(kind, namespace, "planned"), changed, dryRun="All")

    assert answer.status == 200, answer.message


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_crd_sample_is_accepted_strictly(kube_api: KubeApi, place: str, path: Path) -> None:
    for job in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        answer = create(kube_api, place, job)

        assert (answer.status, answer.warnings) == (201, ()), answer.message


@pytest.mark.parametrize("kind", KINDS)
def test_crd_file_is_accepted_without_a_warning(kube_api: KubeApi, kind: str) -> None:
    name = f"{PLURALS[kind]}.pagemill.dev"
    path = object_path("apiextensions.k8s.io/v1", "customresourcedefinitions", name=name)

    answer = kube_api.ask("PATCH", path, crd(kind), content_type=MERGE_PATCH, dryRun="All", fieldValidation="Strict")

    assert (answer.status, answer.warnings) == (200, ()), answer.message


def test_crd_misspelled_field_is_refused_by_its_path(kube_api: KubeApi, place: str) -> None:
    answer = create(kube_api, place, ocr(engine={"name": "rapidocr", "langauges": ["en"]}))

    assert answer.status == 400
    assert 'unknown field "spec.engine.langauges"' in answer.message


def test_crd_several_broken_rules_are_reported_together(kube_api: KubeApi, place: str) -> None:
    answer = create(kube_api, place, ocr(engine={"name": "vlm"}, storage={"kmsKeyId": "a"}))

    fields = [cause["field"] for cause in answer.body["details"]["causes"]]
    assert {tuple(field.split(".")[:2]) for field in fields} == {("spec", "engine"), ("spec", "storage")}


@pytest.mark.parametrize("kind", KINDS)
def test_crd_status_given_at_creation_is_dropped(kube_api: KubeApi, namespace: str, kind: str) -> None:
    job = {**PLANNED[kind], "status": {"phase": "Succeeded", "plannedAt": "2026-01-02T03:04:05Z"}}

    created = kube_api.call("POST", jobs_path(kind, namespace), job)

    assert "status" not in created


@pytest.mark.parametrize("kind", KINDS)
def test_crd_spec_sent_through_status_is_ignored(kube_api: KubeApi, place: str, kind: str) -> None:
    path = jobs_path(kind, place, "planned", "status")

    answer = kube_api.call("PATCH", path, {"spec": {"suspend": True}}, content_type=MERGE_PATCH, dryRun="All")

    assert answer["spec"].get("suspend") is not True


@pytest.mark.parametrize("kind", KINDS)
def test_crd_table_shows_the_columns_in_their_order(kube_api: KubeApi, place: str, kind: str) -> None:
    table = kube_api.as_tables().call("GET", jobs_path(kind, place))

    want = ["Name", *(column["name"] for column in crd(kind)["spec"]["versions"][0]["additionalPrinterColumns"])]
    assert [column["name"] for column in table["columnDefinitions"]] == want
    assert table["rows"][0]["cells"][0] == "planned"


@pytest.mark.parametrize("kind", KINDS)
def test_crd_scale_reads_and_writes_parallelism(kube_api: KubeApi, namespace: str, kind: str) -> None:
    kube_api.call("POST", jobs_path(kind, namespace), PLANNED[kind])
    path = jobs_path(kind, namespace, "planned", "scale")
    status = {"status": {"replicas": 2, "selector": "pagemill.dev/job=planned"}}
    kube_api.call("PATCH", jobs_path(kind, namespace, "planned", "status"), status, content_type=MERGE_PATCH)
    before = kube_api.call("GET", path)

    kube_api.call("PATCH", path, {"spec": {"replicas": 7}}, content_type=MERGE_PATCH)

    assert before["spec"] == {"replicas": 2}
    assert before["status"] == {"replicas": 2, "selector": "pagemill.dev/job=planned"}
    after = kube_api.call("GET", jobs_path(kind, namespace, "planned"))
    assert after["spec"]["workers"]["parallelism"] == 7


@pytest.mark.parametrize("kind", KINDS)
def test_crd_scale_beyond_the_limit_is_refused(kube_api: KubeApi, place: str, kind: str) -> None:
    path = jobs_path(kind, place, "planned", "scale")

    answer = kube_api.ask("PATCH", path, {"spec": {"replicas": 10**6}}, content_type=MERGE_PATCH, dryRun="All")

    assert answer.status == 422


@pytest.mark.parametrize("kind", KINDS)
def test_crd_every_field_is_described_in_what_the_server_publishes(kube_api: KubeApi, kind: str) -> None:
    published = kube_api.call("GET", f"/openapi/v3/apis/{API_VERSION}")
    found = [
        schema
        for schema in published["components"]["schemas"].values()
        if {"group": "pagemill.dev", "kind": kind, "version": "v1alpha1"}
        in schema.get("x-kubernetes-group-version-kind", [])
    ]

    assert len(found) == 1
    missing = [path for part in ("spec", "status") for path in undescribed(found[0]["properties"][part], part)]
    assert missing == []


def test_crd_kubectl_explain_shows_a_description(kubernetes: Kubernetes) -> None:
    kubectl = binaries.ensure(["kubectl"]) / "kubectl"
    command = [str(kubectl), f"--kubeconfig={kubernetes.kubeconfig}", "explain", "ocrjob.spec.workers.parallelism"]

    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    assert "FIELD: parallelism <integer>" in shown
    assert "<empty>" not in shown
