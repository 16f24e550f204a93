"""The command against a real API server, as users with and without rights; pods are played, the operator is real."""

from __future__ import annotations

import io
import os
import secrets
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from testcluster import binaries
from testcluster.api import MERGE_PATCH, KubeApi, object_path
from testcluster.lease import leased
from testcluster.pytest_plugin import Kubernetes
from testcluster.settings import Settings

from pagemill_cli.testing.command import Told, run_command
from pagemill_core.api.v1alpha1 import API_VERSION
from pagemill_core.errors import SourceError
from pagemill_core.recurring import SERVICE_ACCOUNT
from pagemill_core.testing.seaweed import SeaweedServer
from pagemill_operator.testing.fake_pods import Habits
from pagemill_operator.testing.played_stage import PlayedStage

pytestmark = [pytest.mark.cluster, pytest.mark.s3]

JOBS = ["ocrjobs", "embeddingjobs"]
# What a person needs who submits jobs and looks after them.
USER_RULES = [
    {"apiGroups": ["pagemill.dev"], "resources": JOBS, "verbs": ["get", "create", "patch", "delete"]},
    {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"]},
]
SCHEDULER_RULES = [
    {"apiGroups": ["batch"], "resources": ["cronjobs"], "verbs": ["get", "create", "patch"]},
    {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["get"]},
]


class Person:
    """Somebody with a kubeconfig and a job's file, who types commands."""

    def __init__(self, stage: PlayedStage, kubeconfig: Path) -> None:
        self.stage = stage
        self.environment = {"KUBECONFIG": str(kubeconfig)}
        self.file = stage.folder / "job.yaml"
        self.write()

    def write(self, **spec: Any) -> None:
        self.file.write_text(yaml.safe_dump(self.stage.job(**spec)))

    def types(self, *words: object) -> Told:
        return run_command(*words, environment=self.environment)

    def object(self) -> Any:
        return self.stage.api.read_or_none(self.stage.address())


@pytest.fixture(scope="module")
def s3_server() -> Iterator[SeaweedServer]:
    with SeaweedServer() as server:
        yield server


@pytest.fixture
def stage(kubernetes: Kubernetes, namespace: str, s3_server: SeaweedServer, tmp_path: Path) -> Iterator[PlayedStage]:
    found = PlayedStage(kubernetes.api, kubernetes.kubeconfig, namespace, s3_server, tmp_path)
    yield found
    found.kill()
    if found.pods.is_alive():
        found.pods.stop()
    assert found.pods.errors == []


@pytest.fixture
def person(stage: PlayedStage) -> Person:
    return Person(stage, stage.write_kubeconfig(stage.folder / "jane", "jane", USER_RULES))


# -- submit -----------------------------------------------------------------------------------------------------------


def test_submit_creates_the_job_and_says_what_to_type_next(person: Person) -> None:
    dry = person.types("submit", person.file, "--dry-run")
    before = person.object()
    told = person.types("submit", person.file)

    assert (dry.status, before) == (0, None), dry.all
    assert "would be created" in dry.out
    assert told.status == 0, told.all
    namespace = person.stage.namespace
    assert f"ocrjob/comics created in namespace {namespace}" in told.out
    assert f"pagemill status ocrjob/comics -n {namespace} --watch" in told.out
    assert person.object()["spec"]["workers"]["parallelism"] == 2


def test_submit_again_changes_what_may_change(person: Person) -> None:
    person.types("submit", person.file)
    person.write(workers={"parallelism": 7})

    told = person.types("submit", person.file, "-o", "json")

    assert told.status == 0, told.all
    assert (told.json["isNew"], told.json["kind"], told.json["name"]) == (False, "OcrJob", "comics")
    assert person.object()["spec"]["workers"]["parallelism"] == 7


def test_submit_of_a_changed_fixed_field_names_it_and_the_way_out(person: Person) -> None:
    person.types("submit", person.file)
    place = person.stage.address(subresource="status")
    planned = {"status": {"plannedAt": "2026-01-01T00:00:00Z"}}
    person.stage.api.call("PATCH", place, planned, content_type=MERGE_PATCH)
    person.write(engine={"name": "tesseract"})

    told = person.types("submit", person.file)

    assert told.status == 78, told.all
    assert "ocrjob/comics is planned already: spec.engine: engine is fixed once the job is planned" in told.err
    assert "another metadata.name and another output.uri" in told.err


def test_submit_does_not_take_over_what_somebody_else_has_set(person: Person) -> None:
    person.types("submit", person.file)
    person.stage.patch({"replicas": 5}, "scale")
    person.write(workers={"parallelism": 3})

    refused = person.types("submit", person.file)
    between = person.object()["spec"]["workers"]["parallelism"]
    forced = person.types("submit", person.file, "--force")

    assert (refused.status, between) == (75, 5), refused.all
    assert "spec.workers.parallelism" in refused.err
    assert "--force" in refused.err
    assert forced.status == 0, forced.all
    assert person.object()["spec"]["workers"]["parallelism"] == 3


def test_submit_wins_over_what_the_command_itself_has_set(person: Person) -> None:
    person.types("submit", person.file)
    person.types("suspend", "comics")
    person.write(suspend=False)

    told = person.types("submit", person.file)

    assert told.status == 0, told.all
    assert person.object()["spec"]["suspend"] is False


def test_submit_without_a_name_makes_a_job_each_time(person: Person) -> None:
    job = person.stage.job()
    job["metadata"] = {"generateName": "page-"}
    person.file.write_text(yaml.safe_dump(job))

    names = {person.types("submit", person.file, "-o", "json").json["name"] for _ in range(2)}

    assert len(names) == 2


def test_submit_without_rights_says_which(person: Person) -> None:
    stage = person.stage
    person.environment["KUBECONFIG"] = str(stage.write_kubeconfig(stage.folder / "guest", "guest", []))

    told = person.types("submit", person.file)

    assert told.status == 77, told.all
    assert 'cannot patch resource "ocrjobs" in API group "pagemill.dev"' in told.err
    assert f"namespace {stage.namespace} that allows to get, create and patch ocrjobs" in told.err


def test_submit_with_a_dead_login_says_so_without_the_token(person: Person) -> None:
    path = Path(person.environment["KUBECONFIG"])
    config = yaml.safe_load(path.read_text())
    for user in config["users"]:
        user["user"] = {"token": "not-a-token-of-anybody"}
    path.write_text(yaml.safe_dump(config))

    told = person.types("submit", person.file)

    assert told.status == 77, told.all
    assert "does not accept the credentials" in told.err
    assert "not-a-token-of-anybody" not in told.all


def test_submit_to_a_cluster_without_the_kinds_says_how_to_install(person: Person) -> None:
    with leased(Settings(name=f"bare-{secrets.token_hex(4)}")) as bare:
        person.environment["KUBECONFIG"] = str(bare.kubeconfig)
        told = [person.types("submit", person.file), person.types("status", "comics"), person.types("logs", "emb/x")]

    assert [one.status for one in told] == [76, 76, 76], told[0].all
    assert all("helm install pagemill charts/pagemill" in one.err for one in told)


def test_submit_to_a_server_that_is_away_says_which(person: Person) -> None:
    path = Path(person.environment["KUBECONFIG"])
    config = yaml.safe_load(path.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    path.write_text(yaml.safe_dump(config))

    told = person.types("submit", person.file)

    assert told.status == 75, told.all
    assert "https://127.0.0.1:9 of context" in told.err
    assert "does not answer: [Errno 111] Connection refused" in told.err


def test_submit_to_a_namespace_that_is_not_there_says_so(person: Person, kubernetes: Kubernetes) -> None:
    person.environment["KUBECONFIG"] = str(kubernetes.kubeconfig)

    told = person.types("submit", person.file, "-n", "no-such-place")

    assert told.status == 78, told.all
    assert "there is no namespace no-such-place" in told.err


def test_context_that_is_not_there_is_told_with_those_there_are(person: Person) -> None:
    told = person.types("submit", person.file, "--context", "mars")

    assert told.status == 78, told.all
    assert "mars" in told.err
    assert "its contexts are: " in told.err


# -- one job's life ---------------------------------------------------------------------------------------------------


def test_submit_waits_for_the_end_and_status_shows_it(person: Person) -> None:
    stage = person.stage
    stage.script.habits = Habits(items=24, failed_items_per_shard=1)
    stage.pods.start()
    stage.start()
    person.write(retries={"maxFailedItems": "100%"})

    waited = person.types("submit", person.file, "--wait", "--timeout", 100)
    text = person.types("status", "comics")
    by_file = person.types("status", person.file, "--cluster", "-o", "json")
    logs = person.types("logs", "ocrjob/comics")

    assert waited.status == 0, waited.all
    assert "ocrjob/comics: Running" in waited.out
    assert text.status == 0, text.all
    assert "Succeeded" in text.out
    assert "24/24 done: 18 succeeded, 6 failed, 0 skipped" in text.out
    assert "✓ Complete CompletedWithFailures" in text.out
    assert f"→ try the failed items again: a job with source: {{retryOf: {{run: {stage.status().run}}}}}" in text.out
    assert (by_file.json["isOver"], by_file.json["exitStatus"]) == (True, 0)
    assert by_file.json["status"]["done"] == "24/24"
    assert logs.status == 0, logs.all
    assert "pods say nothing" in logs.err  # nobody runs these pods


def test_submit_waits_for_a_failure_and_ends_with_its_exit_status(person: Person) -> None:
    stage = person.stage
    stage.script.habits.plan_error = SourceError("manifest.csv, line 7: 3 fields, 4 expected", advice="mend the line")
    stage.pods.start()
    stage.start()

    waited = person.types("submit", person.file, "--wait", "--timeout", 100)

    assert waited.status == SourceError.exit_code, waited.all
    assert "Failed Source" in waited.out
    assert "manifest.csv, line 7: 3 fields, 4 expected; mend the line" in waited.out
    assert "→ mend what the message names" in waited.out


def test_submit_waits_no_longer_for_a_job_that_is_not_accepted(person: Person) -> None:
    person.stage.start()
    person.write(workers={"pool": "tpu"})

    waited = person.types("submit", person.file, "--wait", "--timeout", 60, "-o", "json")

    last = yaml.safe_load(waited.out.splitlines()[-1])
    assert waited.status == 78, waited.all
    assert last["exitStatus"] == 78
    assert last["next"] == ["choose one of the pools that the message lists"]


def test_submit_out_of_time_leaves_the_job_alone(person: Person) -> None:
    waited = person.types("submit", person.file, "--wait", "--timeout", 1)

    assert waited.status == 75, waited.all
    assert "no operator has looked at the job yet" in waited.out
    assert person.object() is not None


def test_suspended_job_goes_on_when_resumed(person: Person) -> None:
    stage = person.stage
    stage.script.habits = Habits(items=400)
    stage.pods.start()
    stage.start()
    person.types("submit", person.file)
    stage.until_phase("Running", 60)

    paused = person.types("suspend", "comics")
    stage.until_phase("Suspended", 60)
    shown = person.types("status", "ocr/comics")
    resumed = person.types("resume", person.file)
    stage.until_phase("Running", 60)
    again = person.types("resume", "comics", "-o", "json")

    assert (paused.status, resumed.status) == (0, 0), paused.all + resumed.all
    assert "suspended: pods finish their page and stop" in paused.out
    assert f"→ `pagemill resume ocrjob/comics -n {stage.namespace}`" in shown.out
    assert "ocrjob/comics resumed" in resumed.out
    assert again.json["result"] == "was not suspended"


def test_cancelled_job_is_gone_once_confirmed(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    person.types("submit", person.file)
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))

    declined = person.types("cancel", "comics")
    between = person.object()
    told = person.types("cancel", "comics", "--yes")
    again = person.types("cancel", "comics", "--yes")

    assert declined.status == 130, declined.all
    assert between is not None
    assert told.status == 0, told.all
    assert f"what is done stays in s3://{person.stage.bucket}/out" in told.out
    assert person.object() is None
    assert again.status == 75, again.all
    assert f"there is no job comics in namespace {person.stage.namespace}" in again.err


def test_name_of_two_kinds_asks_which(person: Person) -> None:
    person.types("submit", person.file)
    model = {"model": {"name": "clip-vit-b-32"}}
    spec = {"source": {"dataset": {"uri": "s3://library/b/"}}, "output": {"uri": "s3://library/c"}, "visual": model}
    job = {"apiVersion": API_VERSION, "kind": "EmbeddingJob", "metadata": {"name": "comics"}, "spec": spec}
    person.stage.api.call("POST", object_path(API_VERSION, "embeddingjobs", person.stage.namespace), job)

    unclear = person.types("suspend", "comics")
    clear = person.types("suspend", "emb/comics")

    assert unclear.status == 78, unclear.all
    assert "comics may be ocrjob/comics and embeddingjob/comics" in unclear.err
    assert clear.status == 0, clear.all
    assert "suspend" not in person.object()["spec"]


# -- schedule ---------------------------------------------------------------------------------------------------------


def cron_job(stage: PlayedStage, name: str) -> Any:
    return stage.api.read_or_none(object_path("batch/v1", "cronjobs", stage.namespace, name))


def nightly(person: Person, *words: object) -> Told:
    return person.types("schedule", person.file, "--cron", "0 2 * * *", *words)


def test_schedule_makes_the_series_and_brings_it_up_to_date(person: Person, kubernetes: Kubernetes) -> None:
    stage = person.stage
    person.environment["KUBECONFIG"] = str(kubernetes.kubeconfig)
    here = ("-n", stage.namespace)

    first = nightly(person, "--access", "--time-zone", "Europe/Berlin", "--suspend", "--history", 5, *here)
    made = cron_job(stage, "comics")
    second = nightly(person, "--image", "localhost/pagemill/operator:test", *here, "-o", "json")
    changed = cron_job(stage, "comics")

    assert first.status == 0, first.all
    assert "cronjob/comics scheduled: 0 2 * * * Europe/Berlin, suspended" in first.out
    assert (made["spec"]["timeZone"], made["spec"]["suspend"]) == ("Europe/Berlin", True)
    container = made["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "PAGEMILL_KEEP_FAILED", "value": "5"} in container["env"]
    assert stage.api.read_or_none(object_path("v1", "serviceaccounts", stage.namespace, SERVICE_ACCOUNT)) is not None
    assert second.status == 0, second.all
    assert (second.json["isNew"], second.json["suspend"], second.json["timeZone"]) == (False, False, "Etc/UTC")
    template = changed["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert template["containers"][0]["image"] == "localhost/pagemill/operator:test"


def test_schedule_without_the_account_says_how_to_get_it(person: Person) -> None:
    stage = person.stage
    rules = [*USER_RULES, *SCHEDULER_RULES]
    person.environment["KUBECONFIG"] = str(stage.write_kubeconfig(stage.folder / "joan", "joan", rules))

    told = nightly(person)
    forbidden = nightly(person, "--access")

    assert told.status == 75, told.all
    assert f"has no account {SERVICE_ACCOUNT}" in told.err
    assert "recurring.enabled" in told.err
    assert forbidden.status == 77, forbidden.all
    assert 'cannot patch resource "serviceaccounts"' in forbidden.err
    assert cron_job(stage, "comics") is None


@pytest.mark.parametrize(
    ("words", "want"),
    [
        (("--cron", "every night"), "spec.schedule"),
        (("--cron", "0 2 * * *", "--time-zone", "Europe/Berlyn"), "spec.timeZone"),
        (("--cron", "0 2 * * *", "--name", "a" * 50), "a series cannot be called"),
    ],
    ids=["cron", "time-zone", "name"],
)
def test_schedule_that_cannot_be_is_refused_with_the_field(
    person: Person, kubernetes: Kubernetes, words: tuple[str, ...], want: str
) -> None:
    person.environment["KUBECONFIG"] = str(kubernetes.kubeconfig)

    told = person.types("schedule", person.file, "--dry-run", "-n", person.stage.namespace, *words)

    assert told.status == 78, told.all
    assert want in told.err


# -- kubectl pagemill -------------------------------------------------------------------------------------------------


def test_kubectl_runs_the_command_as_its_plugin(person: Person) -> None:
    kubectl = binaries.ensure(["kubectl"]) / "kubectl"
    scripts = sysconfig.get_path("scripts")
    environment = {**os.environ, **person.environment, "PATH": f"{scripts}:{os.environ['PATH']}"}

    def kubectl_pagemill(*words: object) -> str:
        command = [str(kubectl), "pagemill", *map(str, words)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout

    kubectl_pagemill("submit", person.file)
    shown = kubectl_pagemill("status", "comics")

    assert "Usage: kubectl pagemill submit" in kubectl_pagemill("submit", "--help")
    assert f"ocrjob/comics in namespace {person.stage.namespace}" in shown


def test_rights_that_the_guide_asks_for_suffice(person: Person, kube_api: KubeApi) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guide" / "kubectl.md").read_text(encoding="utf-8")
    role = yaml.safe_load(guide.split("```yaml\n", 1)[1].split("```", 1)[0])

    assert role["rules"] == USER_RULES
    place = object_path("rbac.authorization.k8s.io/v1", "clusterroles")
    kube_api.call("POST", place, role, dryRun="All", fieldValidation="Strict")
