"""Recurring runs: the CronJob's manifest, the names of ticks, and what a tick does."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from pagemill_core.api.load import load_jobs
from pagemill_core.api.v1alpha1 import KINDS, Job
from pagemill_core.errors import InvalidSpecError
from pagemill_core.recurring import (
    MAX_SERIES_CHARS,
    SCHEDULED_AT_ANNOTATION,
    SERIES_LABEL,
    Keep,
    Member,
    Series,
    access,
    cron_job,
    due,
    next_tick,
    template_of,
)
from pagemill_core.work.pod import JOB_ANNOTATION, MANAGED_BY, MANAGED_BY_LABEL

DUE = dt.datetime(2026, 11, 22, 2, 0, tzinfo=dt.UTC)
TRIGGER = f"comics-{int(DUE.timestamp()) // 60}"


def make_job(**spec: Any) -> Job:
    whole = {
        "source": {"images": {"uri": "s3://library/pages"}},
        "output": {"uri": "s3://library/out"},
        **spec,
    }
    job = {"apiVersion": "pagemill.dev/v1alpha1", "kind": "OcrJob", "metadata": {"name": "comics"}, "spec": whole}
    return load_jobs(json.dumps(job), origin="job")[0]


def make_member(name: str, phase: str, hour: int = 0) -> Member:
    return Member(name, f"uid-of-{name}", phase, dt.datetime(2026, 11, 21, hour, tzinfo=dt.UTC))


def make_series(**changes: Any) -> Series:
    given = {"name": "comics", "namespace": "team", "job": make_job(), "cron": "0 2 * * *", "image": "operator:1"}
    return Series(**{**given, **changes})


def test_cron_job_carries_its_template_and_creates_nothing_twice() -> None:
    manifest = cron_job(make_series(time_zone="Europe/Berlin"))

    spec = manifest["spec"]
    pod = spec["jobTemplate"]["spec"]["template"]
    assert (spec["schedule"], spec["timeZone"], spec["concurrencyPolicy"]) == ("0 2 * * *", "Europe/Berlin", "Forbid")
    template = json.loads(pod["metadata"]["annotations"][JOB_ANNOTATION])
    assert template["spec"]["incremental"] is True
    assert "name" not in template["metadata"]
    assert {"pod": pod["metadata"]["labels"][SERIES_LABEL], "own": manifest["metadata"]["labels"][SERIES_LABEL]} == {
        "pod": "comics",
        "own": "comics",
    }


def test_cron_job_is_none_of_the_operators_children() -> None:
    manifest = cron_job(make_series())

    for labels in (manifest["metadata"]["labels"], manifest["spec"]["jobTemplate"]["metadata"]["labels"]):
        assert labels.get(MANAGED_BY_LABEL) != MANAGED_BY


def test_template_created_by_a_tick_is_a_valid_job() -> None:
    template = template_of(make_job(workers={"parallelism": 2}))
    tick = next_tick("comics", TRIGGER, template, [], Keep(3, 3))

    assert tick.body is not None
    job = KINDS["OcrJob"].model_validate({name: part for name, part in tick.body.items() if name != "apiVersion"})
    assert (job.metadata.name, job.spec.effective_incremental) == ("comics-20261122-0200", True)
    assert tick.body["metadata"]["annotations"] == {SCHEDULED_AT_ANNOTATION: "2026-11-22T02:00:00.000Z"}


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        ({"incremental": False}, "incremental"),
        ({"source": {"retryOf": {"run": "00000007-9c66e1f0"}}}, "retryOf"),
        ({"output": {"uri": "s3://bucket/out", "files": "Single"}}, "files"),
    ],
    ids=["everything-again", "retry", "single-files"],
)
def test_job_that_cannot_recur_is_refused(spec: dict[str, Any], want: str) -> None:
    with pytest.raises(InvalidSpecError, match=want):
        cron_job(make_series(job=make_job(**spec)))


@pytest.mark.parametrize(
    "name", ["", "Comics", "-a", "a" * (MAX_SERIES_CHARS + 1)], ids=["empty", "case", "dash", "long"]
)
def test_series_name_that_leaves_no_room_is_refused(name: str) -> None:
    with pytest.raises(InvalidSpecError, match="series"):
        cron_job(make_series(name=name))


def test_longest_series_name_makes_job_names_that_fit() -> None:
    name = "a" * MAX_SERIES_CHARS

    assert len(due(name, f"{name}-{int(DUE.timestamp()) // 60}").name) == 63


@pytest.mark.parametrize(
    ("trigger", "want_name", "want_at"),
    [
        (TRIGGER, "comics-20261122-0200", DUE),
        ("by-hand", "comics-by-hand", None),
        ("comics-by-hand", "comics-by-hand", None),
        ("comics-2", "comics-2", None),
        ("x" * 63, "comics-" + "x" * 56, None),
    ],
    ids=["scheduled", "by-hand", "by-hand-with-prefix", "short-number", "long"],
)
def test_tick_is_named_after_its_instant_or_its_maker(
    trigger: str, want_name: str, want_at: dt.datetime | None
) -> None:
    found = due("comics", trigger)

    assert (found.name, found.at) == (want_name, want_at)


def test_tick_while_the_previous_job_is_unfinished_is_skipped() -> None:
    members = [make_member("comics-20261121-0200", "Running"), make_member("comics-20261120-0200", "Succeeded")]

    tick = next_tick("comics", TRIGGER, template_of(make_job()), members, Keep(3, 3))

    assert (tick.body, tick.unfinished) == (None, "comics-20261121-0200")


@pytest.mark.parametrize("phase", ["", "Pending", "Waiting", "Queued", "Suspended", "Finalizing"])
def test_tick_waits_for_every_phase_that_is_not_final(phase: str) -> None:
    tick = next_tick("comics", TRIGGER, template_of(make_job()), [make_member("comics-x", phase)], Keep(3, 3))

    assert tick.body is None


def test_tick_done_before_creates_nothing() -> None:
    members = [make_member("comics-20261122-0200", "Running")]

    tick = next_tick("comics", TRIGGER, template_of(make_job()), members, Keep(3, 3))

    assert (tick.body, tick.unfinished) == (None, "")


def test_tick_deletes_what_is_beyond_the_history_by_outcome() -> None:
    members = [make_member(f"comics-s{hour}", "Succeeded", hour) for hour in range(4)]
    members += [make_member(f"comics-f{hour}", "Failed", hour) for hour in range(3)]

    tick = next_tick("comics", TRIGGER, template_of(make_job()), members, Keep(2, 1))

    assert tick.body is not None
    assert [member.name for member in tick.surplus] == ["comics-s1", "comics-s0", "comics-f1", "comics-f0"]


def test_tick_never_deletes_its_own_job_nor_an_unfinished_one() -> None:
    members = [make_member("comics-20261122-0200", "Succeeded"), make_member("comics-x", "Running")]

    assert next_tick("comics", TRIGGER, template_of(make_job()), members, Keep(0, 0)).surplus == ()


def test_access_gives_no_more_than_a_tick_does() -> None:
    _, role, _ = access("team")

    assert role["rules"] == [
        {
            "apiGroups": ["pagemill.dev"],
            "resources": ["ocrjobs", "embeddingjobs"],
            "verbs": ["list", "create", "delete"],
        }
    ]
