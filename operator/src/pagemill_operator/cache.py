"""What the operator knows of the cluster: its jobs and their child Jobs, as the watch and the resync brought them.

Layer: the operator; no I/O. Says how urgent each change is. Never the truth: acting on absence reads again first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pagemill_core.api.conditions import ConditionType
from pagemill_operator.cluster import JsonObject
from pagemill_operator.objects import Child, Custom, Key, key_of_child, read_child, read_custom
from pagemill_operator.queue import Urgency
from pagemill_operator.reconcile.observed import DependencyState


class Cache:
    """Jobs by key, children by their owner's key."""

    def __init__(self) -> None:
        self._customs: dict[Key, Custom] = {}
        self._children: dict[Key, dict[str, Child]] = {}
        self._versions: dict[tuple[Key, str], str] = {}
        self._uids: Counter[str] = Counter()  # of jobs that exist and of owners of Jobs that exist
        self._dependents: dict[Key, set[Key]] = {}

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def custom(self, key: Key) -> Custom | None:
        return self._customs.get(key)

    def put_custom(self, body: JsonObject) -> tuple[Key, Urgency | None, Custom | None]:
        """Remember a job. Returns: its key; how urgent what changed is, None when only its status did or nothing; and
        the earlier object of this name, when this is another one."""
        key = Key(body["kind"], body["metadata"].get("namespace", ""), body["metadata"]["name"])
        old = self._customs.get(key)
        if old is not None and not _is_newer(body["metadata"].get("resourceVersion", ""), old.resource_version):
            return key, None, None
        new = read_custom(body, old)
        self._unlink(key)
        self._customs[key] = new
        for other in self._waits_for(key):
            self._dependents.setdefault(other, set()).add(key)
        if old is not None and old.uid == new.uid:
            return key, None if old.like(new) else Urgency.USER, None
        self._uids[new.uid] += 1
        if old is not None:
            self._drop_uid(old.uid)
        return key, Urgency.USER, old

    def drop_custom(self, key: Key) -> Custom | None:
        """Forget a job. Returns: what it was."""
        self._unlink(key)
        old = self._customs.pop(key, None)
        if old is not None:
            self._drop_uid(old.uid)
        return old

    # -- children -----------------------------------------------------------------------------------------------------

    def children(self, key: Key) -> tuple[Child, ...]:
        return tuple(self._children.get(key, {}).values())

    def put_child(self, body: JsonObject, now_s: float) -> tuple[Key, Urgency | None] | None:
        """Remember a child Job. Returns: whose it is and how urgent; None for a Job that is none of ours."""
        key = key_of_child(body)
        if key is None:
            return None
        version = body["metadata"].get("resourceVersion", "")
        if not _is_newer(version, self._versions.get((key, body["metadata"]["name"]), "")):
            return key, None  # not even parsed: each resync brings thousands of these
        child = read_child(body, now_s)
        if child is None:
            return None
        self._versions[key, child.name] = version
        old = self._children.setdefault(key, {}).get(child.name)
        if old is not None and old.uid == child.uid and old.same_as(child):
            return key, None
        self._children[key][child.name] = child
        if old is None:
            self._uids[child.owner_uid] += 1
        ended = old is None or (old.is_finished, old.suspend) != (child.is_finished, child.suspend)
        return key, Urgency.CHANGE if ended else Urgency.PROGRESS

    def drop_child(self, key: Key, name: str, *, uid: str = "") -> bool:
        """Forget a child; only the one with this uid where it is given. Returns: whether it was known."""
        known = self._children.get(key, {}).get(name)
        if uid and known is not None and known.uid != uid:
            return False
        child = self._children.get(key, {}).pop(name, None)
        self._versions.pop((key, name), None)
        if child is not None:
            self._drop_uid(child.owner_uid)
        if not self._children.get(key):
            self._children.pop(key, None)
        return child is not None

    # -- questions ----------------------------------------------------------------------------------------------------

    def is_alive(self, uid: str) -> bool:
        """Whether a job with this uid exists, or a Job of it does."""
        return self._uids[uid] > 0

    def keys(self) -> tuple[Key, ...]:
        return tuple(self._customs)

    def child_names(self) -> Iterator[tuple[Key, str]]:
        return ((key, name) for key, children in self._children.items() for name in children)

    def phases(self) -> Counter[tuple[str, str]]:
        """Jobs by kind and phase."""
        return Counter((key.kind, custom.status.phase or "Pending") for key, custom in self._customs.items())

    def dependents(self, key: Key) -> tuple[Key, ...]:
        """The jobs that wait for this one: all of its namespace."""
        return tuple(self._dependents.get(key, ()))

    def dependencies(self, key: Key) -> tuple[DependencyState, ...]:
        """The jobs that this one waits for, as they are now."""
        return tuple(self._state_of(key, other) for other in self._waits_for(key))

    def _state_of(self, asking: Key, key: Key) -> DependencyState:
        custom = self._customs.get(key)
        if custom is None:
            return DependencyState(key, exists=False, is_complete=False, is_failed=False)
        is_current = custom.status.observed_generation == custom.generation
        return DependencyState(
            key,
            exists=True,
            is_complete=is_current and custom.status.is_true(ConditionType.COMPLETE),
            is_failed=is_current and custom.status.is_true(ConditionType.FAILED),
            path=self._circle(asking, key),
            output_uri=custom.job.spec.output.uri if custom.job is not None else "",
        )

    def _waits_for(self, key: Key) -> tuple[Key, ...]:
        custom = self._customs.get(key)
        if custom is None or custom.job is None:
            return ()
        return tuple(Key(other.kind, key.namespace, other.name) for other in custom.job.spec.all_dependencies)

    def _circle(self, start: Key, first: Key) -> tuple[Key, ...]:
        """The way from `start` over `first` back to `start`, () when there is none."""
        paths: list[tuple[Key, ...]] = [(start, first)]
        seen = {first}
        while paths:
            path = paths.pop()
            for following in self._waits_for(path[-1]):
                if following == start:
                    return (*path, start)
                if following not in seen:
                    seen.add(following)
                    paths.append((*path, following))
        return ()

    def _unlink(self, key: Key) -> None:
        """Before a job changes or goes: it waits for nobody."""
        for other in self._waits_for(key):
            waiting = self._dependents.get(other, set())
            waiting.discard(key)
            if not waiting:
                self._dependents.pop(other, None)

    def _drop_uid(self, uid: str) -> None:
        self._uids[uid] -= 1
        if self._uids[uid] <= 0:
            del self._uids[uid]


def _is_newer(version: str, known: str) -> bool:
    """Whether a resourceVersion is not older than a known one; what cannot be compared counts as newer.

    The watch may bring an object's past after our own write has told its present.
    """
    if not known or not version.isdecimal() or not known.isdecimal():
        return True
    return int(version) > int(known)
