"""Gathering what a pass needs to see: from the cache, from the poller, and from the cluster only where it must ask.

Layer: the operator; I/O, no decisions. A healthy job costs no call here: pods are read only when something is wrong,
Secrets only where the operator was told to.
"""

from __future__ import annotations

import base64
import binascii
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from pagemill_core.api.v1alpha1 import Job
from pagemill_core.clock import Clock
from pagemill_core.work.pod import LastWords, PodStep
from pagemill_operator.cache import Cache
from pagemill_operator.cluster import PODS, SECRETS, Address, ApiError, Cluster, JsonObject
from pagemill_operator.objects import Child, Custom, Key
from pagemill_operator.reconcile.failures import POD_FAILURE_POLICY
from pagemill_operator.reconcile.observed import Observed
from pagemill_operator.settings import Config
from pagemill_operator.store_poller import StorePoller
from pagemill_operator.workloads import Workloads

TROUBLE_AFTER_S = 10.0  # pods that are not ready by then are asked why
TROUBLE_EVERY_S = 120.0  # a thousand jobs that wait for nodes would otherwise list pods all the time
MAX_ASKING = 2  # and an API server that is slow to list would hold up the passes that do not need it
SECRET_EVERY_S = 60.0
MAX_WORDS_KEPT = 2000
MAX_PODS_READ = 50
_LINE_CHARS = 300


@dataclass(frozen=True)
class ObserverParts:
    """What an observer asks."""

    cluster: Cluster
    cache: Cache
    poller: StorePoller
    config: Config
    clock: Clock
    workloads: Workloads


class Observer:
    """Makes the picture that reconciling decides on."""

    def __init__(self, parts: ObserverParts) -> None:
        self._parts = parts
        self._words: OrderedDict[str, LastWords | None] = OrderedDict()
        self._trouble: dict[str, tuple[float, str]] = {}
        self._asking = 0
        self._secrets: dict[tuple[str, str], tuple[float, dict[str, str] | None]] = {}

    async def observe(self, key: Key) -> Observed | None:
        """All that is known of a job now, None when it is not there. Raises: ApiError."""
        parts = self._parts
        custom = parts.cache.custom(key)
        if custom is None:
            return None
        now_s = parts.clock.monotonic_s()
        children = parts.cache.children(key)
        own = [child for child in children if child.owner_uid == custom.uid]
        words = {child.uid: said for child in own if (said := await self._last_words(key, child)) is not None}
        return Observed(
            custom=custom,
            config=parts.config,
            now_s=now_s,
            children=children,
            sight=parts.poller.sight(custom.uid),
            dependencies=parts.cache.dependencies(key),
            last_words=words,
            pod_trouble=await self._pod_trouble(key, own, now_s),
            missing_secrets=await self._missing_secrets(custom),
            queue_words=await self._queue_words(custom, own),
        )

    async def store_secret(self, custom: Custom) -> dict[str, str] | None:
        """The job's own store Secret, None where the operator may not read it or it is not there."""
        name = _store_secret_name(custom.job) if custom.job else ""
        if not name or custom.key.namespace not in self._parts.config.read_secrets_in:
            return None
        return await self._secret(custom.key.namespace, name)

    def forget(self, uid: str) -> None:
        """Drop what is kept of a job that is gone."""
        self._trouble.pop(uid, None)

    # -- why pods ended -----------------------------------------------------------------------------------------------

    async def _last_words(self, key: Key, child: Child) -> LastWords | None:
        """Why a failed Job's pod ended; read once, since the Job will not change any more."""
        asks = child.is_failed and (child.step is not PodStep.WORK or child.failed_reason == POD_FAILURE_POLICY)
        if not asks:
            return None
        if child.uid not in self._words:
            self._words[child.uid] = _worst(await self._pods(key, child))
            while len(self._words) > MAX_WORDS_KEPT:
                self._words.popitem(last=False)
        return self._words[child.uid]

    async def _pods(self, key: Key, child: Child, *, is_recent_enough: bool = False) -> list[JsonObject]:
        selector = f"batch.kubernetes.io/controller-uid={child.uid}"
        found = []
        place = Address(PODS, key.namespace)
        async for pod in self._parts.cluster.list(place, selector=selector, is_recent_enough=is_recent_enough):
            found.append(pod)
            if len(found) >= MAX_PODS_READ:
                break
        return found

    # -- why pods do not start ----------------------------------------------------------------------------------------

    async def _pod_trouble(self, key: Key, own: list[Child], now_s: float) -> str:
        stuck = next((child for child in own if child.active and not child.ready and not child.is_finished), None)
        if stuck is None:
            return ""
        asked_s, known = self._trouble.get(stuck.owner_uid, (now_s - TROUBLE_EVERY_S + TROUBLE_AFTER_S, ""))
        if stuck.owner_uid in self._trouble and now_s - asked_s < TROUBLE_EVERY_S:
            return known
        if now_s - stuck.seen_s < TROUBLE_AFTER_S or self._asking >= MAX_ASKING:
            return known
        self._asking += 1
        try:
            pods = await self._pods(key, stuck, is_recent_enough=True)
        finally:
            self._asking -= 1
        said = next((text for pod in pods if (text := _why_not_running(pod))), "")
        self._trouble[stuck.owner_uid] = (now_s, said)
        return said

    async def _queue_words(self, custom: Custom, own: list[Child]) -> str:
        """What Kueue says of the Job that waits for it, or was sent back to waiting."""
        if custom.job is None or not custom.job.spec.workers.effective_queue:
            return ""
        waiting = next((child for child in own if child.suspend and not child.is_finished), None)
        return "" if waiting is None else await self._parts.workloads.said(custom.key.namespace, waiting.uid)

    # -- secrets ------------------------------------------------------------------------------------------------------

    async def _missing_secrets(self, custom: Custom) -> tuple[str, ...]:
        name = _store_secret_name(custom.job) if custom.job else ""
        if not name or custom.key.namespace not in self._parts.config.read_secrets_in:
            return ()
        return () if await self._secret(custom.key.namespace, name) is not None else (name,)

    async def _secret(self, namespace: str, name: str) -> dict[str, str] | None:
        now_s = self._parts.clock.monotonic_s()
        read_s, known = self._secrets.get((namespace, name), (-SECRET_EVERY_S, None))
        if now_s - read_s < SECRET_EVERY_S:
            return known
        try:
            body = await self._parts.cluster.get(Address(SECRETS, namespace, name))
        except ApiError as error:
            if not error.is_absent:
                raise
            content = None
        else:
            content = _decoded(body.get("data") or {})
        self._secrets[namespace, name] = (now_s, content)
        return content


def _store_secret_name(job: Job) -> str:
    reference = job.spec.effective_storage.secret_ref
    return "" if reference is None else reference.name


def _decoded(data: dict[str, str]) -> dict[str, str]:
    """A Secret's text values; what is no text is none of ours."""
    found = {}
    for name, value in data.items():
        try:
            found[name] = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            continue
    return found


def _worst(pods: list[JsonObject]) -> LastWords | None:
    """What the last pod that ended badly said: our own words before a last line of its log."""
    told: list[tuple[bool, str, LastWords]] = []
    for pod in pods:
        for ended in _terminated(pod):
            text = str(ended.get("message") or "").strip()
            if not ended.get("exitCode") or not text:
                continue
            ours = LastWords.from_text(text)
            line = text.splitlines()[-1][:_LINE_CHARS]
            words = ours or LastWords(reason="", message=f"exit code {ended['exitCode']}: {line}")
            told.append((ours is not None, str(ended.get("finishedAt") or ""), words))
    return max(told, key=lambda one: one[:2])[2] if told else None


def _terminated(pod: JsonObject) -> list[JsonObject]:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    states = [(status.get("state") or {}).get("terminated") for status in statuses]
    return [state for state in states if state]


def _why_not_running(pod: JsonObject) -> str:
    """What the scheduler or the kubelet says of a pod that does not run, "" when it runs."""
    status: dict[str, Any] = pod.get("status") or {}
    for container in status.get("containerStatuses") or []:
        waits = (container.get("state") or {}).get("waiting") or {}
        if waits.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return f"{waits['reason']}: {waits.get('message') or ''}"[:_LINE_CHARS].rstrip(": ")
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason') or ''}: {condition.get('message') or ''}"[:_LINE_CHARS]
    return ""
