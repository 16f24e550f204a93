"""The chart's recurring runs are those of `pagemill schedule`: the same objects, but for the release's labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from charttools.pytest_plugin import render

from pagemill_core.api.load import load_jobs
from pagemill_core.recurring import Series, access, cron_job
from pagemill_core.work.pod import JOB_ANNOTATION

pytestmark = pytest.mark.chart("helm")

RELEASE_LABELS = ("helm.sh/chart", "app.kubernetes.io/version", "app.kubernetes.io/managed-by")
SPEC = {
    "source": {"images": {"uri": "s3://library/pages/", "include": ["*.png"]}},
    "engine": {"name": "tesseract", "languages": ["no"]},
    "output": {"uri": "s3://library/out"},
    "budget": {"maxCost": "25.00"},
}
METADATA = {"labels": {"team": "a"}, "annotations": {"note": 'it\'s "{{ ours }}" <&> ü'}}


def without_release(manifest: dict[str, Any]) -> dict[str, Any]:
    labels = {name: text for name, text in manifest["metadata"]["labels"].items() if name not in RELEASE_LABELS}
    return {**manifest, "metadata": {**manifest["metadata"], "labels": labels}}


def parted(manifest: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """A CronJob without its template's JSON, and that JSON parsed: the order of its keys means nothing."""
    copy = json.loads(json.dumps(manifest))
    annotations = copy["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["annotations"]
    return copy, json.loads(annotations.pop(JOB_ANNOTATION))


def rendered(tmp_path: Path, **series: Any) -> list[dict[str, Any]]:
    job = {"kind": "OcrJob", "metadata": METADATA, "spec": SPEC}
    one = {"name": "comics", "schedule": "0 2 * * *", "job": job, **series}
    values = {"recurring": {"enabled": True, "jobs": [one]}, "image": {"repository": "operator", "tag": "1"}}
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    return render("--values", file)


def make_series(**changes: Any) -> Series:
    job = {"apiVersion": "pagemill.dev/v1alpha1", "kind": "OcrJob", "metadata": {"name": "x", **METADATA}, "spec": SPEC}
    return Series(
        name="comics",
        namespace="team-a",
        job=load_jobs(json.dumps(job), origin="job")[0],
        cron="0 2 * * *",
        image="operator:1",
        **changes,
    )


@pytest.mark.parametrize(
    ("values", "changes"),
    [
        ({}, {}),
        ({"timeZone": "Europe/Berlin", "suspend": True}, {"time_zone": "Europe/Berlin", "suspend": True}),
        ({"keepSucceeded": 0, "keepFailed": 9}, {"keep_succeeded": 0, "keep_failed": 9}),
    ],
    ids=["plain", "zone-and-suspended", "history"],
)
def test_chart_and_command_make_the_same_cron_job(
    values: dict[str, Any], changes: dict[str, Any], tmp_path: Path
) -> None:
    (found,) = [one for one in rendered(tmp_path, **values) if one["kind"] == "CronJob"]

    assert parted(without_release(found)) == parted(cron_job(make_series(**changes)))


def test_chart_and_command_need_the_same_account(tmp_path: Path) -> None:
    found = [one for one in rendered(tmp_path) if one["metadata"]["name"] == "pagemill-recurring"]

    assert [without_release(one) for one in found] == list(access("team-a"))
