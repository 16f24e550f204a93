"""helm install, upgrade and uninstall on a control plane of their own: what comes, what changes, what stays."""

from __future__ import annotations

import copy
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from charttools.pytest_plugin import CHART, helm, render
from testcluster.api import Json, KubeApi, object_path
from testcluster.cluster import Cluster
from testcluster.lease import leased
from testcluster.settings import Settings

pytestmark = [pytest.mark.cluster, pytest.mark.chart("helm", "helm3", "kubectl")]

CRDS = object_path("apiextensions.k8s.io/v1", "customresourcedefinitions")
OCRJOBS = f"{CRDS}/ocrjobs.pagemill.dev"
JOB: Json = {
    "apiVersion": "pagemill.dev/v1alpha1",
    "kind": "OcrJob",
    "metadata": {"name": "comics"},
    "spec": {"source": {"images": {"uri": "s3://library/in"}}, "output": {"uri": "s3://library/out"}},
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A control plane without CRDs of ours."""
    with leased(Settings(name=f"chart-{secrets.token_hex(4)}")) as found:
        yield found


class Release:
    """A release `pagemill` in a namespace of its own."""

    def __init__(self, cluster: Cluster, folder: Path, program: str) -> None:
        self.api: KubeApi = cluster.api()
        self.namespace = f"team-{secrets.token_hex(4)}"
        self.program = program
        self.cluster = cluster
        # HOME too: Helm would else keep what it discovers of a cluster in the folder it is started from.
        self._homes = {f"HELM_{name}_HOME": str(folder / name) for name in ("CACHE", "CONFIG", "DATA")}
        self._homes["HOME"] = str(folder)

    def helm(self, *words: str | Path) -> str:
        options = (f"--kubeconfig={self.cluster.kubeconfig}", f"--namespace={self.namespace}")
        made = helm(*words, *options, program=self.program, env={**self._homes, "PATH": "/usr/bin:/bin"})
        assert made.returncode == 0, made.stderr
        return made.stdout

    def crds(self) -> list[str]:
        found = self.api.call("GET", CRDS)["items"]
        return sorted(name for one in found if (name := one["metadata"]["name"]).endswith("pagemill.dev"))

    def exists(self, manifest: dict[str, Any]) -> bool:
        """Whether the cluster has this object of the chart's."""
        plural = manifest["kind"].lower() + "s"
        namespace = manifest["metadata"].get("namespace", "")
        place = object_path(manifest["apiVersion"], plural, namespace, manifest["metadata"]["name"])
        return self.api.read_or_none(place) is not None

    def apply_job(self) -> None:
        """Create JOB as soon as the server serves its kind, which it does a moment after the CRD came."""
        deadline = time.monotonic() + 30
        while (answer := self.api.ask("POST", self.job.rpartition("/")[0], JOB)).is_error:
            assert time.monotonic() < deadline, answer.message
            time.sleep(0.2)

    @property
    def job(self) -> str:
        return object_path("pagemill.dev/v1alpha1", "ocrjobs", self.namespace, "comics")


@pytest.fixture(params=["helm", "helm3"])
def release(cluster: Cluster, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Release]:
    found = Release(cluster, tmp_path, request.param)
    yield found
    for name in found.crds():
        found.api.call("DELETE", f"{CRDS}/{name}")
        found.api.wait_for(f"{CRDS}/{name}", lambda crd: crd is None)
    found.api.close()


def test_release_comes_changes_and_goes_and_leaves_what_is_the_users(release: Release) -> None:
    release.helm("install", "pagemill", CHART, "--create-namespace")
    manifests = render(namespace=release.namespace)
    assert [one["kind"] for one in manifests if not release.exists(one)] == []
    assert release.crds() == ["embeddingjobs.pagemill.dev", "ocrjobs.pagemill.dev"]
    release.apply_job()

    release.helm("upgrade", "pagemill", CHART, "--set=kueue.enabled=true", '--set-json=config.outputs={"*":["s3://b"]}')
    settings = release.api.call("GET", object_path("v1", "configmaps", release.namespace, "pagemill-settings"))
    role = object_path("rbac.authorization.k8s.io/v1", "roles", release.namespace, "pagemill")
    assert yaml.safe_load(settings["data"]["operator.yaml"])["outputs"] == {"*": ["s3://b"]}
    assert any("workloads" in rule["resources"] for rule in release.api.call("GET", role)["rules"])

    release.helm("rollback", "pagemill", "1")
    assert not any("workloads" in rule["resources"] for rule in release.api.call("GET", role)["rules"])

    release.helm("uninstall", "pagemill")
    assert [one["kind"] for one in manifests if release.exists(one)] == []
    assert release.crds() == ["embeddingjobs.pagemill.dev", "ocrjobs.pagemill.dev"]
    assert release.api.call("GET", release.job)["spec"] == JOB["spec"] | {"workers": {"parallelism": 1, "pool": "cpu"}}


def test_crds_are_upgraded_by_the_documented_command(release: Release, cluster: Cluster) -> None:
    old = yaml.safe_load((CHART / "crds" / "ocrjobs.pagemill.dev.yaml").read_text(encoding="utf-8"))
    spec = old["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    older = copy.deepcopy(old)
    properties = older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    del properties["maxItems"]
    _drop_rules_on(older, "maxItems")
    release.api.call("POST", CRDS, older)
    release.api.wait_for(OCRJOBS, lambda crd: "status" in crd and "Established" in str(crd["status"]))
    release.helm("install", "pagemill", CHART, "--create-namespace", "--skip-crds")
    release.apply_job()
    before = _fields(release.api)

    text = release.helm("show", "crds", CHART)
    words = ("apply", "--server-side", "--force-conflicts", "--filename=-")
    cluster.kubectl(*words, text=text)

    assert "maxItems" not in before
    assert _fields(release.api) == spec["properties"].keys()
    assert release.api.call("GET", release.job)["metadata"]["name"] == "comics"
    release.helm("upgrade", "pagemill", CHART)
    release.helm("uninstall", "pagemill")


def test_crds_of_somebody_else_are_left_alone(release: Release) -> None:
    crd = yaml.safe_load((CHART / "crds" / "ocrjobs.pagemill.dev.yaml").read_text(encoding="utf-8"))
    crd["spec"]["names"]["categories"] = ["pagemill", "ours"]
    release.api.call("POST", CRDS, crd)
    options = ("--namespace", release.namespace, "--create-namespace", f"--kubeconfig={release.cluster.kubeconfig}")

    plain = helm("install", "pagemill", CHART, *options, program=release.program)

    assert release.api.call("GET", OCRJOBS)["spec"]["names"]["categories"] == ["pagemill", "ours"]
    if release.program == "helm3":
        assert plain.returncode == 0
    else:  # helm 4 applies CRDs, and does not take fields from who wrote them
        assert "conflict" in plain.stderr
        release.helm("install", "pagemill", CHART, "--create-namespace", "--skip-crds")
    release.helm("uninstall", "pagemill")


def _fields(api: KubeApi) -> set[str]:
    """The fields of an OcrJob's spec that the server knows."""
    version = api.call("GET", OCRJOBS)["spec"]["versions"][0]
    return set(version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"])


def _drop_rules_on(part: Any, field: str) -> None:
    """Leave out the rules that name a field, at every depth."""
    if isinstance(part, list):
        for item in part:
            _drop_rules_on(item, field)
    elif isinstance(part, dict):
        rules = part.get("x-kubernetes-validations")
        if rules:
            part["x-kubernetes-validations"] = [rule for rule in rules if field not in rule["rule"]]
        for value in part.values():
            _drop_rules_on(value, field)


def test_second_release_for_a_served_namespace_is_refused(release: Release) -> None:
    release.helm("install", "pagemill", CHART, "--create-namespace")
    other = f"{release.namespace}-2"
    options = (f"--kubeconfig={release.cluster.kubeconfig}", f"--namespace={other}", "--create-namespace")
    scope = f"--set=scope.namespaces={{{release.namespace}}}"

    made = helm("install", "pagemill", CHART, scope, *options, program=release.program)

    assert made.returncode != 0
    assert "pagemill" in made.stderr
    assert "invalid ownership metadata" in made.stderr or "already exists" in made.stderr
    release.helm("uninstall", "pagemill")
