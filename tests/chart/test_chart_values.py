"""The chart's values: what is taken, what is refused and how, and what reaches the operator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from charttools.pytest_plugin import CHART, helm, render
from charttools.values_schema import FROM_OTHER_VALUES

from pagemill_operator.settings import Config, OperatorSettings, parse_config

pytestmark = pytest.mark.chart("helm")

VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))


def of_kind(manifests: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def settings_of(manifests: list[dict[str, Any]]) -> Config:
    """The settings file as the operator would read it."""
    (found,) = [one for one in of_kind(manifests, "ConfigMap") if one["metadata"]["name"].endswith("-settings")]
    return parse_config(yaml.safe_load(found["data"]["operator.yaml"]))


def test_values_offer_every_setting_of_the_operator() -> None:
    fields = {field.alias or name for name, field in Config.model_fields.items()}

    assert VALUES["config"].keys() == fields - set(FROM_OTHER_VALUES)


def test_values_default_to_what_the_operator_defaults_to() -> None:
    found = settings_of(render())

    image = found.images.default
    assert image is not None
    assert image.image == "ghcr.io/pagemill/worker:0.1.0"
    assert found.model_copy(update={"images": found.images.model_copy(update={"default": None})}) == Config()


def test_values_of_the_process_default_to_what_the_operator_defaults_to() -> None:
    (deployment,) = of_kind(render(), "Deployment")
    given = {one["name"]: one["value"] for one in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    found = OperatorSettings.model_validate(
        {name.removeprefix("PAGEMILL_").lower(): value for name, value in given.items()}
    )

    assert found.served_namespaces == ("team-a",)
    assert found.model_copy(update={"namespaces": ""}) == OperatorSettings()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_become_settings_that_the_operator_reads(example: Path) -> None:
    assert settings_of(render("--values", example)).outputs


def test_everything_example_becomes_what_it_says() -> None:
    found = settings_of(render("--values", CHART / "examples" / "everything.yaml"))

    gpu = found.pool("gpu")
    assert gpu is not None
    assert gpu.accelerator is not None
    assert [store.secret_path for store in found.stores] == [Path("/var/run/pagemill/stores/0"), None]
    assert found.allowed_endpoints == ["https://models.example.org/v1", "https://minio.storage.svc:9000"]
    assert found.read_secrets_in == ["team-a"]
    assert found.reserved_secrets == ["operator-store"]
    assert found.worker_service_account == "pagemill-worker"


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ({"scop": {}}, "scop"),
        ({"image": {"repository": "a:tag"}}, "/image/repository"),
        ({"image": {"digest": "latest"}}, "/image/digest"),
        ({"config": {"pools": []}}, "/config/pools"),
        ({"config": {"pools": [{"name": "cpu", "cpus": 1}]}}, "cpus"),
        ({"config": {"stores": []}}, "stores"),
        ({"config": {"limits": {"graceSeconds": 0}}}, "/config/limits/graceSeconds"),
        ({"stores": [{"endpoint": "minio:9000"}]}, "/stores/0/endpoint"),
        ({"stores": [{"accessKey": "x"}]}, "accessKey"),
        ({"readSecrets": [{"namespace": "team-a", "names": []}]}, "/readSecrets/0/names"),
        ({"scope": {"namespaces": ["Team"]}}, "/scope/namespaces/0"),
        ({"operator": {"logLevel": "info"}}, "/operator/logLevel"),
        ({"metrics": {"serviceMonitor": {"interval": "often"}}}, "/metrics/serviceMonitor/interval"),
        ({"recurring": {"jobs": [{"name": "a" * 50, "schedule": "x", "job": {}}]}}, "/recurring/jobs/0"),
        ({"networkPolicy": {"egressPorts": []}}, "/networkPolicy/egressPorts"),
    ],
    ids=lambda given: given.replace("/", "-") if isinstance(given, str) else "",
)
def test_values_that_are_wrong_are_refused_by_path(values: dict[str, Any], want: str, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))

    made = helm("template", "pagemill", CHART, "--values", file)

    assert made.returncode != 0
    assert want in made.stderr


JOB = {"kind": "OcrJob", "spec": {"source": {"images": {"uri": "s3://a/b"}}, "output": {"uri": "s3://a/c"}}}


def series(**changes: Any) -> dict[str, Any]:
    return {"name": "comics", "schedule": "@daily", "job": JOB, **changes}


def recurring(**spec: Any) -> dict[str, Any]:
    return {"enabled": True, "jobs": [series(job={"kind": "OcrJob", "spec": {**JOB["spec"], **spec}})]}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ({"scope": {"clusterWide": True, "namespaces": ["a"]}}, "clusterWide or namespaces, not both"),
        ({"recurring": {"jobs": [series()]}}, "need recurring.enabled"),
        ({"recurring": {"enabled": True}, "scope": {"clusterWide": True}}, "name the namespaces for recurring runs"),
        ({"recurring": {"enabled": True, "jobs": [series(namespace="b")]}}, "no account for it"),
        ({"recurring": recurring(incremental=False)}, "would do everything again"),
        ({"recurring": recurring(source={"retryOf": {"run": "x"}})}, "retryOf is one run's failures"),
        ({"recurring": recurring(output={"uri": "s3://a/c", "files": "Single"})}, "recurring runs add files"),
        ({"readSecrets": [{"namespace": "b", "names": ["x"]}]}, "namespace b is not served"),
        (
            {"worker": {"serviceAccount": {"create": True}}, "scope": {"clusterWide": True}},
            "create the accounts yourself",
        ),
    ],
    ids=["both-scopes", "off", "no-list", "no-account", "everything-again", "retry", "single", "unserved", "accounts"],
)
def test_values_that_contradict_each_other_say_what_to_do(values: dict[str, Any], want: str, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))

    made = helm("template", "pagemill", CHART, "--namespace", "team-a", "--values", file)

    assert made.returncode != 0
    assert want in made.stderr


def test_notes_teach_the_next_step() -> None:
    plain = helm("install", "pagemill", CHART, "--namespace", "team-a", "--dry-run=client")
    example = CHART / "examples" / "recurring.yaml"
    whole = helm("install", "pagemill", CHART, "--namespace", "team-a", "--dry-run=client", "--values", example)

    assert "No job is accepted yet" in plain.stdout
    assert "kubectl apply -n team-a -f ocrjob.yaml" in plain.stdout
    assert "s3://library/" in whole.stdout
    assert "team-a/comics: 0 2 * * * Europe/Berlin" in whole.stdout
