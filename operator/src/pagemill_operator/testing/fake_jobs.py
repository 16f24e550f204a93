"""The Job controller and the kubelet in one: runs Jobs' pods a step at a time and keeps statuses as Kubernetes does.

Layer: `operator.testing`. True in what was seen on a real server: any failed index ends a Job as Failed/FailedIndexes
without a completion time, suspending removes startTime, ignored failures leave no trace, `failed` counts bystanders.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from pagemill_core.clock import Clock, iso
from pagemill_core.work.pod import PodTask
from pagemill_operator.cluster import JOBS, PODS, Address, JsonObject
from pagemill_operator.testing.fake_kube import FakeKube


@dataclass(frozen=True, slots=True)
class Exit:
    """How a pod ended."""

    code: int
    words: str = ""


class PodScript(Protocol):
    """What the containers do."""

    def step(self, pod: str, task: PodTask, job_json: str) -> Exit | None:
        """Let pod `pod` work for a moment. Returns: how it ended, None while it goes on."""


@dataclass
class _Running:
    """What the controller remembers of one Job."""

    active: dict[int, str] = field(default_factory=dict)  # index -> pod
    done: set[int] = field(default_factory=set)
    failed: dict[int, int] = field(default_factory=dict)  # index -> failures
    failed_count: int = 0
    started_at: str = ""
    ending: JsonObject | None = None


class FakeJobs:
    """Runs every Job of a FakeKube. `drain(pod count)` evicts pods, `schedules` False leaves them pending."""

    def __init__(self, kube: FakeKube, script: PodScript, clock: Clock) -> None:
        self._kube = kube
        self.script = script
        self._clock = clock
        self._running: dict[str, _Running] = {}
        self._pods = 0
        self.schedules = True

    def step(self) -> None:
        """One moment of all Jobs."""
        bodies = self._kube.all(JOBS)
        living = {body["metadata"]["uid"] for body in bodies}
        self._running = {uid: state for uid, state in self._running.items() if uid in living}
        for body in bodies:
            address = Address(JOBS, body["metadata"]["namespace"], body["metadata"]["name"])
            self._step_job(address, body)

    def drain(self) -> int:
        """Evict every running pod; the disruption is ignored and costs no retry. Returns: how many there were."""
        pods = sum(len(state.active) for state in self._running.values())
        for state in self._running.values():
            state.active.clear()
        return pods

    @property
    def pods_started(self) -> int:
        return self._pods

    @property
    def active_pods(self) -> int:
        return sum(len(state.active) for state in self._running.values())

    # -- one Job ------------------------------------------------------------------------------------------------------

    def _step_job(self, address: Address, body: JsonObject) -> None:
        state = self._running.setdefault(body["metadata"]["uid"], _Running())
        if state.ending is not None:
            return
        spec = body["spec"]
        if spec.get("suspend"):
            state.active.clear()
            state.started_at = ""
            state.failed.clear()
        else:
            state.started_at = state.started_at or iso(self._clock.now())
            self._start_pods(state, spec)
            if self.schedules:
                self._run_pods(address, body, state)
        if address in self._kube.objects:
            self._kube.set_status(address, self._status(state, spec))

    def _start_pods(self, state: _Running, spec: JsonObject) -> None:
        limit = _limit(spec)
        open_indexes = [
            index
            for index in range(spec.get("completions", 1))
            if index not in state.done and state.failed.get(index, 0) <= limit
        ]
        for index in list(state.active)[spec.get("parallelism", 1) :]:
            del state.active[index]
        for index in open_indexes:
            if len(state.active) < spec.get("parallelism", 1) and index not in state.active:
                self._pods += 1
                state.active[index] = f"pod-{self._pods:06d}"

    def _run_pods(self, address: Address, body: JsonObject, state: _Running) -> None:
        template = body["spec"]["template"]
        for index, pod in list(state.active.items()):
            task = task_of(template, index, pod)
            ended = self.script.step(pod, task, job_json_of(template))
            if ended is None:
                continue
            del state.active[index]
            self._end_pod(address, body, state, (index, pod, ended))
            if state.ending is not None:
                state.failed_count += len(state.active)
                state.active.clear()
                return
        self._maybe_end(body["spec"], state)

    def _end_pod(self, address: Address, body: JsonObject, state: _Running, ended: tuple[int, str, Exit]) -> None:
        index, pod, outcome = ended
        if outcome.code == 0:
            state.done.add(index)
            return
        self._leave_pod(address, body, pod, outcome)
        action = _policy_action(body["spec"], outcome.code)
        if action == "Ignore":
            return
        state.failed_count += 1
        state.failed[index] = state.failed.get(index, 0) + 1
        if action == "FailJob":
            message = f"Container worker for pod {address.namespace}/{pod} failed with exit code {outcome.code}"
            state.ending = self._condition("Failed", "PodFailurePolicy", message)

    def _maybe_end(self, spec: JsonObject, state: _Running) -> None:
        per_index = "backoffLimitPerIndex" in spec
        limit = _limit(spec)
        lost = [index for index, failures in state.failed.items() if failures > limit and index not in state.done]
        if lost and not per_index:
            state.ending = self._condition("Failed", "BackoffLimitExceeded", "Job has reached the backoff limit")
        elif len(state.done) + len(lost) == spec.get("completions", 1):
            state.ending = (
                self._condition("Failed", "FailedIndexes", "Job has failed indexes")
                if lost
                else self._condition("Complete", "CompletionsReached", "")
            )

    def _status(self, state: _Running, spec: JsonObject) -> JsonObject:
        conditions = []
        if spec.get("suspend"):
            conditions.append({"type": "Suspended", "status": "True", "reason": "JobSuspended"})
        if state.ending is not None:
            conditions.append(state.ending)
        status: JsonObject = {
            "active": len(state.active),
            "ready": len(state.active) if self.schedules else 0,
            "terminating": 0,
            "succeeded": len(state.done),
            "failed": state.failed_count,
            "completedIndexes": ",".join(map(str, sorted(state.done))),
            "conditions": conditions,
        }
        return {**status, "startTime": state.started_at} if state.started_at else status

    def _condition(self, kind: str, reason: str, message: str) -> JsonObject:
        at = iso(self._clock.now())
        return {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": at}

    def _leave_pod(self, address: Address, body: JsonObject, pod: str, outcome: Exit) -> None:
        """A pod that ended by itself stays to be read."""
        ended = {"exitCode": outcome.code, "message": outcome.words, "finishedAt": iso(self._clock.now())}
        uid = body["metadata"]["uid"]
        self._kube.put(
            Address(PODS, address.namespace, pod),
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": pod,
                    "labels": {"batch.kubernetes.io/controller-uid": uid},
                    "ownerReferences": [{"kind": "Job", "name": address.name, "uid": uid}],
                },
            },
        )
        self._kube.set_status(
            Address(PODS, address.namespace, pod), {"containerStatuses": [{"state": {"terminated": ended}}]}
        )


def _limit(spec: JsonObject) -> int:
    """Failures that an index, or the one pod of a plain Job, may have."""
    return int(spec["backoffLimitPerIndex"] if "backoffLimitPerIndex" in spec else spec["backoffLimit"])


def _policy_action(spec: JsonObject, code: int) -> str:
    for rule in spec["podFailurePolicy"]["rules"]:
        if code in rule.get("onExitCodes", {}).get("values", ()):
            return str(rule["action"])
    return "Count"


def job_json_of(template: JsonObject) -> str:
    """The job as the pods of this template, or this very pod, see it."""
    return str(template["metadata"]["annotations"]["pagemill.dev/job-json"])


def task_of(template: JsonObject, index: int, pod: str) -> PodTask:
    """The task as the container's environment says it, with what the kubelet fills in."""
    env = {
        one["name"]: one["value"].replace("$$", "$")
        for one in template["spec"]["containers"][0]["env"]
        if "value" in one
    }
    filled = {"PAGEMILL_POD_NAME": pod, "PAGEMILL_POD_UID": pod, "JOB_COMPLETION_INDEX": str(index)}
    return PodTask.from_env({**env, **filled})
