"""What the command makes of names, refusals, statuses and log lines of a cluster; no cluster is asked."""

from __future__ import annotations

import datetime as dt
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pagemill_cli.cluster.api import Api, ApiRefusalError, Cause, JsonObject, Request, object_path
from pagemill_cli.cluster.ending import EXIT_BY_REASON, Ending, ending_of, next_steps
from pagemill_cli.cluster.jobs import Jobs, manifest
from pagemill_cli.cluster.kinds import JobRef, is_named_on_cluster, read_ref
from pagemill_cli.cluster.kube import refusal
from pagemill_cli.cluster.logs import Follower, read_line
from pagemill_cli.cluster.refusals import Asked, explained
from pagemill_cli.cluster.views import JobView, PodView, read_job, read_pod
from pagemill_cli.commands.cluster_view import as_json, picture
from pagemill_cli.testing.command import run_command
from pagemill_core.api.conditions import Reason
from pagemill_core.api.load import load_jobs
from pagemill_core.errors import InvalidSpecError

NOW = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)
FIXED = Cause("spec.engine", "FieldValueForbidden", "Forbidden: engine is fixed once")
ASKED = Asked(what="ocrjob/comics", verbs="get ocrjobs", namespace="scans", context="home")


def make_job(*said: tuple[str, str, str, str], generation: int = 2, **parts: Any) -> JobView:
    """A job whose conditions are (type, status, reason, message)."""
    status: JsonObject = {
        "observedGeneration": 2,
        "conditions": [
            {"type": kind, "status": value, "reason": reason, "message": message}
            for kind, value, reason, message in said
        ],
        **parts.pop("status", {}),
    }
    spec = {"output": {"uri": "s3://library/out"}, "workers": {"parallelism": 4}, **parts.pop("spec", {})}
    metadata = {"name": "comics", "namespace": "scans", "uid": "u1", "generation": generation, **parts}
    return read_job({"metadata": metadata, "spec": spec, "status": status}, "OcrJob")


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("comics", JobRef("", "comics")),
        ("ocrjob/comics", JobRef("OcrJob", "comics")),
        ("ocrjobs.pagemill.dev/comics", JobRef("OcrJob", "comics")),
        ("OCR/comics", JobRef("OcrJob", "comics")),
        ("emb/books.2", JobRef("EmbeddingJob", "books.2")),
        ("pod/comics", None),
        ("Comics", None),
        ("s3://library/out", None),
    ],
)
def test_name_is_read_as_kubectl_reads_it(text: str, want: JobRef | None) -> None:
    assert read_ref(text) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("comics", True),
        ("ocrjob/comics", True),
        ("ocr/folder", False),
        ("folder", False),
        ("job.yaml", False),
        ("no-such.yaml", False),
        ("s3://library/out", False),
        ("out/nowhere", False),
        ("-", False),
    ],
)
def test_status_asks_the_cluster_only_for_what_no_file_or_folder_is_called(
    text: str, want: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ocr" / "folder").mkdir(parents=True)
    (tmp_path / "folder").mkdir()

    assert is_named_on_cluster(text) is want


def test_path_of_an_object_is_quoted() -> None:
    assert object_path("v1", "pods", "a b", "x/y", "log") == "/api/v1/namespaces/a%20b/pods/x%2Fy/log"
    assert object_path("batch/v1", "jobs") == "/apis/batch/v1/jobs"


# -- what is sent -----------------------------------------------------------------------------------------------------


def test_manifest_says_what_the_file_says_and_no_more() -> None:
    text = """\
apiVersion: pagemill.dev/v1alpha1
kind: OcrJob
metadata: {name: comics, labels: {team: a}, uid: u1, resourceVersion: "7"}
spec:
  source: {images: {uri: s3://library/pages/}}
  engine: {name: rapidocr, languages: [en, no]}
  output: {uri: s3://library/out}
status: {phase: Running}
"""

    body = manifest(load_jobs(text, origin="job.yaml")[0], "scans")

    assert body == {
        "apiVersion": "pagemill.dev/v1alpha1",
        "kind": "OcrJob",
        "metadata": {"name": "comics", "labels": {"team": "a"}, "namespace": "scans"},
        "spec": {
            "source": {"images": {"uri": "s3://library/pages/"}},
            "engine": {"name": "rapidocr", "languages": ["en", "no"]},
            "output": {"uri": "s3://library/out"},
        },
    }


class SilentApi:
    """An API server that must not be asked."""

    context, server, namespace = "home", "https://nowhere", "scans"

    def call(self, request: Request) -> tuple[int, JsonObject]:
        raise AssertionError(request)

    def lines(self, request: Request) -> Iterator[bytes]:
        raise AssertionError(request)


@pytest.mark.parametrize(
    ("metadata", "uri", "want"),
    [
        ({"name": "comics"}, "out/comics", "spec.output.uri: out/comics is a folder of this machine"),
        ({"name": "comics"}, "file:///out", "spec.output.uri: file:///out is a folder of this machine"),
        ({"name": "comics", "namespace": "books"}, "s3://library/out", "the file says books, and scans was asked for"),
    ],
    ids=["folder", "file", "namespace"],
)
def test_job_that_no_cluster_can_do_is_refused_before_one_is_asked(metadata: JsonObject, uri: str, want: str) -> None:
    spec = {"source": {"images": {"uri": "s3://library/pages/"}}, "output": {"uri": uri}}
    body = {"apiVersion": "pagemill.dev/v1alpha1", "kind": "OcrJob", "metadata": metadata, "spec": spec}
    api: Api = SilentApi()

    with pytest.raises(InvalidSpecError) as caught:
        Jobs(api).submit(load_jobs(json.dumps(body), origin="job.json")[0], dry_run=False, force=False)

    assert want in caught.value.message


def test_file_with_mistakes_is_refused_before_a_cluster_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        "apiVersion: pagemill.dev/v1alpha1\nkind: OcrJob\nmetadata: {name: a}\nspec: {}\n"
    )

    told = run_command("submit", tmp_path / "job.yaml", environment={"KUBECONFIG": str(tmp_path / "none")})

    assert told.status == 78
    assert "spec.source" in told.err


def test_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    told = run_command("status", "comics", environment={"KUBECONFIG": str(tmp_path / "none")})

    assert told.status == 78
    assert str(tmp_path / "none") in told.err


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("users: [{user: {token: s3cr3t}}\n", "is not YAML in line 2"),
        ("[s3cr3t]\n", "is no kubeconfig"),
        ("clusters: s3cr3t\ncontexts: []\n", "config"),
        ("", "config"),
    ],
    ids=["no-yaml", "list", "text", "empty"],
)
def test_kubeconfig_that_is_none_is_named_and_not_shown(text: str, want: str, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(text)

    told = run_command("status", "comics", "--kubeconfig", tmp_path / "config")

    assert told.status == 78, told.all
    assert want in told.err
    assert str(tmp_path / "config") in told.err
    assert "s3cr3t" not in told.all


def test_command_that_needs_no_cluster_does_not_load_its_client() -> None:
    code = "import sys, pagemill_cli.main; sys.exit(any(name.startswith('kubernetes') for name in sys.modules))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "want_reason", "want_words"),
    [
        (ApiRefusalError(401, message="Unauthorized"), "AccessDenied", "credentials of context home"),
        (ApiRefusalError(403, message='User "jane" cannot get'), "AccessDenied", 'User "jane" cannot get'),
        (
            ApiRefusalError(404, message="the server could not find the requested resource"),
            "ClusterUnsuitable",
            "does not know jobs",
        ),
        (ApiRefusalError(404, message="404 page not found"), "ClusterUnsuitable", "does not know jobs"),
        (ApiRefusalError(404, reason="NotFound", kind="ocrjobs"), "ObjectNotFound", "no ocrjob/comics in namespace"),
        (ApiRefusalError(404, kind="namespaces"), "InvalidSpec", "there is no namespace scans"),
        (ApiRefusalError(409, message="the object has been modified"), "PreconditionFailed", "changed meanwhile"),
        (
            ApiRefusalError(409, causes=(Cause(".spec.suspend", "FieldManagerConflict", 'conflict with "kubectl"'),)),
            "PreconditionFailed",
            'spec.suspend: conflict with "kubectl"',
        ),
        (
            ApiRefusalError(
                422, causes=(Cause("spec.engine", "FieldValueForbidden", "Forbidden: engine is fixed once"),)
            ),
            "InvalidSpec",
            "is planned already: spec.engine: engine is fixed once",
        ),
        (
            ApiRefusalError(422, causes=(Cause("<nil>", "", "some validation rules were not checked"),)),
            "InvalidSpec",
            "refuses ocrjob/comics: some validation rules",
        ),
        (ApiRefusalError(400, message='strict decoding error: unknown field "x"'), "InvalidSpec", 'unknown field "x"'),
        (ApiRefusalError(500, message="failed to create typed patch object (x)"), "InvalidSpec", "typed patch"),
        (ApiRefusalError(503, message="starting"), "ClusterUnavailable", "answers 503: starting"),
        (ApiRefusalError(429, message="too many"), "ClusterUnavailable", "answers 429"),
    ],
    ids=lambda given: str(given)[:40] if isinstance(given, ApiRefusalError) else "",
)
def test_refusal_is_told_in_words_that_help(given: ApiRefusalError, want_reason: str, want_words: str) -> None:
    error = explained(given, ASKED)

    assert error.reason == want_reason
    assert want_words in error.message


@pytest.mark.parametrize(
    ("body", "want"),
    [
        (b'{"reason": "Conflict", "message": "m", "details": {"kind": "jobs", "causes": [{"field": "a"}]}}', "m"),
        (b"<html>bad gateway</html>", "<html>bad gateway</html>"),
        (b"[]", ""),
        (b"", ""),
    ],
    ids=["status", "page", "list", "nothing"],
)
def test_answer_that_is_an_error_is_read_whatever_it_is(body: bytes, want: str) -> None:
    assert refusal(502, body).message == want


# -- endings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "want"),
    [
        (make_job(), None),
        (make_job(("Complete", "True", "Completed", "")), Ending(0)),
        (make_job(("Complete", "True", "Completed", ""), generation=3), None),
        (make_job(("Failed", "True", "BudgetExceeded", "spent")), Ending(4, "BudgetExceeded", "spent")),
        (make_job(("Failed", "True", "Source", "line 7")), Ending(65, "Source", "line 7")),
        (make_job(("Failed", "True", "PlanFailed", "")), Ending(75, "PlanFailed", "")),
        (make_job(("Suspended", "True", "SuspendedByUser", "")), Ending(75, "SuspendedByUser", "")),
        (make_job(("Suspended", "True", "SuspendedByQueue", "")), None),
        (make_job(("Accepted", "False", "EndpointNotAllowed", "no")), Ending(78, "EndpointNotAllowed", "no")),
        (make_job(("Accepted", "False", "StoreUnavailable", "")), None),
        (make_job(("Accepted", "True", "SpecValid", "")), None),
    ],
)
def test_ending_is_told_from_the_conditions(job: JobView, want: Ending | None) -> None:
    assert ending_of(job) == want


def test_every_ending_has_an_exit_status_that_is_no_bug() -> None:
    statuses = {EXIT_BY_REASON.get(reason) for reason in Reason} - {None}

    assert not statuses & {0, 1}


@pytest.mark.parametrize(
    ("job", "want"),
    [
        (make_job(status={"observedGeneration": None}), "no operator has looked at the job yet"),
        (make_job(generation=3), "the newest edit was not looked at yet"),
        (make_job(deletionTimestamp="2026-11-22T12:00:00Z"), "is being deleted"),
        (make_job(status={"phase": "Running"}), "`pagemill logs ocrjob/comics -n scans -f`"),
        (make_job(status={"phase": "Queued"}, spec={"workers": {"queue": "team"}}), "why queue team keeps it waiting"),
        (make_job(("Suspended", "True", "SuspendedByUser", ""), spec={"suspend": True}), "pagemill resume"),
        (make_job(("Suspended", "True", "SuspendedByUser", "")), "kubectl scale ocrjob/comics -n scans"),
        (make_job(("Failed", "True", "DeadlineExceeded", "")), "raise spec.deadlineSeconds"),
        (make_job(("Failed", "True", "TooManyFailures", "")), "pagemill status s3://library/out"),
        (make_job(("Accepted", "False", "SecretMissing", "")), "create the Secret in namespace scans"),
        (make_job(("Failed", "True", "Source", "")), "mend what the message names"),
        (make_job(("Complete", "True", "Completed", "")), "pagemill verify s3://library/out"),
        (
            make_job(
                ("Complete", "True", "CompletedWithFailures", ""),
                status={"run": "00000001-9c66e1f0", "items": {"total": 2, "failed": 1}},
            ),
            "retryOf: {run: 00000001-9c66e1f0}",
        ),
    ],
)
def test_next_step_fits_how_the_job_stands(job: JobView, want: str) -> None:
    assert want in next_steps(job)[0]


# -- pictures ---------------------------------------------------------------------------------------------------------


def shown(job: JobView) -> str:
    out = io.StringIO()
    Console(file=out, width=160).print(picture(job, NOW))
    return out.getvalue()


def test_picture_shows_all_that_a_person_asks_for() -> None:
    status = {
        "phase": "Running",
        "message": "wave 2",
        "items": {"total": 1204331, "succeeded": 800000, "failed": 12, "skipped": 3, "alreadyDone": 7},
        "shards": {"total": 2409, "succeeded": 1600, "failed": 2},
        "rate": "41.2/s",
        "eta": "2h44m",
        "cost": {"spent": "3.18", "estimated": "4.79"},
        "replicas": 3,
        "startTime": "2026-11-22T09:00:00Z",
        "run": "00000007-9c66e1f0",
        "failures": [{"item": "p[b]-17", "class": "ImageTruncated", "message": "ends early"}],
        "jobs": [{"name": "comics-abc-w2", "kind": "Work", "wave": 2}],
        "results": {"uri": "s3://library/out", "report": "s3://library/out/report.html"},
    }

    text = shown(make_job(("Progressing", "True", "ShardsCommitting", "wave 2"), status=status))

    for want in (
        "ocrjob/comics in namespace scans",
        "Running",
        "800,015/1,204,331 done: 800,000 succeeded, 12 failed, 3 skipped",
        "7 more were done by earlier runs",
        "1,600/2,409, 2 failed so far",
        "Work wave 2: job/comics-abc-w2",
        "3 of 4",
        "41.2/s, ETA 2h44m",
        "3.18 of about 4.79 USD",
        "3h0m",
        "00000007-9c66e1f0",
        "✓ Progressing ShardsCommitting",
        "p[b]-17: ImageTruncated: ends early",
        "s3://library/out/report.html",
        "→ `pagemill logs ocrjob/comics -n scans -f`",
    ):
        assert want in text


def test_status_of_another_release_is_said_and_passed_on() -> None:
    job = make_job(status={"phase": "Thinking"})

    assert "status.phase is of another release" in shown(job)
    assert as_json(job)["status"]["phase"] == "Thinking"


# -- pods and logs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "want"),
    [
        ({"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}, (True, "")),
        (
            {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]},
            (False, "ImagePullBackOff: no such image"),
        ),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3"}]},
            (False, "Unschedulable: 0/3"),
        ),
        ({}, (False, "")),
    ],
    ids=["running", "image", "no-node", "nothing"],
)
def test_pod_says_whether_it_runs_and_why_not(status: JsonObject, want: tuple[bool, str]) -> None:
    pod = read_pod({"metadata": {"name": "x"}, "status": status})

    assert (pod.has_started, pod.trouble) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (
            '{"time": "2026-11-22T12:00:01.5Z", "level": "INFO", "logger": "pagemill", "message": "Committed shard", '
            '"shardIndex": 3, "reason": "no reason"}',
            '12:00:01 INFO Committed shard reason="no reason" shardIndex=3',
        ),
        ("Traceback (most recent call last):", "Traceback (most recent call last):"),
        ("17", "17"),
        ('{"no": "message"}', '{"no": "message"}'),
    ],
    ids=["ours", "text", "number", "other-json"],
)
def test_log_line_is_made_readable(text: str, want: str) -> None:
    assert read_line("pod", text).for_people() == want


def test_log_line_belongs_to_the_shard_that_it_names() -> None:
    line = read_line("pod", '{"message": "Committed shard", "shardIndex": 3}')

    assert (line.is_about(3), line.is_about(4), line.is_about(None)) == (True, False, True)
    assert read_line("pod", "Traceback").is_about(3) is False


class ScriptedJobs(Jobs):
    """Jobs whose pods come one after another; a pod's log is its own name, twice."""

    def __init__(self, looks: list[list[PodView]]) -> None:
        self._looks = looks

    def pods(self, job: JobView, step: str = "", wave: int = 0) -> list[PodView]:
        return self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]

    def log_lines(self, job: JobView, pod: PodView, *, follow: bool) -> Iterator[str]:
        yield from (pod.name, pod.name)


def test_followed_logs_hold_pods_that_start_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pagemill_cli.cluster.logs.LOOK_EVERY_S", 0)
    running: JsonObject = {"containerStatuses": [{"state": {"running": {}}}]}
    first, second = (read_pod({"metadata": {"name": name}, "status": running}) for name in ("a", "b"))
    waiting = read_pod({"metadata": {"name": "b"}})
    looks = [[first, waiting], [first, waiting], [first, second]]
    jobs = ScriptedJobs(looks)

    lines = list(Follower(jobs, make_job(), "", lambda: len(looks) == 1).lines())

    assert sorted(line.text for line in lines) == ["a", "a", "b", "b"]
