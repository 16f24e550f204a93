"""An API server in memory, true in what the operator relies on: versions, generations, apply, conflicts, owners.

Layer: `operator.testing`. Nothing in it waits, so its coroutines end at once. Everything that happens is in `events`,
in order, as a watch would tell it; whoever plays the watch may deliver late, twice or never.
"""

from __future__ import annotations

import copy
import json
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from pydantic import ValidationError

from pagemill_core.api.mutability import changed_fixed_paths
from pagemill_core.api.v1alpha1 import KINDS
from pagemill_core.clock import Clock, iso
from pagemill_operator.cluster import JOBS, PLURALS, Address, ApiError, JsonObject

Bodies = list[JsonObject]
_FIXED_IN_JOBS = ("completions", "completionMode", "template", "backoffLimitPerIndex", "podFailurePolicy")


class FakeKube:
    """Objects by address. `before` is called ahead of each call with its verb and address, and may raise."""

    def __init__(self, clock: Clock) -> None:
        self.objects: dict[Address, JsonObject] = {}
        self.events: deque[tuple[str, str, JsonObject]] = deque()  # resource, type, object
        self.calls: Counter[tuple[str, str]] = Counter()  # verb, resource
        self.before: Callable[[str, Address], None] | None = None
        self._clock = clock
        self._version = 0
        self._uids = 0

    # -- the operator's door ------------------------------------------------------------------------------------------

    async def get(self, address: Address) -> JsonObject:
        self._called("get", address)
        return copy.deepcopy(self._existing(address))

    async def list(
        self, address: Address, *, selector: str = "", is_recent_enough: bool = False
    ) -> AsyncIterator[JsonObject]:
        self._called("list", address)
        wanted = dict(part.split("=", 1) for part in selector.split(",") if part)
        for body in [copy.deepcopy(body) for body in self._collection(address)]:
            labels = body["metadata"].get("labels") or {}
            if all(labels.get(name) == value for name, value in wanted.items()):
                yield body

    async def create(self, address: Address, body: JsonObject) -> JsonObject:
        self._called("create", address)
        named = Address(address.resource, address.namespace, body["metadata"]["name"])
        if named in self.objects:
            raise ApiError(409, "AlreadyExists", named.path)
        return copy.deepcopy(self._put_new(named, body))

    async def apply(self, address: Address, body: JsonObject, manager: str) -> JsonObject:
        self._called("apply", address)
        json.dumps(body, allow_nan=False)  # what cannot travel must not pass here either
        if address.subresource == "status":
            return self._apply_status(address, body)
        existing = self.objects.get(address)
        if existing is None:
            return copy.deepcopy(self._put_new(address, {**body, "metadata": dict(body["metadata"])}))
        self._check_version(existing, body)
        _check_owner(existing, body)
        spec = {**existing["spec"], **body["spec"]}
        changed = [name for name in _FIXED_IN_JOBS if existing["spec"].get(name) != spec.get(name)]
        if address.resource == JOBS and changed:
            raise ApiError(422, "Invalid", f"spec.{changed[0]}: field is immutable")
        metadata = {**existing["metadata"], **body["metadata"], "uid": existing["metadata"]["uid"]}
        return copy.deepcopy(self._replace(address, {**existing, "spec": spec, "metadata": metadata}))

    async def merge(self, address: Address, body: JsonObject) -> JsonObject:
        self._called("patch", address)
        return copy.deepcopy(self._replace(address, _merged(self._existing(address), body)))

    async def delete(self, address: Address, *, uid: str) -> None:
        self._called("delete", address)
        if self._existing(address)["metadata"]["uid"] != uid:
            raise ApiError(409, "Conflict", "the uid in the precondition does not match")
        self.remove(address)

    # -- a person's kubectl -------------------------------------------------------------------------------------------

    def user_apply(self, body: JsonObject, namespace: str = "default") -> JsonObject:
        """Create or change a job as `kubectl apply` does. Raises: ApiError 422 for what the CRD's rules refuse."""
        kind = body["kind"]
        address = Address(PLURALS[kind], namespace, body["metadata"]["name"])
        existing = self.objects.get(address)
        merged = {**(existing or {}), **copy.deepcopy(body)}
        merged["metadata"] = {**(existing or {}).get("metadata", {}), **body["metadata"], "namespace": namespace}
        try:
            new = KINDS[kind].model_validate(merged)
        except ValidationError as error:
            raise ApiError(422, "Invalid", str(error)) from error
        if existing is None:
            return copy.deepcopy(self._put_new(address, merged))
        fixed = changed_fixed_paths(KINDS[kind].model_validate(existing), new)
        if fixed:
            raise ApiError(422, "Invalid", f"spec.{fixed[0]}: Forbidden")
        return copy.deepcopy(self._replace(address, merged))

    def user_patch(self, kind: str, name: str, spec: JsonObject, namespace: str = "default") -> JsonObject:
        """Change some fields of a job's spec, as `kubectl patch --type merge` or `kubectl scale` does."""
        existing = self.objects[Address(PLURALS[kind], namespace, name)]
        merged = _merged(existing, {"spec": spec})
        return self.user_apply({name: merged[name] for name in ("apiVersion", "kind", "metadata", "spec")}, namespace)

    def remove(self, address: Address) -> None:
        """Delete an object and, as the garbage collector does, everything that it owns."""
        body = self.objects.pop(address)
        self._bump(body)
        self._tell("DELETED", address, body)
        uid = body["metadata"]["uid"]
        for other, candidate in list(self.objects.items()):
            owners = candidate["metadata"].get("ownerReferences") or []
            if other in self.objects and any(owner["uid"] == uid for owner in owners):
                self.remove(other)

    # -- other controllers --------------------------------------------------------------------------------------------

    def read(self, resource: str, name: str, namespace: str = "default") -> JsonObject:
        """An object as it is, uncounted."""
        return copy.deepcopy(self.objects[Address(resource, namespace, name)])

    def all(self, resource: str) -> Bodies:
        """Every object of a resource, uncounted, by name."""
        found = [body for address, body in self.objects.items() if address.resource == resource]
        return copy.deepcopy(sorted(found, key=lambda body: str(body["metadata"]["name"])))

    def set_status(self, address: Address, status: JsonObject) -> None:
        """Write a status as another controller."""
        self._replace(address, {**self._existing(address), "status": copy.deepcopy(status)})

    def put(self, address: Address, body: JsonObject) -> None:
        """Create an object as another controller, or replace it."""
        if address in self.objects:
            self._replace(address, copy.deepcopy(body))
        else:
            self._put_new(address, body)

    @property
    def writes(self) -> int:
        """Calls that may write, Events excepted."""
        return sum(
            count
            for (verb, resource), count in self.calls.items()
            if verb in ("apply", "patch", "delete", "create") and "events" not in resource
        )

    # -- inside -------------------------------------------------------------------------------------------------------

    def _called(self, verb: str, address: Address) -> None:
        resource = f"{address.resource}/{address.subresource}" if address.subresource else address.resource
        self.calls[verb, resource] += 1
        if self.before is not None:
            self.before(verb, address)

    def _existing(self, address: Address) -> JsonObject:
        try:
            return self.objects[address]
        except KeyError as error:
            raise ApiError(404, "NotFound", address.path) from error

    def _collection(self, address: Address) -> Bodies:
        return [
            body
            for other, body in self.objects.items()
            if other.resource == address.resource and address.namespace in ("", other.namespace)
        ]

    def _apply_status(self, address: Address, body: JsonObject) -> JsonObject:
        main = Address(address.resource, address.namespace, address.name)
        existing = self._existing(main)
        self._check_version(existing, body)
        return copy.deepcopy(self._replace(main, {**existing, "status": copy.deepcopy(body["status"])}))

    @staticmethod
    def _check_version(existing: JsonObject, body: JsonObject) -> None:
        wanted = body["metadata"].get("resourceVersion")
        if wanted and wanted != existing["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "the object has been modified")

    def _put_new(self, address: Address, given: JsonObject) -> JsonObject:
        body = copy.deepcopy(given)
        self._uids += 1
        body.pop("status", None)
        owners = body["metadata"].get("ownerReferences") or []
        body["metadata"] |= {
            "namespace": address.namespace,
            "uid": f"uid-{self._uids:06d}",
            "generation": 1,
            "creationTimestamp": iso(self._clock.now()),
        }
        self._bump(body)
        self.objects[address] = body
        self._tell("ADDED", address, body)
        living = {other["metadata"]["uid"] for other in self.objects.values()}
        if any(owner["uid"] not in living for owner in owners):
            self.remove(address)  # a child of a dead owner is collected at once
        return body

    def _replace(self, address: Address, body: JsonObject) -> JsonObject:
        old = self.objects[address]
        body["metadata"] = {**body["metadata"], "resourceVersion": old["metadata"]["resourceVersion"]}
        if body == old:
            return old  # an identical write changes nothing
        if body.get("spec") != old.get("spec"):
            body["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        self._bump(body)
        self.objects[address] = body
        self._tell("MODIFIED", address, body)
        return body

    def _bump(self, body: JsonObject) -> None:
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)

    def _tell(self, kind: str, address: Address, body: JsonObject) -> None:
        self.events.append((address.resource, kind, copy.deepcopy(body)))


def _check_owner(existing: JsonObject, body: JsonObject) -> None:
    """An object has one controller: applying with another one is refused."""
    owners = [one["metadata"].get("ownerReferences") or [{}] for one in (existing, body)]
    if owners[0][0].get("uid") != owners[1][0].get("uid"):
        raise ApiError(422, "Invalid", "Only one reference can have Controller set to true")


def _merged(old: Any, new: Any) -> Any:
    """JSON merge patch."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return copy.deepcopy(new)
    merged = {**old, **{name: _merged(old.get(name), value) for name, value in new.items()}}
    return {name: value for name, value in merged.items() if value is not None}
