"""One pass over one job: observe, reconcile, apply, write the status, tell.

Layer: the operator; the loop's heart without the loop. `main` runs it by tasks, tests step by step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from pagemill_core.api.conditions import Reason
from pagemill_core.api.v1alpha1 import JobStatus
from pagemill_core.clock import Clock
from pagemill_operator.apply import Applier
from pagemill_operator.cache import Cache
from pagemill_operator.cluster import JOBS, PLURALS, Address, ApiError, Cluster, JsonObject
from pagemill_operator.events import EventWriter
from pagemill_operator.metrics import Metrics
from pagemill_operator.objects import Custom, Key, key_of_child
from pagemill_operator.observe import Observer
from pagemill_operator.queue import Taken, Urgency, WorkQueue
from pagemill_operator.reconcile import situation as say
from pagemill_operator.reconcile.observed import Observed
from pagemill_operator.reconcile.plan import Adopt, ChangeEntry, Look, Plan, StartWave
from pagemill_operator.reconcile.reconcile import reconcile
from pagemill_operator.reconcile.status import build_status
from pagemill_operator.status import StatusWriter
from pagemill_operator.store_poller import StorePoller

LEAST_PAUSE_S = 0.1  # what is due in a blink is not worth a pass in between
log = logging.getLogger("pagemill.operator")


@dataclass(frozen=True)
class ControllerParts:
    """What a controller works with. `wake` is called whenever the queue has grown."""

    cluster: Cluster
    cache: Cache
    queue: WorkQueue[Key]
    poller: StorePoller
    observer: Observer
    applier: Applier
    status: StatusWriter
    events: EventWriter
    metrics: Metrics
    clock: Clock
    wake: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class _Made:
    """How a pass ended, with the job as it was before and the status that was written, if one was."""

    outcome: str
    before: Custom | None = None
    written: JobStatus | None = None


class Controller:
    """Hears of changes and makes passes. Any pass may be lost; the next one decides afresh."""

    def __init__(self, parts: ControllerParts) -> None:
        self._parts = parts

    # -- hearing ------------------------------------------------------------------------------------------------------

    def hear_custom(self, kind: str | None, body: JsonObject) -> None:
        """A job appeared, changed or was deleted (`kind` DELETED)."""
        parts = self._parts
        if kind == "DELETED":
            self._gone(
                Key(body["kind"], body["metadata"].get("namespace", ""), body["metadata"]["name"]),
                uid=body["metadata"]["uid"],
            )
            return
        key, urgency, replaced = parts.cache.put_custom(body)
        if replaced is not None:
            self._forget(replaced)
        if urgency is not None:
            self.enqueue(key, urgency)

    def hear_child(self, kind: str | None, body: JsonObject) -> None:
        """A child Job appeared, changed or was deleted."""
        parts = self._parts
        if kind == "DELETED":
            owner = key_of_child(body)
            uid = body["metadata"]["uid"]
            if owner is not None and parts.cache.drop_child(owner, body["metadata"]["name"], uid=uid):
                self.enqueue(owner, Urgency.CHANGE)
            return
        found = parts.cache.put_child(body, parts.clock.monotonic_s())
        if found is not None and found[1] is not None:
            self.enqueue(found[0], found[1])

    def store_answered(self, key: Key) -> None:
        """Something asked of a job's output was done, or went wrong."""
        self.enqueue(key, Urgency.CHANGE)

    def enqueue(self, key: Key, urgency: Urgency) -> None:
        """Make a pass over this job soon."""
        self._parts.queue.add(key, urgency, self._parts.clock.monotonic_s())
        self._parts.wake()

    def _gone(self, key: Key, *, uid: str = "") -> None:
        """Forget a job; only the one with this uid, since news of an old one may come late."""
        parts = self._parts
        known = parts.cache.custom(key)
        if uid and known is not None and known.uid != uid:
            return
        old = parts.cache.drop_custom(key)
        parts.queue.forget(key)
        for dependent in parts.cache.dependents(key):
            self.enqueue(dependent, Urgency.CHANGE)
        if old is not None:
            self._forget(old)

    def _forget(self, old: Custom) -> None:
        """Drop what is kept of an object that is gone, though its name may live on."""
        for forget in (self._parts.poller.forget, self._parts.status.forget, self._parts.observer.forget):
            forget(old.uid)

    # -- a pass -------------------------------------------------------------------------------------------------------

    async def make_pass(self, taken: Taken[Key]) -> None:
        """Look at one job and do what it needs."""
        parts, key = self._parts, taken.key
        started_s = parts.clock.monotonic_s()
        parts.metrics.observe("pagemill_operator_queue_wait_seconds", taken.waited_s)
        made = _Made("error")
        try:
            made = await self._pass(key, taken)
            if made.outcome != "refused":
                parts.queue.succeed(key)
        except ApiError as error:
            made = _Made(await self._failed(key, error))
        finally:
            parts.queue.done(key, parts.clock.monotonic_s())
        parts.metrics.pass_over(made.outcome, parts.clock.monotonic_s() - started_s)
        parts.wake()
        if made.before is not None and made.written is not None:  # the job's next pass need not wait for these
            await parts.events.tell(made.before, made.written)

    async def _pass(self, key: Key, taken: Taken[Key]) -> _Made:
        parts = self._parts
        seen = await parts.observer.observe(key)
        if seen is None:
            return _Made("gone")
        plan = reconcile(seen, parts.clock.now())
        refused = await self._apply(seen, plan)
        if refused is not None:
            plan = refused
        written = await self._tell(seen, plan, taken)
        if plan.again_in_s is not None:
            again_in_s = max(LEAST_PAUSE_S, plan.again_in_s)
            parts.queue.add_after(key, Urgency.PROGRESS, again_in_s, parts.clock.monotonic_s())
        log.debug("Made a pass", extra={"job": str(key), "actions": len(plan.actions), "written": written})
        outcome = "refused" if refused is not None else "changed" if plan.actions or written else "unchanged"
        return _Made(outcome, seen.custom, plan.status) if written else _Made(outcome)

    async def _apply(self, seen: Observed, plan: Plan) -> Plan | None:
        """Carry out the plan. Returns: what to say instead when the API server refuses it for good."""
        parts = self._parts
        for action in plan.actions:
            if isinstance(action, (Adopt, Look, StartWave, ChangeEntry)):
                parts.poller.submit(seen.custom, action, await parts.observer.store_secret(seen.custom))
                continue
            try:
                await parts.applier.do(seen.custom.key, action)
            except ApiError as error:
                if not (error.is_terminal or error.status == 403):
                    raise
                return self._refused(seen, error)
        return None

    def _refused(self, seen: Observed, error: ApiError) -> Plan:
        """What the cluster will not take: a spec that cannot be a Job, or a quota. Tried again, ever less often."""
        parts, key = self._parts, seen.custom.key
        message = f"the API server refuses: {error.message}"
        if error.is_terminal:
            found = say.failed(Reason.INVALID_SPEC, message)
        else:
            found = say.blind(seen.custom.status.phase or "Pending", Reason.WAITING_FOR_PODS, message)
        pause_s = parts.queue.retry(key, parts.clock.monotonic_s())
        log.warning("The API server refused an action", extra={"job": str(key), "retrySeconds": pause_s})
        return Plan(status=build_status(seen, found, parts.clock.now()))

    async def _tell(self, seen: Observed, plan: Plan, taken: Taken[Key]) -> bool:
        """Write the status if it is time to. Returns: whether it was written."""
        parts, custom = self._parts, seen.custom
        waiting_s = max(taken.waited_s, parts.queue.oldest_wait_s(parts.clock.monotonic_s()))
        delay_s = parts.status.delay_s(custom, plan.status, waiting_s, parts.poller.sight(custom.uid))
        if delay_s is None:
            return False
        if delay_s > 0:
            parts.queue.add_after(custom.key, Urgency.PROGRESS, delay_s, parts.clock.monotonic_s())
            return False
        answer = await parts.status.write(custom, plan.status)
        parts.cache.put_custom(answer)
        if plan.status.conditions != custom.status.conditions:
            self._wake_dependents(custom)
        return True

    def _wake_dependents(self, custom: Custom) -> None:
        for dependent in self._parts.cache.dependents(custom.key):
            self.enqueue(dependent, Urgency.CHANGE)

    async def _failed(self, key: Key, error: ApiError) -> str:
        """An answer that another pass may change: read the job again after a conflict, wait after anything else."""
        parts = self._parts
        if error.is_conflict or error.is_absent:
            await self._read_again(key)
        pause_s = parts.queue.retry(key, parts.clock.monotonic_s())
        log.info("A pass met an error", extra={"job": str(key), "error": str(error), "retrySeconds": pause_s})
        return "conflict" if error.is_conflict else "error"

    async def _read_again(self, key: Key) -> None:
        """What the cache says was contradicted: ask. A failure to ask is left to the next pass."""
        try:
            self.hear_custom(
                "MODIFIED", await self._parts.cluster.get(Address(PLURALS[key.kind], key.namespace, key.name))
            )
        except ApiError as error:
            if error.is_absent:
                self._gone(key)

    # -- the whole picture --------------------------------------------------------------------------------------------

    async def resync(self, namespaces: tuple[str, ...], selector: str) -> None:
        """List everything: what the watch missed is heard now, and what is gone is dropped after asking for it.

        Raises: ApiError.
        """
        parts = self._parts
        known, known_children = set(parts.cache.keys()), set(parts.cache.child_names())
        scopes = namespaces or ("",)
        for scope in scopes:
            for kind, plural in PLURALS.items():
                async for body in parts.cluster.list(Address(plural, scope)):
                    self.hear_custom(None, {**body, "kind": kind})
                    known.discard(Key(kind, body["metadata"]["namespace"], body["metadata"]["name"]))
            async for body in parts.cluster.list(Address(JOBS, scope), selector=selector):
                self.hear_child(None, body)
                owner = key_of_child(body)
                if owner is not None:
                    known_children.discard((owner, body["metadata"]["name"]))
        for key in known:
            await self._read_again(key)
        for key, name in known_children:
            await self._confirm_child(key, name)

    async def _confirm_child(self, key: Key, name: str) -> None:
        try:
            self.hear_child(None, await self._parts.cluster.get(Address(JOBS, key.namespace, name)))
        except ApiError as error:
            if not error.is_absent:
                raise
            if self._parts.cache.drop_child(key, name):
                self.enqueue(key, Urgency.CHANGE)
