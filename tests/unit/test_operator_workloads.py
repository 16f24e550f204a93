"""What Kueue's Workloads say of Jobs that wait, in whichever version they are served, or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from pagemill_core.testing.fake_clock import FakeClock
from pagemill_operator.cluster import WORKLOADS, WORKLOADS_BEFORE, Address, ApiError, JsonObject
from pagemill_operator.testing.world import run_now
from pagemill_operator.workloads import ASK_EVERY_S, MAX_KEPT, NO_KUEUE, Workloads


class Kueue:
    """An API server with one Workload in one version; `refuses` with a status when asked. Other verbs are unused."""

    def __init__(self, *conditions: tuple[str, str, str, str], version: str = WORKLOADS, refuses: int = 0) -> None:
        told = [
            {"type": kind, "status": status, "reason": reason, "message": message}
            for kind, status, reason, message in conditions
        ]
        self.workload: JsonObject = {
            "metadata": {"name": "job-a"},
            "spec": {"active": True},
            "status": {"conditions": told},
        }
        self.version = version
        self.refuses = refuses
        self.asked: list[str] = []
        self.merged: list[tuple[str, JsonObject]] = []

    async def list(self, address: Address, *, selector: str = "") -> AsyncIterator[JsonObject]:
        self.asked.append(address.resource)
        if self.refuses:
            raise ApiError(self.refuses, "", "no")
        if address.resource != self.version:
            raise ApiError(404, "NotFound", "404 page not found")
        assert selector == "kueue.x-k8s.io/job-uid=u1"
        yield self.workload

    async def merge(self, address: Address, body: JsonObject) -> JsonObject:
        self.merged.append((address.resource, body))
        return body

    async def get(self, address: Address) -> JsonObject:
        raise NotImplementedError

    async def create(self, address: Address, body: JsonObject) -> JsonObject:
        raise NotImplementedError

    async def apply(self, address: Address, body: JsonObject, manager: str) -> JsonObject:
        raise NotImplementedError

    async def delete(self, address: Address, *, uid: str) -> None:
        raise NotImplementedError


WAITS = ("QuotaReserved", "False", "WaitingForQuota", "500m more needed")
EVICTED = ("Evicted", "True", "Preempted", "Preempted to accommodate a workload")


@pytest.mark.parametrize(
    ("conditions", "want"),
    [
        ((WAITS,), "WaitingForQuota: 500m more needed"),
        ((WAITS, EVICTED), "Preempted: Preempted to accommodate a workload"),
        ((("QuotaReserved", "True", "QuotaReserved", "x"), ("Evicted", "False", "QuotaReserved", "x")), ""),
        ((("QuotaReserved", "False", "", ""),), "QuotaReserved"),
        ((), ""),
    ],
    ids=["waits", "preempted", "admitted", "without-words", "nothing-yet"],
)
def test_queue_says_why_a_job_waits(conditions: tuple[Any, ...], want: str) -> None:
    assert run_now(Workloads(Kueue(*conditions), FakeClock()).said("team", "u1")) == want


def test_queue_is_asked_every_so_often_only() -> None:
    clock, kueue = FakeClock(), Kueue(WAITS)
    workloads = Workloads(kueue, clock)

    for _ in range(3):
        run_now(workloads.said("team", "u1"))
    clock.advance(ASK_EVERY_S)
    run_now(workloads.said("team", "u1"))

    assert len(kueue.asked) == 2


def test_older_version_is_found_and_remembered() -> None:
    clock, kueue = FakeClock(), Kueue(WAITS, version=WORKLOADS_BEFORE)
    workloads = Workloads(kueue, clock)

    said = run_now(workloads.said("team", "u1"))
    run_now(workloads.set_active("team", "u1", False))

    assert said == "WaitingForQuota: 500m more needed"
    assert kueue.asked == [WORKLOADS, WORKLOADS_BEFORE, WORKLOADS_BEFORE]
    assert kueue.merged == [(WORKLOADS_BEFORE, {"spec": {"active": False}})]


def test_workload_that_is_as_wanted_is_not_written() -> None:
    kueue = Kueue(WAITS)

    run_now(Workloads(kueue, FakeClock()).set_active("team", "u1", True))

    assert kueue.merged == []


@pytest.mark.parametrize(("status", "want"), [(404, NO_KUEUE), (403, "")], ids=["no-kueue", "no-rights"])
def test_cluster_that_cannot_be_asked_is_no_error(status: int, want: str) -> None:
    assert run_now(Workloads(Kueue(refuses=status), FakeClock()).said("team", "u1")) == want


def test_server_that_does_not_answer_is_an_error() -> None:
    with pytest.raises(ApiError):
        run_now(Workloads(Kueue(refuses=503), FakeClock()).said("team", "u1"))


def test_what_is_kept_of_jobs_is_bounded() -> None:
    workloads = Workloads(Kueue(refuses=403), FakeClock())

    for number in range(MAX_KEPT + 5):
        run_now(workloads.said("team", f"u{number}"))

    assert len(workloads._said) == MAX_KEPT
