"""What a job may not do here, field by field: who may create one must not become more than that."""

from __future__ import annotations

from typing import Any

import pytest

from pagemill_core.api.conditions import Reason
from pagemill_operator.objects import read_custom
from pagemill_operator.reconcile.accept import is_below, refusal
from pagemill_operator.reconcile.observed import Observed
from pagemill_operator.settings import parse_config

CONFIG = parse_config(
    {
        "pools": [{"name": "cpu"}, {"name": "gpu", "accelerator": {}}],
        "images": {"engines": {"rapidocr": "worker:1", "vlm": "worker:1"}},
        "outputs": {"*": ["s3://shared/{namespace}"], "books": ["s3://books/out/"]},
        "allowedEndpoints": ["https://s3.example.org", "https://models.example.org/v1"],
        "limits": {"maxParallelism": 50},
        "reservedSecrets": ["pagemill-operator-store"],
        "claimNamePattern": "scans*",
        "labelKeyPatterns": ["example.org/*"],
    }
)


def refused(missing_secrets: tuple[str, ...] = (), **spec: Any) -> tuple[str, str]:
    body = {
        "apiVersion": "pagemill.dev/v1alpha1",
        "kind": "OcrJob",
        "metadata": {"name": "comics", "namespace": "books", "uid": "u", "generation": 1},
        "spec": {"source": {"manifest": {"uri": "s3://library/m.csv"}}, "output": {"uri": "s3://books/out/x"}, **spec},
    }
    seen = Observed(custom=read_custom(body), config=CONFIG, now_s=0.0, missing_secrets=missing_secrets)
    found = refusal(seen)
    return ("", "") if found is None else (found.reason, found.message)


def test_ordinary_job_is_accepted() -> None:
    assert refused() == ("", "")
    assert refused(output={"uri": "s3://shared/books"}) == ("", "")
    assert refused(storage={"endpoint": "https://s3.example.org", "secretRef": {"name": "pagemill-s3"}}) == ("", "")


VLM = {"name": "vlm", "model": "m"}


@pytest.mark.parametrize(
    ("spec", "want_reason", "want_word"),
    [
        ({"output": {"uri": "/scans/out"}}, Reason.OUTPUT_UNREACHABLE, "s3://bucket/prefix"),
        (
            {"storage": {"secretRef": {"name": "pagemill-operator-store"}}},
            Reason.SECRET_NOT_ALLOWED,
            "the operator's own",
        ),
        (
            {"storage": {"volumes": [{"claimName": "database", "mountPath": "/scans"}]}},
            Reason.INVALID_SPEC,
            "'scans*'",
        ),
        ({"workers": {"template": {"labels": {"app": "x"}}}}, Reason.INVALID_SPEC, "allowed: example.org/*"),
        ({"output": {"uri": "s3://other/out"}}, Reason.OUTPUT_NOT_ALLOWED, "s3://books/out/"),
        ({"output": {"uri": "s3://books/outside"}}, Reason.OUTPUT_NOT_ALLOWED, "may write to"),
        ({"output": {"uri": "s3://shared/others"}}, Reason.OUTPUT_NOT_ALLOWED, "s3://shared/books"),
        ({"output": {"uri": "s3://shared/books-evil"}}, Reason.OUTPUT_NOT_ALLOWED, "may write to"),
        ({"storage": {"endpoint": "http://169.254.169.254"}}, Reason.ENDPOINT_NOT_ALLOWED, "storage.endpoint"),
        ({"storage": {"endpoint": "https://s3.example.org.evil"}}, Reason.ENDPOINT_NOT_ALLOWED, "allowed are"),
        ({"storage": {"endpoint": "https://s3.example.org:8443"}}, Reason.ENDPOINT_NOT_ALLOWED, "allowed are"),
        ({"storage": {"endpoint": "http://s3.example.org"}}, Reason.ENDPOINT_NOT_ALLOWED, "allowed are"),
        (
            {"engine": {**VLM, "endpoint": "https://kubernetes.default.svc"}},
            Reason.ENDPOINT_NOT_ALLOWED,
            "engine.endpoint",
        ),
        (
            {"engine": {**VLM, "endpoint": "https://models.example.org/v1/../admin"}},
            Reason.ENDPOINT_NOT_ALLOWED,
            "engine.endpoint",
        ),
        ({"engine": {**VLM, "endpoint": "https://models.example.org/v11"}}, Reason.ENDPOINT_NOT_ALLOWED, "engine"),
        ({"storage": {"secretRef": {"name": "admin-token"}}}, Reason.SECRET_NOT_ALLOWED, "pagemill-*"),
        ({"storage": {"caSecretRef": {"name": "admin-token"}}}, Reason.SECRET_NOT_ALLOWED, "caSecretRef"),
        (
            {"engine": {**VLM, "apiKeySecretRef": {"name": "admin-token"}}},
            Reason.SECRET_NOT_ALLOWED,
            "apiKeySecretRef",
        ),
        (
            {"workers": {"template": {"imagePullSecrets": [{"name": "other-registry"}]}}},
            Reason.SECRET_NOT_ALLOWED,
            "imagePullSecrets",
        ),
        ({"workers": {"pool": "tpu"}}, Reason.POOL_UNKNOWN, "cpu, gpu"),
        ({"engine": {"name": "tesseract"}}, Reason.IMAGE_UNKNOWN, "rapidocr, vlm"),
        ({"workers": {"parallelism": 51}}, Reason.INVALID_SPEC, "at most 50"),
        ({"workers": {"priorityClass": "system-node-critical"}}, Reason.INVALID_SPEC, "priorityClass"),
        ({"workers": {"resources": {"limits": {"nvidia.com/gpu": "8"}}}}, Reason.INVALID_SPEC, "nvidia.com/gpu"),
        ({"engine": {"options": {"x": "y" * 210_000}}}, Reason.INVALID_SPEC, "bytes"),
    ],
)
def test_job_that_reaches_for_more_is_refused(spec: dict[str, Any], want_reason: Reason, want_word: str) -> None:
    reason, message = refused(**spec)

    assert reason == want_reason
    assert want_word in message


def test_secret_that_is_not_there_is_named() -> None:
    found = refused(missing_secrets=("pagemill-s3",), storage={"secretRef": {"name": "pagemill-s3"}})

    assert found[0] == Reason.SECRET_MISSING
    assert "pagemill-s3" in found[1]


def test_spec_of_another_release_is_explained_by_its_field() -> None:
    reason, message = refused(workers={"threads": 4})

    assert reason == Reason.INVALID_SPEC
    assert "workers.threads" in message


def test_settings_without_outputs_allow_none() -> None:
    body = {
        "apiVersion": "pagemill.dev/v1alpha1",
        "kind": "OcrJob",
        "metadata": {"name": "comics", "namespace": "books", "uid": "u", "generation": 1},
        "spec": {"source": {"manifest": {"uri": "s3://library/m.csv"}}, "output": {"uri": "s3://library/x"}},
    }
    config = parse_config({"images": {"default": "worker:1"}})

    found = refusal(Observed(custom=read_custom(body), config=config, now_s=0.0))

    assert found is not None
    assert found.reason == Reason.OUTPUT_NOT_ALLOWED
    assert "it may write to: nothing" in found.message


@pytest.mark.parametrize(
    ("uri", "prefix", "want"),
    [
        ("s3://a/b", "s3://a/b", True),
        ("s3://a/b/c", "s3://a/b", True),
        ("s3://a/bc", "s3://a/b", False),
        ("s3://a/b", "s3://a/b/", False),
        ("s3://a/b", "s3://", True),
        ("s3://ab/c", "s3://a", False),
    ],
)
def test_below_means_whole_segments(uri: str, prefix: str, want: bool) -> None:
    assert is_below(uri, prefix) is want
