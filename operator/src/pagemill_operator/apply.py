"""Doing a plan's actions in the cluster. Each may have been done before; doing it again changes nothing.

Layer: the operator; I/O, no decisions. The cache hears each answer at once, so that the next pass does not repeat it.
"""

from __future__ import annotations

from dataclasses import dataclass

from pagemill_core.clock import Clock
from pagemill_core.work.pod import UID_LABEL
from pagemill_operator.cache import Cache
from pagemill_operator.cluster import (
    CHILD_MANAGER,
    JOBS,
    PLURALS,
    Address,
    ApiError,
    Cluster,
    JsonObject,
)
from pagemill_operator.objects import Key
from pagemill_operator.reconcile.plan import ApplyJob, ClusterAction, DeleteJob, DeleteSelf, SetJob, SetWorkload
from pagemill_operator.workloads import Workloads


@dataclass(frozen=True)
class Applier:
    """Carries out cluster actions for one job at a time."""

    cluster: Cluster
    cache: Cache
    clock: Clock
    workloads: Workloads

    async def do(self, key: Key, action: ClusterAction) -> None:
        """Carry out one action. Raises: ApiError; what is gone already is no error."""
        try:
            match action:
                case ApplyJob():
                    await self._apply(key, action.manifest)
                case SetJob():
                    await self._set(key, action)
                case SetWorkload():
                    await self.workloads.set_active(key.namespace, action.job_uid, action.is_active)
                case DeleteJob():
                    await self._delete(key, action)
                case DeleteSelf():
                    await self.cluster.delete(Address(PLURALS[key.kind], key.namespace, key.name), uid=action.uid)
        except ApiError as error:
            if not error.is_absent:
                raise
            if isinstance(action, (SetJob, DeleteJob)):
                self.cache.drop_child(key, action.name)

    async def _apply(self, key: Key, manifest: JsonObject) -> None:
        address = Address(JOBS, key.namespace, manifest["metadata"]["name"])
        try:
            answer = await self.cluster.apply(address, manifest, CHILD_MANAGER)
        except ApiError as error:
            if error.status != 422:
                raise
            answer = await self._existing(address, manifest, error)
        self.cache.put_child(answer, self.clock.monotonic_s())

    async def _existing(self, address: Address, manifest: JsonObject, refusal: ApiError) -> JsonObject:
        """The Job that is there already, made of an earlier spec: it stays as it is until it ends.

        Raises: `refusal` when there is none, or one of somebody else.
        """
        try:
            found = await self.cluster.get(address)
        except ApiError as error:
            if error.is_absent:
                raise refusal from error
            raise
        if found["metadata"].get("labels", {}).get(UID_LABEL) != manifest["metadata"]["labels"][UID_LABEL]:
            raise refusal
        return found

    async def _set(self, key: Key, action: SetJob) -> None:
        wanted = {"parallelism": action.parallelism, "suspend": action.suspend}
        spec = {name: value for name, value in wanted.items() if value is not None}
        answer = await self.cluster.merge(Address(JOBS, key.namespace, action.name), {"spec": spec})
        self.cache.put_child(answer, self.clock.monotonic_s())

    async def _delete(self, key: Key, action: DeleteJob) -> None:
        address = Address(JOBS, key.namespace, action.name)
        await self.cluster.delete(address, uid=action.uid)
        try:
            self.cache.put_child(await self.cluster.get(address), self.clock.monotonic_s())
        except ApiError as error:
            if not error.is_absent:
                raise
            self.cache.drop_child(key, action.name)
