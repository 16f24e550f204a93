"""The work key: what the work *is*, whoever asks for it, as one digest.

Layer: `core.api`. Names, uids, generations, sizes, budgets and secrets play no part, so a job that was deleted and
applied again, or the same file on a laptop, finds its work. Frozen with v1alpha1: golden tests hold it.
"""

from __future__ import annotations

from typing import Any

from pagemill_core.api.mutability import Change, change_of
from pagemill_core.api.v1alpha1.base import ApiModel
from pagemill_core.api.v1alpha1.jobs import Job
from pagemill_core.api.v1alpha1.workers import Stage
from pagemill_core.ids import digest

_JSON = dict[str, Any]


def work_key(job: Job) -> str:
    """The digest of a job's work, 64 hexadecimal digits.

    Fields are taken as the user gave them; absent, null and equal to the default are one thing.
    """
    return digest(work_of(job))


def work_of(job: Job) -> _JSON:
    """What the work key is a digest of: the kind and the work fields, without defaults and references to secrets."""
    essence = _Essence(job)
    return {"kind": job.kind, **essence.of(job.spec, "")}


class _Essence:
    """Walks a spec and keeps what says what the work is."""

    def __init__(self, job: Job) -> None:
        self._kind = job.kind
        self._contextual_defaults = job.spec.contextual_defaults

    def of(self, part: ApiModel, path: str) -> _JSON:
        kept: _JSON = {}
        for name, field in type(part).model_fields.items():
            value = getattr(part, name)
            alias = field.alias or name
            where = f"{path}.{alias}" if path else alias
            if value is None or self._is_default(part, name, where, value):
                continue
            essence = self._value(value, where)
            if essence is not None:
                kept[alias] = essence
        return kept

    def _is_default(self, part: ApiModel, name: str, where: str, value: Any) -> bool:
        if where in self._contextual_defaults:
            return bool(value == self._contextual_defaults[where])
        if not hasattr(type(part), f"effective_{name}"):
            return False
        absent = part.model_copy(update={name: None})
        return bool(value == getattr(absent, f"effective_{name}"))

    def _value(self, value: Any, where: str) -> Any:
        """The value's share in the work, None when it has none."""
        if isinstance(value, ApiModel):
            return self.of(value, where) or None
        if where == "stages":
            return self._own_stages(value)
        if not self._is_work(where):
            return None
        return _without_nulls(value)

    def _own_stages(self, stages: tuple[Stage, ...]) -> list[_JSON] | None:
        """Stages of the user's own; entries that only size a built-in stage say nothing about what the work is."""
        own = sorted((stage for stage in stages if stage.use is not None), key=lambda stage: stage.name)
        return [self.of(stage, "stages[]") for stage in own] or None

    def _is_work(self, where: str) -> bool:
        return change_of(self._kind, where) is Change.WORK


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None} or None
    if isinstance(value, (list, tuple)):
        return [_without_nulls(inner) for inner in value]
    return value
