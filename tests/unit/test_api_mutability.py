"""What may change when: every field is classified, and what is fixed is held by CEL and by Python alike."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from typing import Any

import celpy
import pytest
from celpy.adapter import json_to_cel

from pagemill_core.api.crd.schema import job_schema
from pagemill_core.api.mutability import (
    CHANGES,
    Change,
    change_of,
    changed_fixed_paths,
    fixed_paths,
    fixed_rules,
)
from pagemill_core.api.v1alpha1 import KINDS, Job

PLANNED = {"plannedAt": "2026-01-02T03:04:05Z"}
OWN_STAGE = {"name": "redact", "use": "pkg.stages:Redact", "after": "recognise", "options": {"mode": "box"}}

OCR: dict[str, Any] = {
    "apiVersion": "pagemill.dev/v1alpha1",
    "kind": "OcrJob",
    "metadata": {"name": "comics"},
    "spec": {
        "source": {"images": {"uri": "s3://library/pages/", "pdfDpi": 300}},
        "engine": {"name": "qwen", "languages": ["en"], "apiKeySecretRef": {"name": "pagemill-a"}},
        "output": {"uri": "s3://library/out", "onConflict": "Refuse"},
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
        "workers": {"parallelism": 2, "pool": "cpu", "queue": "a", "priorityClass": "a", "processesPerPod": 2},
        "stages": [OWN_STAGE, {"name": "recognise", "processes": 2}],
        "sharding": {"itemsPerShard": 10},
        "maxItems": 5,
        "incremental": True,
        "retries": {"waves": 3},
        "budget": {"maxCost": "1"},
        "deadlineSeconds": 60,
        "suspend": True,
        "dependsOn": [{"kind": "OcrJob", "name": "a"}],
        "ttlSecondsAfterFinished": 60,
    },
    "status": PLANNED,
}
EMBEDDING: dict[str, Any] = {
    "apiVersion": "pagemill.dev/v1alpha1",
    "kind": "EmbeddingJob",
    "metadata": {"name": "books"},
    "spec": {
        "source": {"books": {"uri": "s3://library/books", "annotations": "s3://library/a.json"}},
        "visual": {"model": {"name": "a"}},
        "text": {"model": {"name": "a"}},
        "classify": {"checkpoint": "s3://library/a.pt"},
        "output": {"uri": "s3://library/out"},
    },
    "status": PLANNED,
}
ABSENT = object()

# (kind, path, new value): changes of what is fixed. ABSENT removes the field.
FIXED_CHANGES: list[tuple[str, str, Any]] = [
    ("OcrJob", "source", {"images": {"uri": "s3://library/pages/"}}),
    ("OcrJob", "output", {"uri": "s3://library/other"}),
    ("OcrJob", "output", {"uri": "s3://library/out", "onConflict": "Replace"}),
    ("OcrJob", "engine", {"name": "gemma"}),
    ("OcrJob", "engine", ABSENT),
    ("OcrJob", "sharding", {"itemsPerShard": 11}),
    ("OcrJob", "sharding", ABSENT),
    ("OcrJob", "maxItems", 6),
    ("OcrJob", "maxItems", ABSENT),
    ("OcrJob", "incremental", False),
    ("OcrJob", "storage.endpoint", "http://other:9000"),
    ("OcrJob", "storage.endpoint", ABSENT),
    ("OcrJob", "storage.region", "us-east-2"),
    ("OcrJob", "storage.caSecretRef", {"name": "pagemill-other"}),
    ("OcrJob", "storage.addressing", "virtual"),
    ("OcrJob", "storage.kmsKeyId", "b"),
    ("OcrJob", "storage.volumes", ABSENT),
    ("OcrJob", "workers.priorityClass", "b"),
    ("OcrJob", "dependsOn", []),
    ("OcrJob", "stages", [{"name": "recognise", "processes": 2}]),
    ("OcrJob", "stages", ABSENT),
    ("OcrJob", "stages", [{**OWN_STAGE, "use": "pkg.stages:Other"}]),
    ("OcrJob", "stages", [{**OWN_STAGE, "after": "decode"}]),
    ("OcrJob", "stages", [{**OWN_STAGE, "options": {"mode": "blur"}}]),
    ("OcrJob", "stages", [OWN_STAGE, {"name": "second", "use": "pkg.stages:Second"}]),
    ("EmbeddingJob", "visual", {"model": {"name": "b"}}),
    ("EmbeddingJob", "text", {"model": {"name": "b"}}),
    ("EmbeddingJob", "classify", ABSENT),
    ("EmbeddingJob", "stages", [{"name": "own", "use": "pkg.stages:Own"}]),
    ("EmbeddingJob", "storage", {"endpoint": "http://other:9000"}),
]
FREE_CHANGES: list[tuple[str, str, Any]] = [
    ("OcrJob", "workers.parallelism", 9),
    ("OcrJob", "workers.pool", "gpu"),
    ("OcrJob", "workers.queue", "b"),
    ("OcrJob", "workers.processesPerPod", "auto"),
    ("OcrJob", "workers.resources", {"limits": {"memory": "8Gi"}}),
    ("OcrJob", "workers.template", {"labels": {"team": "a"}}),
    ("OcrJob", "storage.secretRef", {"name": "pagemill-b"}),
    ("OcrJob", "storage.secretRef", ABSENT),
    ("OcrJob", "stages", [OWN_STAGE, {"name": "recognise", "processes": 4}]),
    ("OcrJob", "stages", [OWN_STAGE]),
    ("OcrJob", "stages", [{"name": "write", "attempts": 2}, {**OWN_STAGE, "cpus": "2"}]),
    ("OcrJob", "retries", ABSENT),
    ("OcrJob", "budget", {"maxCost": "2"}),
    ("OcrJob", "deadlineSeconds", 120),
    ("OcrJob", "suspend", ABSENT),
    ("OcrJob", "ttlSecondsAfterFinished", 1),
    ("EmbeddingJob", "storage", {"secretRef": {"name": "pagemill-b"}}),
    ("EmbeddingJob", "stages", [{"name": "encode", "gpus": "0.5"}]),
]


def edited(kind: str, path: str, value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A planned job before and after a change below spec."""
    old = copy.deepcopy(OCR if kind == "OcrJob" else EMBEDDING)
    new = copy.deepcopy(old)
    *around, name = path.split(".")
    part = new["spec"]
    for step in around:
        part = part[step]
    if value is ABSENT:
        del part[name]
    else:
        part[name] = value
    return old, new


@functools.cache
def compiled(expression: str) -> celpy.Runner:
    environment = celpy.Environment()
    return environment.program(environment.compile(expression))


def refused_by_cel(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    values = {"self": json_to_cel(new), "oldSelf": json_to_cel(old)}
    rules = fixed_rules(old["kind"])
    return [rule.path for rule in rules if not compiled(rule.as_validation()["rule"]).evaluate(values)]


def parsed(value: dict[str, Any]) -> Job:
    return KINDS[value["kind"]].model_validate(value)


def field_paths(part: dict[str, Any], path: str) -> Iterator[str]:
    """Every field of a schema that holds no further fields."""
    fields = part.get("properties") or part.get("items", {}).get("properties")
    mark = "[]" if "properties" not in part and fields else ""
    if not fields:
        yield path
    for name, inner in (fields or {}).items():
        yield from field_paths(inner, f"{path}{mark}.{name}".removeprefix("."))


@pytest.mark.parametrize("kind", KINDS)
def test_mutability_every_field_of_the_schema_is_classified(kind: str) -> None:
    paths = list(field_paths(job_schema(kind)["properties"]["spec"], ""))
    assert len(paths) > 80
    for path in paths:
        assert isinstance(change_of(kind, path), Change), path


@pytest.mark.parametrize("kind", KINDS)
def test_mutability_table_names_only_fields_that_exist(kind: str) -> None:
    paths = list(field_paths(job_schema(kind)["properties"]["spec"], ""))
    unknown = [
        entry
        for entry in CHANGES[kind]
        if not any(path == entry or path.startswith((f"{entry}.", f"{entry}[")) for path in paths)
    ]
    assert unknown == []


def test_mutability_unknown_field_is_an_error_not_a_default() -> None:
    with pytest.raises(KeyError, match="spec.newField is not classified"):
        change_of("OcrJob", "newField")


@pytest.mark.parametrize("kind", KINDS)
def test_mutability_fixed_fields_are_all_compared_by_a_rule(kind: str) -> None:
    compared = (*fixed_paths(kind), "stages[]")
    fixed = [path for path, change in CHANGES[kind].items() if change.is_fixed]
    assert [path for path in fixed if not path.startswith(compared)] == []


@pytest.mark.parametrize(("kind", "path", "value"), FIXED_CHANGES)
def test_mutability_change_of_a_fixed_field_is_refused_once_planned(kind: str, path: str, value: Any) -> None:
    old, new = edited(kind, path, value)
    want = refused_by_cel(old, new)
    assert want
    assert list(changed_fixed_paths(parsed(old), parsed(new))) == want


@pytest.mark.parametrize(("kind", "path", "value"), FREE_CHANGES)
def test_mutability_change_of_a_free_field_is_accepted_once_planned(kind: str, path: str, value: Any) -> None:
    old, new = edited(kind, path, value)
    assert refused_by_cel(old, new) == []
    assert changed_fixed_paths(parsed(old), parsed(new)) == ()


@pytest.mark.parametrize(("kind", "path", "value"), FIXED_CHANGES)
@pytest.mark.parametrize("status", [None, {"phase": "Pending"}], ids=["no status", "not planned"])
def test_mutability_any_field_is_free_before_planning(kind: str, path: str, value: Any, status: Any) -> None:
    old, new = edited(kind, path, value)
    del old["status"]
    if status is not None:
        old["status"] = status
    assert refused_by_cel(old, new) == []
    assert changed_fixed_paths(parsed(old), parsed(new)) == ()


def test_mutability_field_removed_and_added_again_cannot_be_changed_that_way() -> None:
    old, without = edited("OcrJob", "maxItems", ABSENT)
    _, other = edited("OcrJob", "maxItems", 6)
    assert refused_by_cel(old, without) == ["maxItems"]
    assert refused_by_cel(without, other) == ["maxItems"]


def test_mutability_jobs_of_two_kinds_are_not_compared() -> None:
    with pytest.raises(ValueError, match="cannot compare OcrJob with EmbeddingJob"):
        changed_fixed_paths(parsed(OCR), parsed(EMBEDDING))
