"""The pod of a recurring run: what it does to the cluster, and how it ends when it cannot."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from pagemill_core.api.load import load_jobs
from pagemill_core.errors import AccessDeniedError, ClusterUnavailableError, InvalidSpecError, PagemillError
from pagemill_core.recurring import Series, cron_job
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_operator.cluster import PLURALS, Address, ApiError, JsonObject
from pagemill_operator.next_run import NextRunSettings, read_settings, read_template, run
from pagemill_operator.testing.fake_kube import FakeKube

JOBS = PLURALS["OcrJob"]
MINUTES = 29_000_000  # 2025-02-19 21:20 UTC


def make_job() -> dict[str, Any]:
    return {
        "apiVersion": "pagemill.dev/v1alpha1",
        "kind": "OcrJob",
        "metadata": {"name": "comics", "labels": {"team": "a"}},
        "spec": {"source": {"images": {"uri": "s3://bucket/in"}}, "output": {"uri": "s3://bucket/out"}},
    }


def make_manifest() -> JsonObject:
    job = load_jobs(json.dumps(make_job()), origin="job")[0]
    return cron_job(
        Series(name="comics", namespace="team", job=job, cron="* * * * *", image="operator:1", keep_succeeded=1)
    )


class Pods:
    """The pods of a series: each gets what the CronJob's manifest says, as the kubelet would give it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kube = FakeKube(FakeClock())
        self._patch = monkeypatch
        self._pod = make_manifest()["spec"]["jobTemplate"]["spec"]["template"]
        self._file = folder / "job.json"
        (annotation,) = self._pod["metadata"]["annotations"].values()
        self._file.write_text(annotation)

    def tick(self, number: int) -> None:
        fields = {"metadata.namespace": "team", "metadata.labels['batch.kubernetes.io/job-name']": f"comics-{number}"}
        for variable in self._pod["spec"]["containers"][0]["env"]:
            value = variable.get("value") or fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
            self._patch.setenv(variable["name"], value)
        self._patch.setenv("PAGEMILL_JOB_PATH", str(self._file))
        settings = read_settings()
        asyncio.run(run(settings, read_template(settings.job_path), self.kube))

    def finish(self, phase: str = "Succeeded") -> None:
        for body in self.kube.all(JOBS):
            self.kube.set_status(Address(JOBS, "team", body["metadata"]["name"]), {"phase": phase})

    @property
    def names(self) -> list[str]:
        return [body["metadata"]["name"] for body in self.kube.all(JOBS)]


@pytest.fixture
def pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pods:
    return Pods(tmp_path, monkeypatch)


def test_tick_creates_a_job_of_the_template(pods: Pods) -> None:
    pods.tick(MINUTES)

    body = pods.kube.read(JOBS, "comics-20250219-2120", "team")
    assert body["spec"] == {**make_job()["spec"], "incremental": True}
    assert body["metadata"]["labels"] == {"team": "a", "pagemill.dev/series": "comics"}
    assert body["metadata"]["annotations"] == {"pagemill.dev/scheduled-at": "2025-02-19T21:20:00.000Z"}


def test_tick_repeated_creates_nothing_more(pods: Pods) -> None:
    pods.tick(MINUTES)
    pods.tick(MINUTES)

    assert pods.names == ["comics-20250219-2120"]


def test_tick_beside_another_that_wins_is_done(pods: Pods, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def win(verb: str, address: Address) -> None:
        if verb == "create":
            raise ApiError(409, "AlreadyExists", address.path)

    pods.kube.before = win
    pods.tick(MINUTES)

    assert "The job is there already" in caplog.messages


def test_tick_is_skipped_until_the_previous_job_is_finished(pods: Pods, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    pods.tick(MINUTES)
    pods.tick(MINUTES + 1)
    skipped = pods.names
    pods.finish()
    pods.tick(MINUTES + 2)

    assert skipped == ["comics-20250219-2120"]
    assert pods.names == ["comics-20250219-2120", "comics-20250219-2122"]
    assert "Skipped this run: an earlier one is not finished" in caplog.messages


def test_history_keeps_the_newest(pods: Pods) -> None:
    for number in range(3):
        pods.tick(MINUTES + number)
        pods.finish()

    assert pods.names == ["comics-20250219-2121", "comics-20250219-2122"]


def test_history_that_may_not_be_cut_fails_no_tick(pods: Pods, caplog: pytest.LogCaptureFixture) -> None:
    def forbid(verb: str, address: Address) -> None:
        if verb == "delete":
            raise ApiError(403, "Forbidden", "may not delete")

    pods.kube.before = forbid
    for number in range(3):
        pods.tick(MINUTES + number)
        pods.finish()

    assert len(pods.names) == 3
    assert "An old job could not be deleted" in caplog.messages


@pytest.mark.parametrize(
    ("answer", "want"),
    [
        (ApiError(422, "Invalid", "spec.engine: no such field"), InvalidSpecError),
        (ApiError(403, "Forbidden", "may not create"), AccessDeniedError),
        (ApiError(503, "ServiceUnavailable", "later"), ClusterUnavailableError),
        (ApiError(0, "NoAnswer", "timeout"), ClusterUnavailableError),
    ],
    ids=["invalid", "forbidden", "unavailable", "silent"],
)
def test_tick_that_fails_says_whether_to_try_again(pods: Pods, answer: ApiError, want: type[PagemillError]) -> None:
    def fail(verb: str, address: Address) -> None:
        if verb == "create":
            raise answer

    pods.kube.before = fail

    with pytest.raises(want):
        pods.tick(MINUTES)


def test_settings_outside_of_a_series_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PAGEMILL_SERIES", raising=False)

    with pytest.raises(InvalidSpecError, match="PAGEMILL_SERIES"):
        read_settings()


@pytest.mark.parametrize("text", ["", "[]", '{"kind": "Pod"}'], ids=["empty", "list", "foreign"])
def test_template_that_is_no_job_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "job.json"
    path.write_text(text)

    with pytest.raises(InvalidSpecError, match=r"job\.json"):
        read_template(path)


def test_settings_match_the_manifests_variables() -> None:
    container = make_manifest()["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    names = {variable["name"].removeprefix("PAGEMILL_").lower() for variable in container["env"]}

    assert names == NextRunSettings.model_fields.keys() - {"job_path"}
