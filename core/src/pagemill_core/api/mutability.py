"""Which field may change when, as data: it makes the CRDs' immutability rules, the work key and the reference page.

Layer: `core.api`. Every field of both specs stands here, by itself or through the part that holds it; there is no
catch-all, and a test walks the models so that none is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pagemill_core.api.v1alpha1.jobs import Job


class Change(StrEnum):
    """When a change of a field takes effect."""

    WORK = "fixed once planned; says what the work is"
    FIXED = "fixed once planned"
    NEXT_WAVE = "from the next wave of workers"
    AT_ONCE = "at once"

    @property
    def is_fixed(self) -> bool:
        """Whether the field cannot change once the job is planned."""
        return self in (Change.WORK, Change.FIXED)


_SHARED: Mapping[str, Change] = {
    "source": Change.WORK,
    "output": Change.WORK,
    "output.onConflict": Change.FIXED,  # how to meet other work is no part of what this work is
    "sharding": Change.WORK,
    "maxItems": Change.WORK,
    "incremental": Change.WORK,
    "stages[].name": Change.WORK,
    "stages[].use": Change.WORK,
    "stages[].after": Change.WORK,
    "stages[].options": Change.WORK,
    "stages[].processes": Change.NEXT_WAVE,
    "stages[].cpus": Change.NEXT_WAVE,
    "stages[].gpus": Change.NEXT_WAVE,
    "stages[].memory": Change.NEXT_WAVE,
    "stages[].batchSize": Change.NEXT_WAVE,
    "stages[].attempts": Change.NEXT_WAVE,
    "storage.endpoint": Change.FIXED,
    "storage.region": Change.FIXED,
    "storage.secretRef": Change.AT_ONCE,
    "storage.caSecretRef": Change.FIXED,
    "storage.addressing": Change.FIXED,
    "storage.sse": Change.FIXED,
    "storage.kmsKeyId": Change.FIXED,
    "storage.volumes": Change.FIXED,
    "workers.parallelism": Change.AT_ONCE,
    "workers.pool": Change.NEXT_WAVE,
    "workers.queue": Change.AT_ONCE,  # Kueue itself refuses it after admission
    "workers.priorityClass": Change.FIXED,
    "workers.processesPerPod": Change.NEXT_WAVE,
    "workers.resources": Change.NEXT_WAVE,
    "workers.template": Change.NEXT_WAVE,
    "retries": Change.AT_ONCE,
    "budget": Change.AT_ONCE,
    "deadlineSeconds": Change.AT_ONCE,
    "suspend": Change.AT_ONCE,
    "ttlSecondsAfterFinished": Change.AT_ONCE,
    "dependsOn": Change.FIXED,
}

CHANGES: Mapping[str, Mapping[str, Change]] = {
    "OcrJob": {
        **_SHARED,
        "engine": Change.WORK,
        "engine.apiKeySecretRef": Change.FIXED,  # a secret's name is no part of what the work is
    },
    "EmbeddingJob": {
        **_SHARED,
        "visual": Change.WORK,
        "text": Change.WORK,
        "inference": Change.WORK,
        "classify": Change.WORK,
    },
}

REQUIRED = ("source", "output")
_OWN_STAGES = "stages[].use"


def change_of(kind: str, path: str) -> Change:
    """When a change of `path`, such as `workers.template.env[].name`, takes effect.

    Raises: KeyError when neither the field nor a part that holds it is classified.
    """
    table = CHANGES[kind]
    candidate = path
    while candidate not in table:
        cut = max(candidate.rfind("."), candidate.rfind("[]"))
        if cut < 0:
            raise KeyError(f"{kind} spec.{path} is not classified")
        candidate = candidate[:cut]
    return table[candidate]


def fixed_paths(kind: str) -> tuple[str, ...]:
    """The fields compared by the immutability rules: whole parts where all of a part is fixed, else its fields.

    A list's own stages are compared apart, because entries that only size a built-in stage may come and go.
    """
    fixed = [path for path, change in CHANGES[kind].items() if change.is_fixed and "[]" not in path]
    return tuple(path for path in fixed if not any(path.startswith(f"{other}.") for other in fixed))


@dataclass(frozen=True, slots=True)
class FixedRule:
    """One immutability rule at the root of a CRD's schema, over `self` and `oldSelf`; `path` is below spec."""

    path: str
    cel: str

    @property
    def message(self) -> str:
        """What the API server answers to a change."""
        what = "the use, after and options of stages" if self.path == _OWN_STAGES else self.path
        verb = "are" if self.path == _OWN_STAGES else "is"
        return f"{what} {verb} fixed once the job is planned; give the new work a job of its own, with another output"

    def as_validation(self) -> dict[str, str]:
        """The rule as an entry of `x-kubernetes-validations`."""
        return {
            "rule": f"!has(oldSelf.status) || !has(oldSelf.status.plannedAt) || ({self.cel})",
            "message": self.message,
            "reason": "FieldValueForbidden",
            "fieldPath": f".spec.{self.path.partition('[]')[0]}",
        }


def _present(root: str, path: str) -> str:
    """CEL: whether an optional field is there, asked from its outermost part inwards."""
    names = path.split(".")
    return " && ".join(f"has({root}.spec.{'.'.join(names[:depth])})" for depth in range(1, len(names) + 1))


def _unchanged_cel(path: str) -> str:
    if path in REQUIRED:
        return f"self.spec.{path} == oldSelf.spec.{path}"
    now, before = _present("self", path), _present("oldSelf", path)
    # Both sides of "there or not" are compared, or removing a field and adding it again would be a way round.
    return f"({now}) == ({before}) && (!({now}) || self.spec.{path} == oldSelf.spec.{path})"


def _own_stages_cel() -> str:
    """CEL: whether both sides have the same own stages, in any order.

    Loops inside loops over the bounded lists alone: a list made by `map` has no bound that the API server knows, and a
    comparison of two such lists exceeds its cost limit.
    """
    same = " && ".join(
        f"has(stage.{name}) == has(other.{name}) && (!has(stage.{name}) || stage.{name} == other.{name})"
        for name in ("use", "after", "options")
    )

    def covered(these: str, others: str) -> str:
        return f"{these}.all(stage, !has(stage.use) || {others}.exists(other, other.name == stage.name && {same}))"

    now, before = "self.spec.stages", "oldSelf.spec.stages"
    none_in = "!{}.exists(stage, has(stage.use))".format
    return (
        f"has({now}) ? (has({before}) ? ({covered(now, before)} && {covered(before, now)}) : {none_in(now)})"
        f" : (!has({before}) || {none_in(before)})"
    )


def fixed_rules(kind: str) -> tuple[FixedRule, ...]:
    """The immutability rules of one kind."""
    rules = [FixedRule(path, _unchanged_cel(path)) for path in fixed_paths(kind)]
    return (*rules, FixedRule(_OWN_STAGES, _own_stages_cel()))


def changed_fixed_paths(old: Job, new: Job) -> tuple[str, ...]:
    """The fixed fields in which `new` differs, none when `old` is not planned yet: what the API server would refuse.

    Raises: ValueError when the two are not of one kind.
    """
    if old.kind != new.kind:
        raise ValueError(f"cannot compare {old.kind} with {new.kind}")
    if old.status is None or old.status.planned_at is None:
        return ()
    before, after = (job.spec.model_dump(mode="json", by_alias=True, exclude_none=True) for job in (old, new))
    paths = [path for path in fixed_paths(old.kind) if list(_found(before, path)) != list(_found(after, path))]
    own = [_own_stages(spec) for spec in (before, after)]
    return (*paths, _OWN_STAGES) if own[0] != own[1] else tuple(paths)


def _found(spec: Mapping[str, Any], path: str) -> Iterator[Any]:
    """The value at a path, if it is there."""
    value: Any = spec
    for name in path.split("."):
        if name not in value:
            return
        value = value[name]
    yield value


def _own_stages(spec: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    stages = [stage for stage in spec.get("stages", ()) if "use" in stage]
    stages.sort(key=lambda stage: str(stage["name"]))
    return [tuple(stage.get(name) for name in ("name", "use", "after", "options")) for stage in stages]
