"""A stand-in for Kueue in one namespace: exactly the writes that a real one was seen to do to plain Indexed Jobs.

Layer: `operator.testing`. One ClusterQueue of a cpu quota, any number of LocalQueues in front of it, order by priority
and then age, preemption of lower priorities. What the real one does at admission webhooks is done here a moment later.
Its Workloads are of a kind without a schema (`WORKLOAD_CRD`), since Kueue's own is not to be had apart from it.
"""

from __future__ import annotations

import datetime as dt
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pagemill_core.api.quantities import parse_quantity
from pagemill_core.clock import iso
from pagemill_operator.cluster import EVENTS, JOBS, WORKLOADS, Address
from pagemill_operator.testing.played_pods import MERGE_PATCH, Json, PlainApi
from pagemill_operator.workloads import JOB_UID_LABEL

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
CLUSTER_QUEUE_LABEL = "kueue.x-k8s.io/cluster-queue-name"
LOCAL_QUEUE_LABEL = "kueue.x-k8s.io/local-queue-name"
PODSET_LABEL = "kueue.x-k8s.io/podset"
CLUSTER_QUEUE = "cq"
LOOK_EVERY_S = 0.2
_GROUP, _VERSION, _PLURAL = WORKLOADS.split("/")
_OPEN: Json = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}

WORKLOAD_CRD: Json = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"{_PLURAL}.{_GROUP}", "annotations": {"api-approved.kubernetes.io": "unapproved, a test's"}},
    "spec": {
        "group": _GROUP,
        "scope": "Namespaced",
        "names": {"kind": "Workload", "listKind": "WorkloadList", "plural": _PLURAL, "singular": "workload"},
        "versions": [
            {
                "name": _VERSION,
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {"type": "object", "properties": {"spec": _OPEN, "status": _OPEN}},
                },
            }
        ],
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """What is in front of the quota. `priorities` are WorkloadPriorityClasses; `node_selector` is the flavour's."""

    local_queues: tuple[str, ...]
    quota_cpu: str
    node_selector: Mapping[str, str]
    priorities: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A Job that a queue manages, and its Workload."""

    job: Json
    workload: Json
    cpu: float
    priority: int

    @property
    def is_admitted(self) -> bool:
        return _condition(self.workload, "Admitted") == "True"

    @property
    def order(self) -> tuple[int, str, str]:
        metadata = self.job["metadata"]
        return -self.priority, metadata["creationTimestamp"], metadata["name"]


class QueueStandIn(threading.Thread):
    """Manages the namespace's labelled Jobs until it is stopped. `errors` are the server's refusals."""

    def __init__(self, api: PlainApi, namespace: str, settings: QueueSettings) -> None:
        super().__init__(daemon=True)
        self._api = api
        self._namespace = namespace
        self.settings = settings
        self._over = threading.Event()
        self._templates: dict[str, Json] = {}  # of each admitted Job, as it was before
        self.errors: list[str] = []

    def run(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            self.step()

    def stop(self) -> None:
        self._over.set()
        self.join()

    def step(self) -> None:
        """Look once at every Job, then give out what quota there is."""
        entries = [entry for job in self._jobs() if (entry := self._entry(job)) is not None]
        waiting = []
        for entry in sorted(entries, key=lambda one: one.order):
            if entry.is_admitted:
                self._keep(entry)
            else:
                waiting.append(entry)
        for entry in waiting:
            self._consider(entry)

    # -- what is there ------------------------------------------------------------------------------------------------

    def _jobs(self) -> list[Json]:
        found = self._api.call("GET", Address(JOBS, self._namespace).path, labelSelector=QUEUE_LABEL)["items"]
        return [job for job in found if "deletionTimestamp" not in job["metadata"]]

    def _entry(self, job: Json) -> _Entry | None:
        """The Job with its Workload, which is made when there is none; None for one that is over."""
        workload = self._workload_of(job)
        if _is_over(job):
            if workload is not None and _condition(workload, "Finished") != "True":
                self._set_conditions(workload, {"Finished": ("True", "JobFinished", "Job finished")})
            return None
        if workload is None:
            workload = self._make_workload(job)
        if workload is None:
            return None
        worker = job["spec"]["template"]["spec"]["containers"][0]
        cpu = float(parse_quantity(str(worker["resources"]["requests"]["cpu"])))
        priority = self.settings.priorities.get(job["metadata"]["labels"].get(PRIORITY_LABEL, ""), 0)
        return _Entry(job, workload, cpu * min(job["spec"]["parallelism"], job["spec"]["completions"]), priority)

    def _workload_of(self, job: Json) -> Json | None:
        selector = f"{JOB_UID_LABEL}={job['metadata']['uid']}"
        found = self._api.call("GET", Address(WORKLOADS, self._namespace).path, labelSelector=selector)["items"]
        return found[0] if found else None

    def _make_workload(self, job: Json) -> Json | None:
        metadata = job["metadata"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
        body = {
            "apiVersion": f"{_GROUP}/{_VERSION}",
            "kind": "Workload",
            "metadata": {
                "name": f"job-{metadata['name']}-{secrets.token_hex(3)}",
                "labels": {JOB_UID_LABEL: metadata["uid"]},
                "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
            },
            "spec": {"active": True, "queueName": metadata["labels"][QUEUE_LABEL]},
        }
        answer = self._api.ask("POST", Address(WORKLOADS, self._namespace).path, body)
        if answer.is_error:  # the Job may be gone by now
            return None
        return self._workload_of(job)

    # -- decisions ----------------------------------------------------------------------------------------------------

    def _keep(self, entry: _Entry) -> None:
        """An admitted Job: sent away when it is no longer active, admitted anew when somebody suspended it."""
        if not entry.workload["spec"].get("active", True):
            self._evict(entry, "Deactivated", "The workload is deactivated")
        elif entry.job["spec"]["suspend"]:
            # Seen: a pause by the Job's own field does not hold, the Workload is made anew and admitted again.
            self._api.ask("DELETE", self._path(entry.workload))

    def _consider(self, entry: _Entry) -> None:
        """A Job that is not admitted: admitted, or told why not."""
        if not entry.job["spec"]["suspend"]:
            self._patch_job(entry, {"spec": {"suspend": True}})
            return
        queue = entry.workload["spec"]["queueName"]
        quota = float(parse_quantity(self.settings.quota_cpu))
        if queue not in self.settings.local_queues:
            self._wait(entry, "Misconfigured", f"LocalQueue {queue} doesn't exist")
        elif not entry.workload["spec"].get("active", True):
            return
        elif entry.cpu > quota:
            self._wait(entry, "ExceedsMaxQuota", f"requests {entry.cpu:g} cpu, and the quota is {quota:g}")
        elif entry.cpu <= quota - self._used():
            self._admit(entry)
        else:
            self._make_room(entry, quota)

    def _used(self, below: int | None = None) -> float:
        """The cpu that admitted Jobs hold, those of a priority below `below` alone where it is given."""
        return sum(one.cpu for one in self._admitted() if below is None or one.priority < below)

    def _admitted(self) -> list[_Entry]:
        entries = [entry for job in self._jobs() if (entry := self._entry(job)) is not None]
        return [entry for entry in entries if entry.is_admitted]

    def _make_room(self, entry: _Entry, quota: float) -> None:
        """Preempt lower priorities, the lowest and youngest first, when that makes enough room."""
        lower = sorted((one for one in self._admitted() if one.priority < entry.priority), key=lambda one: one.order)
        free = quota - self._used()
        if entry.cpu > free + sum(one.cpu for one in lower):
            self._wait(entry, "WaitingForQuota", "insufficient unused quota for cpu in flavor default")
            return
        while free < entry.cpu:
            victim = lower.pop()
            self._evict(victim, "Preempted", f"Preempted to accommodate a workload of {entry.job['metadata']['name']}")
            free += victim.cpu

    # -- writes -------------------------------------------------------------------------------------------------------

    def _admit(self, entry: _Entry) -> None:
        template = entry.job["spec"]["template"]
        self._templates[entry.job["metadata"]["uid"]] = {
            "nodeSelector": template["spec"].get("nodeSelector"),
            "labels": dict(template["metadata"].get("labels") or {}),
        }
        labels = {
            CLUSTER_QUEUE_LABEL: CLUSTER_QUEUE,
            LOCAL_QUEUE_LABEL: entry.workload["spec"]["queueName"],
            PODSET_LABEL: "main",
        }
        selector = {"nodeSelector": dict(self.settings.node_selector)}
        patch = {"suspend": False, "template": {"metadata": {"labels": labels}, "spec": selector}}
        words = f"Admitted by clusterQueue {CLUSTER_QUEUE}"
        self._set_conditions(
            entry.workload,
            {
                "QuotaReserved": ("True", "QuotaReserved", f"Quota reserved in ClusterQueue {CLUSTER_QUEUE}"),
                "Admitted": ("True", "Admitted", "The workload is admitted"),
                "Evicted": ("False", "QuotaReserved", "Previously: evicted"),
            },
        )
        self._patch_job(entry, {"spec": patch})
        self._tell(entry, "Started", words)

    def _evict(self, entry: _Entry, reason: str, words: str) -> None:
        conditions = {
            "QuotaReserved": ("False", "Pending", words),
            "Admitted": ("False", "NoReservation", "The workload has no reservation"),
            "Evicted": ("True", reason, words),
        }
        if reason == "Preempted":
            conditions["Preempted"] = ("True", "InClusterQueue", words)
            conditions["Requeued"] = ("True", reason, words)
        self._set_conditions(entry.workload, conditions)
        before = self._templates.pop(entry.job["metadata"]["uid"], None)
        self._patch_job(entry, {"spec": {"suspend": True}})
        if before is not None:
            self._restore(entry, before)
        self._tell(entry, "Stopped", words)

    def _restore(self, entry: _Entry, before: Json) -> None:
        """The template as it was: allowed once the Job controller has taken startTime away."""
        place = Address(JOBS, self._namespace, entry.job["metadata"]["name"]).path
        for _ in range(50):
            job = self._api.read_or_none(place)
            if job is None or "startTime" not in job["status"]:
                break
            self._over.wait(0.1)
        gone = {name: None for name in (CLUSTER_QUEUE_LABEL, LOCAL_QUEUE_LABEL, PODSET_LABEL)}
        spec = {"nodeSelector": before["nodeSelector"]}
        self._patch_job(entry, {"spec": {"template": {"metadata": {"labels": gone}, "spec": spec}}})

    def _wait(self, entry: _Entry, reason: str, words: str) -> None:
        self._set_conditions(entry.workload, {"QuotaReserved": ("False", reason, words)})

    def _patch_job(self, entry: _Entry, patch: Json) -> None:
        place = Address(JOBS, self._namespace, entry.job["metadata"]["name"]).path
        answer = self._api.ask("PATCH", place, patch, content_type=MERGE_PATCH, fieldManager="kueue")
        self._note(answer)

    def _set_conditions(self, workload: Json, told: Mapping[str, tuple[str, str, str]]) -> None:
        """Write these conditions over those of their types; nothing is written when nothing differs."""
        found = {one["type"]: one for one in (workload.get("status") or {}).get("conditions") or ()}
        changed = dict(found)
        for kind, (status, reason, words) in told.items():
            if kind == "Evicted" and status == "False" and kind not in found:
                continue
            same = found.get(kind, {})
            if (same.get("status"), same.get("reason"), same.get("message")) != (status, reason, words):
                at = iso(dt.datetime.now(dt.UTC))
                changed[kind] = {"type": kind, "status": status, "reason": reason, "message": words,
                                 "lastTransitionTime": at}  # fmt: skip
        if changed == found:
            return
        workload.setdefault("status", {})["conditions"] = list(changed.values())
        body = {"status": {"conditions": list(changed.values())}}
        answer = self._api.ask("PATCH", f"{self._path(workload)}/status", body, content_type=MERGE_PATCH)
        self._note(answer)

    def _tell(self, entry: _Entry, reason: str, words: str) -> None:
        metadata = entry.job["metadata"]
        about = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
        body = {
            "metadata": {"generateName": f"{metadata['name']}."},
            "involvedObject": {**about, "namespace": self._namespace},
            "source": {"component": "batch/job-kueue-controller"},
            "type": "Normal",
            "reason": reason,
            "message": words,
        }
        self._note(self._api.ask("POST", Address(EVENTS, self._namespace).path, body))

    def _path(self, workload: Json) -> str:
        return Address(WORKLOADS, self._namespace, workload["metadata"]["name"]).path

    def _note(self, answer: Any) -> None:
        """Refusals are kept, but for objects that are gone by now."""
        if answer.is_error and answer.status not in (404, 409):
            self.errors.append(answer.message)


def install_workloads(api: PlainApi, wait: Callable[[str], None]) -> None:
    """Make the server know Workloads; `wait` is given the path that must answer. Idempotent."""
    place = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{WORKLOAD_CRD['metadata']['name']}"
    query = {"fieldManager": "stand-in", "force": True}
    api.call("PATCH", place, WORKLOAD_CRD, content_type="application/apply-patch+yaml", **query)
    wait(f"/apis/{_GROUP}/{_VERSION}/{_PLURAL}")


def _is_over(job: Json) -> bool:
    conditions = job["status"].get("conditions") or ()
    return any(one["type"] in ("Complete", "Failed") and one["status"] == "True" for one in conditions)


def _condition(workload: Json, kind: str) -> str:
    conditions = (workload.get("status") or {}).get("conditions") or ()
    return next((str(one["status"]) for one in conditions if one["type"] == kind), "")
