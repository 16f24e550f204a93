"""What autoscalers are told of jobs' backlogs."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pagemill_core.api.v1alpha1 import JobStatus
from pagemill_core.errors import ClusterUnsuitableError
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_operator.cache import Cache
from pagemill_operator.external_metrics import (
    AUTHENTICATION,
    ITEMS,
    SHARDS,
    ExternalMetrics,
    SelectorError,
    api_server_only,
    backlog,
    parse_selector,
)
from pagemill_operator.testing.fake_kube import FakeKube

STATUS = {
    "phase": "Running",
    "items": {"total": 100, "succeeded": 40, "failed": 3, "skipped": 7},
    "shards": {"total": 10, "succeeded": 4, "failed": 1},
}


def make_job(name: str, namespace: str = "team", **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "pagemill.dev/v1alpha1",
        "kind": "OcrJob",
        "metadata": {"name": name, "namespace": namespace, "uid": name, "resourceVersion": "1", "generation": 1},
        "spec": {"source": {"images": {"uri": "s3://bucket/in"}}, "output": {"uri": "s3://bucket/out"}},
        "status": {**STATUS, **status},
    }


@pytest.mark.parametrize(
    ("metric", "status", "want"),
    [
        (ITEMS, STATUS, 50),
        (SHARDS, STATUS, 5),
        (ITEMS, {**STATUS, "phase": "Queued"}, 50),
        (ITEMS, {**STATUS, "phase": "Suspended"}, 0),
        (ITEMS, {**STATUS, "phase": "Succeeded"}, 0),
        (ITEMS, {"phase": "Running"}, 0),
        (SHARDS, {}, 0),
        ("pods", STATUS, None),
    ],
    ids=["items", "shards", "queued", "suspended", "succeeded", "no-plan", "new", "unknown"],
)
def test_backlog_is_what_is_left_of_a_job_at_work(metric: str, status: dict[str, Any], want: int | None) -> None:
    assert backlog(metric, JobStatus.model_validate(status)) == want


@pytest.mark.parametrize("text", ["job!=a", "job in (a)", "!job", "job"], ids=["not", "in", "absent", "exists"])
def test_selector_that_is_no_equality_is_refused(text: str) -> None:
    with pytest.raises(SelectorError):
        parse_selector(text)


def test_values_are_those_of_the_namespace_and_the_selector() -> None:
    cache = Cache()
    for body in (make_job("comics"), make_job("books"), make_job("comics", "other")):
        cache.put_custom(body)
    served = ExternalMetrics(cache, FakeClock())

    found = served.values("team", ITEMS, "job=comics,kind=OcrJob")

    assert [(one["metricLabels"], one["value"]) for one in found] == [({"job": "comics", "kind": "OcrJob"}, "50")]
    assert len(served.values("team", ITEMS, "")) == 2
    assert served.values("team", "pods", "") == []
    assert served.values("nobody", ITEMS, "") == []


def make_certificate(folder: Path) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + dt.timedelta(days=36500))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "tls.crt").write_bytes(certificate)
    (folder / "tls.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain))
    return certificate.decode()


def test_connections_need_the_certificate_of_the_api_servers_proxy(tmp_path: Path) -> None:
    kube = FakeKube(FakeClock())
    kube.put(
        AUTHENTICATION,
        {"metadata": {"name": "x"}, "data": {"requestheader-client-ca-file": make_certificate(tmp_path)}},
    )

    context = asyncio.run(api_server_only(kube, tmp_path))

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert len(context.get_ca_certs()) == 1


def test_cluster_without_aggregation_is_told(tmp_path: Path) -> None:
    kube = FakeKube(FakeClock())
    kube.put(AUTHENTICATION, {"metadata": {"name": "x"}, "data": {}})

    with pytest.raises(ClusterUnsuitableError, match="aggregated"):
        asyncio.run(api_server_only(kube, tmp_path))
