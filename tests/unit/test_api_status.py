"""The status: complete, bounded, and cut to size where it must be."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from pydantic import ValidationError

from pagemill_core.api.v1alpha1 import JobStatus, fit_status, status_bytes
from pagemill_core.api.v1alpha1.status import MAX_STATUS_BYTES, utc

FULL: dict[str, Any] = {
    "observedGeneration": 3,
    "phase": "Running",
    "message": "20 workers, 41.2 items/s",
    "conditions": [
        {
            "type": "Accepted",
            "status": "True",
            "reason": "SpecValid",
            "message": "",
            "observedGeneration": 3,
            "lastTransitionTime": "2026-01-02T03:04:05Z",
        }
    ],
    "run": "00000007-9c66e1f0",
    "workKey": "0" * 64,
    "plannedAt": "2026-01-02T03:04:05Z",
    "image": "registry.example/pagemill-worker@sha256:00",
    "items": {"total": 1204331, "succeeded": 800000, "failed": 12, "skipped": 0, "alreadyDone": 0},
    "shards": {"total": 2409, "succeeded": 1600, "failed": 0},
    "done": "800012/1204331",
    "rate": "41.2/s",
    "eta": "2h44m",
    "cost": {"spent": "3.18", "estimated": "4.79", "currency": "USD"},
    "replicas": 20,
    "selector": "pagemill.dev/job=comics",
    "failures": [{"item": "p-0017", "class": "ImageTruncated", "message": "ends early"}],
    "results": {"uri": "s3://library/out/comics", "report": "s3://library/out/comics/.pagemill/report.json"},
    "jobs": [{"name": "comics-9c66e1-w1", "kind": "Work", "wave": 1}],
    "startTime": "2026-01-02T03:04:05Z",
    "completionTime": "2026-01-02T05:04:05Z",
}


def largest_status() -> JobStatus:
    """As large as the model admits, every character four bytes long."""
    wide = "\U0001f4d6"
    text = {"type": wide * 64, "status": "Unknown", "reason": wide * 64, "message": wide * 1024}
    return JobStatus.model_validate(
        {
            **FULL,
            **{name: wide * 64 for name in ("run", "workKey", "done", "rate", "eta")},
            **{name: wide * 256 for name in ("image", "selector")},
            "message": wide * 1024,
            "conditions": [{**text, "type": str(number) + wide * 63} for number in range(8)],
            "failures": [{"item": wide * 1024, "class": wide * 64, "message": wide * 512}] * 20,
            "results": {"uri": wide * 1152, "report": wide * 1152},
            "jobs": [{"name": str(number) + wide * 63, "kind": "Finalize"} for number in range(8)],
        }
    )


def test_status_with_every_field_is_read_and_written_the_same() -> None:
    status = JobStatus.model_validate(FULL)
    assert status.model_dump(mode="json", exclude_none=True) == FULL
    assert {field.alias for field in JobStatus.model_fields.values()} == set(FULL)


def test_status_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        JobStatus.model_validate({"shardsDone": []})


def test_status_more_than_twenty_samples_are_refused() -> None:
    with pytest.raises(ValidationError, match="at most 20"):
        JobStatus.model_validate({"failures": [{"item": "a", "class": "ImageEmpty"}] * 21})


def test_status_condition_is_found_by_its_type() -> None:
    status = JobStatus.model_validate(FULL)
    assert status.is_true("Accepted")
    assert not status.is_true("Complete")
    assert status.condition("Complete") is None


def test_fit_status_small_one_is_left_alone() -> None:
    status = JobStatus.model_validate(FULL)
    assert fit_status(status) is status


def test_fit_status_samples_go_first() -> None:
    sample = {"item": "ä" * 1000, "class": "ImageEmpty", "message": "x" * 500}
    status = JobStatus.model_validate({**FULL, "failures": [sample] * 20})
    fitted = fit_status(status)
    assert 0 < len(fitted.failures) < 20
    assert fitted.conditions == status.conditions
    assert status_bytes(fitted) <= MAX_STATUS_BYTES


def test_fit_status_largest_that_the_model_admits_fits() -> None:
    status = largest_status()
    assert status_bytes(status) > MAX_STATUS_BYTES
    assert status_bytes(fit_status(status)) <= MAX_STATUS_BYTES


def test_utc_instant_is_cut_to_the_second() -> None:
    instant = dt.datetime(2026, 1, 2, 5, 4, 5, 678, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    assert utc(instant) == dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
