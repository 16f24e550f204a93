"""The chart against a real API server: objects are taken strictly, rights are the ones used, the board shows data.

Only a control plane is needed: the operator runs as a process of its own, under the rights that the chart gives.
"""

from __future__ import annotations

import json
import re
import secrets
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from charttools import dashboard, programs, schemas
from charttools.pytest_plugin import CHART, ROOT, render
from testcluster.api import MERGE_PATCH, Json, KubeApi, object_path
from testcluster.cluster import Cluster
from testcluster.lease import leased
from testcluster.pytest_plugin import Kubernetes
from testcluster.settings import Settings

from pagemill_core.errors import SourceError
from pagemill_core.testing.seaweed import SeaweedServer
from pagemill_operator.testing.fake_pods import Habits
from pagemill_operator.testing.played_stage import QUEUE_RULES, RULES, PlayedStage

pytestmark = [pytest.mark.cluster, pytest.mark.chart("helm", "kubectl")]

EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
EVERYTHING = CHART / "examples" / "everything.yaml"
Right = tuple[str, str, str]  # group, resource, verb
RBAC = "rbac.authorization.k8s.io/v1"


@pytest.fixture(scope="module")
def own(kubernetes: Kubernetes) -> Iterator[Cluster]:
    """A cluster whose audit log is at hand, also where KUBECONFIG names another one."""
    if kubernetes.own is not None:
        yield kubernetes.own
        return
    with leased(Settings(name=f"audit-{secrets.token_hex(4)}")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def monitoring(kube_api: KubeApi) -> None:
    """prometheus-operator's CRDs, and the namespaces that the examples name."""
    for path in programs.monitoring_crds():
        crd = yaml.safe_load(path.read_text(encoding="utf-8"))
        place = object_path("apiextensions.k8s.io/v1", "customresourcedefinitions", name=crd["metadata"]["name"])
        kube_api.apply(place, crd)
        kube_api.wait_for(place, _is_established)
    for name in ("team-a", "team-b"):
        kube_api.apply(
            f"/api/v1/namespaces/{name}", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        )


def _is_established(crd: Json) -> bool:
    return any(
        one["type"] == "Established" and one["status"] == "True"
        for one in (crd or {}).get("status", {}).get("conditions") or []
    )


def dry_run(kubernetes: Kubernetes, manifests: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    """Give manifests to the API server, which checks everything and keeps nothing."""
    command = [programs.path_of("kubectl"), f"--kubeconfig={kubernetes.kubeconfig}", "apply", "--filename=-"]
    text = yaml.safe_dump_all(manifests)
    return subprocess.run(
        [*command, "--dry-run=server", "--validate=strict"], input=text, capture_output=True, text=True, check=False
    )


@pytest.mark.usefixtures("monitoring")
@pytest.mark.parametrize("example", [None, *EXAMPLES], ids=lambda path: path.stem if path else "defaults")
def test_server_takes_every_object_strictly(kubernetes: Kubernetes, example: Path | None) -> None:
    made = dry_run(kubernetes, render(*(["--values", example] if example else [])))

    assert made.returncode == 0, made.stderr
    assert "Warning" not in made.stderr


@pytest.mark.usefixtures("monitoring")
@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("ServiceMonitor", ("spec", "endpoints", 0, "intervall"), "30s"),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0, "for"), "5 minutes"),
        ("CronJob", ("spec", "scheduel"), "@daily"),
        ("Deployment", ("spec", "replicas"), "one"),
    ],
    ids=["monitor", "rule", "cron-job", "deployment"],
)
def test_server_would_refuse_a_chart_with_a_typo(
    kubernetes: Kubernetes, kind: str, path: tuple[str | int, ...], value: str
) -> None:
    (manifest,) = [one for one in render("--values", EVERYTHING) if one["kind"] == kind]
    part: Any = manifest
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value

    assert dry_run(kubernetes, [manifest]).returncode != 0


@pytest.mark.chart("kubeconform")
@pytest.mark.usefixtures("monitoring")
def test_objects_fit_the_schemas_of_the_real_server(kube_api: KubeApi, tmp_path: Path) -> None:
    for name, schema in schemas.from_openapi(kube_api.call("GET", "/openapi/v2")).items():
        (tmp_path / name).write_text(json.dumps(schema))
    files = []
    for example in EXAMPLES:
        files.append(tmp_path / f"{example.stem}.yaml")
        files[-1].write_text(yaml.safe_dump_all(render("--values", example)))
    bad = tmp_path / "bad.yaml"
    text = files[0].read_text().replace("replicas: 1", "replicaz: 1")
    bad.write_text(text)
    command = [
        programs.path_of("kubeconform"),
        "-strict",
        "-summary",
        f"-schema-location={tmp_path}/{schemas.LOCATION}",
    ]

    good = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    found = subprocess.run([*command, bad], capture_output=True, text=True, check=False)

    assert good.returncode == 0, good.stdout + good.stderr
    assert "Skipped: 0" in good.stdout
    assert found.returncode != 0
    assert "replicaz" in found.stdout


# -- rights -----------------------------------------------------------------------------------------------------------


def rights(rules: list[Json]) -> set[Right]:
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def role_of(*arguments: str, kind: str = "Role", name: str = "pagemill") -> set[Right]:
    (role,) = [one for one in render(*arguments) if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return rights(role["rules"])


def test_role_is_what_the_operator_is_tested_with() -> None:
    assert role_of() == rights(RULES)
    assert role_of("--set=scope.clusterWide=true", kind="ClusterRole", name="team-a-pagemill") == rights(RULES)
    assert role_of("--set=kueue.enabled=true") == rights([*RULES, *QUEUE_RULES])


@pytest.fixture(scope="module")
def s3_server() -> Iterator[SeaweedServer]:
    with SeaweedServer() as server:
        yield server


@pytest.fixture
def stage(own: Cluster, s3_server: SeaweedServer, tmp_path: Path) -> Iterator[PlayedStage]:
    """An operator process in a namespace of the cluster whose audit log is at hand."""
    name = f"pagemill-test-{secrets.token_hex(4)}"
    with own.api() as api:
        api.call("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        found = PlayedStage(api, own.kubeconfig, name, s3_server, tmp_path)
        found.pods.start()
        yield found
        found.kill()
        found.pods.stop()
        api.call("DELETE", f"/api/v1/namespaces/{name}")


def used(own: Cluster, namespace: str) -> set[Right]:
    """What the audit log saw the operator's account of a namespace do."""
    user = f"system:serviceaccount:{namespace}:operator"
    found = set()
    with (own.layout.logs / "audit.jsonl").open(encoding="utf-8") as log:
        for line in log:
            if user not in line:
                continue
            event = json.loads(line)
            reference = event.get("objectRef") or {}
            if event["user"]["username"] == user and reference.get("resource") != "selfsubjectaccessreviews":
                resource = "/".join(filter(None, (reference["resource"], reference.get("subresource"))))
                found.add((reference.get("apiGroup", ""), resource, event["verb"]))
    return found


def both_kinds(found: set[Right]) -> set[Right]:
    """Rights with the kinds taken for one: one code serves both, and this scenario has jobs of one."""
    return {(group, resource.replace("embeddingjobs", "ocrjobs"), verb) for group, resource, verb in found}


def disturb(stage: PlayedStage, own: Cluster) -> None:
    """Change a job until a status that was decided on an older object was refused, and the object read."""
    deadline = time.monotonic() + 60
    read = ("pagemill.dev", "ocrjobs", "get")
    while read not in used(own, stage.namespace) and time.monotonic() < deadline:
        for number in range(60):
            patch = {"metadata": {"annotations": {"example.org/number": str(number)}}}
            stage.api.call("PATCH", stage.address(), patch, content_type=MERGE_PATCH)


@pytest.mark.s3
def test_role_has_exactly_the_rights_that_the_operator_used(stage: PlayedStage, own: Cluster) -> None:
    stage.script.habits = Habits(items=900, plan_error=SourceError("manifest.csv, line 7: no id"))
    stage.start()
    stage.apply()
    stage.until_phase("Failed", 90)
    stage.script.habits.plan_error = None
    stage.patch({"maxItems": 900})
    stage.until_phase("Running", 90)
    disturb(stage, own)
    stage.patch({"deadlineSeconds": 1})  # the operator takes the Jobs away
    stage.until_phase("Failed", 90)
    stage.patch({"deadlineSeconds": None})
    stage.until_phase("Succeeded", 120)
    stage.patch({"ttlSecondsAfterFinished": 1})  # the operator deletes the job
    gone = time.monotonic() + 90
    while (job := stage.api.read_or_none(stage.address())) is not None:
        assert time.monotonic() < gone, f"{job['metadata']['generation']} {job['status']} {stage.log()[-8:]}"
        time.sleep(0.2)

    found, granted = both_kinds(used(own, stage.namespace)), both_kinds(role_of())

    assert found - granted == set()
    # Server-side apply of a new object is a patch in the log, and asks for the right to create beside it.
    assert granted - found == {("batch", "jobs", "create")}


def test_roles_of_people_let_editors_apply_and_viewers_look(kubernetes: Kubernetes, namespace: str) -> None:
    api = kubernetes.api
    for manifest in render(namespace=namespace):
        if manifest["kind"] == "ClusterRole":
            api.apply(object_path(RBAC, "clusterroles", name=manifest["metadata"]["name"]), manifest)
    for user, role in (("jane", "edit"), ("joe", "view")):
        body = {
            "apiVersion": RBAC,
            "kind": "RoleBinding",
            "metadata": {"name": user},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}],
        }
        api.call("POST", object_path(RBAC, "rolebindings", namespace), body)
    job = {
        "apiVersion": "pagemill.dev/v1alpha1",
        "kind": "OcrJob",
        "metadata": {"name": "comics"},
        "spec": {"source": {"images": {"uri": "s3://library/in"}}, "output": {"uri": "s3://library/out"}},
    }
    place = object_path("pagemill.dev/v1alpha1", "ocrjobs", namespace)
    api.wait_for(f"/apis/{RBAC}/clusterroles/edit", lambda role: "ocrjobs" in json.dumps(role))
    api.wait_for(f"/apis/{RBAC}/clusterroles/view", lambda role: "ocrjobs" in json.dumps(role))
    jane, joe, jim = (api.as_user(name, "system:authenticated") for name in ("jane", "joe", "jim"))

    answers = {
        "jane creates": jane.ask("POST", place, job).status,
        "jane scales": jane.ask(
            "PATCH",
            f"{place}/comics/scale",
            {"spec": {"replicas": 3}},
            content_type=MERGE_PATCH,
        ).status,
        "jane writes a status": jane.ask(
            "PATCH", f"{place}/comics/status", {"status": {}}, content_type=MERGE_PATCH
        ).status,
        "joe looks": joe.ask("GET", f"{place}/comics").status,
        "joe creates": joe.ask("POST", place, job).status,
        "jim looks": jim.ask("GET", place).status,
    }

    assert answers == {
        "jane creates": 201,
        "jane scales": 200,
        "jane writes a status": 403,
        "joe looks": 200,
        "joe creates": 403,
        "jim looks": 403,
    }
    for manifest in render(namespace=namespace):
        if manifest["kind"] == "ClusterRole":
            api.call("DELETE", object_path(RBAC, "clusterroles", name=manifest["metadata"]["name"]))


# -- metrics ----------------------------------------------------------------------------------------------------------


class Prometheus:
    """A real Prometheus that scrapes one address every second, with the chart's alerts loaded."""

    def __init__(self, folder: Path, target: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(CHART / "files" / "alerts.yaml")],
            "scrape_configs": [
                {"job_name": "pagemill", "static_configs": [{"targets": [target], "labels": {"namespace": "team-a"}}]}
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        command = [
            str(programs.path_of("prometheus")),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        self._log = (folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)

    def ask(self, path: str, **query: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.loads(answer.read())["data"]

    def is_ready(self) -> bool:
        try:
            return bool(self.ask("query", query="up == 1")["result"])
        except OSError:
            return False

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._log.close()


@pytest.mark.s3
@pytest.mark.chart("prometheus")
def test_dashboard_shows_data_of_an_operator_at_work(stage: PlayedStage, tmp_path: Path) -> None:
    stage.script.habits = Habits(items=400)
    stage.start()
    stage.apply()
    stage.until_phase("Running", 90)
    port = next(line["port"] for line in stage.log() if line["message"] == "Started")
    prometheus = Prometheus(tmp_path, f"127.0.0.1:{port}")
    try:
        deadline = time.monotonic() + 30
        while not prometheus.is_ready() and time.monotonic() < deadline:
            time.sleep(0.2)
        stage.until_phase("Succeeded", 120)
        time.sleep(3)  # a few scrapes more
        board = json.loads((ROOT / dashboard.PATH).read_text(encoding="utf-8"))
        empty = [
            target["expr"]
            for panel in board["panels"]
            for target in panel.get("targets", [])
            if not prometheus.ask("query", query=_filled(target["expr"]))["result"]
        ]
        variable = next(one for one in board["templating"]["list"] if one["name"] == "namespace")
        found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"])
        assert found is not None
        values = prometheus.ask(f"label/{found[2]}/values", **{"match[]": found[1]})
        rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
        firing = [rule["name"] for rule in rules if rule["state"] == "firing"]
    finally:
        prometheus.stop()

    assert empty == []
    assert values == ["team-a"]
    assert {rule["health"] for rule in rules} == {"ok"}
    assert firing == []


def _filled(expression: str) -> str:
    """An expression as Grafana sends it."""
    return expression.replace("$namespace", ".*").replace("$__rate_interval", "1m")
