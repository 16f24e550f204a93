"""From a pydantic model to a structural schema: one pass over the tree, references written out.

Layer: `core.api`. pydantic's own JSON schema is not structural: it has references, titles, `anyOf` with null, `const`,
and forbids additional properties. Null needs no `nullable`: the API server drops explicit nulls of fields that are not
nullable, as the models do, and a stored null would make `has()` true in every rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pagemill_core.api.mutability import fixed_rules
from pagemill_core.api.v1alpha1.base import ApiModel
from pagemill_core.api.v1alpha1.jobs import KINDS

_Tree = dict[str, Any]

# Defaults that the API server fills in. Only where the field may change at any time: see `v1alpha1.base`.
# kubectl scale reads parallelism, and answers with an error where it is absent.
CRD_DEFAULTS: Mapping[str, Any] = {".spec.workers": {}, ".spec.workers.parallelism": 1, ".spec.workers.pool": "cpu"}

_DROPPED = frozenset({"title", "default", "propertyNames", "examples"})
_ORDER = ("description", "type", "format", "enum", "default", "required")


class NotStructuralError(ValueError):
    """A model uses a form that a CRD cannot say; the message names the field."""


def job_schema(kind: str) -> _Tree:
    """The whole `openAPIV3Schema` of one kind. Raises: NotStructuralError."""
    schema = structural_schema(KINDS[kind])
    properties = schema["properties"]
    for name in ("apiVersion", "kind"):
        properties[name] = {"description": properties[name]["description"], "type": "string", "maxLength": 63}
    # The API server owns metadata; a CRD may only narrow the name.
    properties["metadata"] = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 63}}}
    schema["required"] = ["spec"]
    rules = schema.setdefault("x-kubernetes-validations", [])
    rules.extend(rule.as_validation() for rule in fixed_rules(kind))
    return schema


def structural_schema(model: type[ApiModel]) -> _Tree:
    """A model's schema in structural form. Raises: NotStructuralError."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _Structurer(schema.pop("$defs", {})).convert(schema, "")


class _Structurer:
    def __init__(self, definitions: Mapping[str, _Tree]) -> None:
        self._definitions = definitions

    def convert(self, part: _Tree, path: str) -> _Tree:
        part = self._without_null(self._resolved(part), path)
        if "const" in part:
            part["enum"] = [part.pop("const")]
        if part.get("additionalProperties") is False:
            del part["additionalProperties"]  # the API server prunes, or refuses, what is not declared
        for keyword in _DROPPED & part.keys():
            del part[keyword]
        if path in CRD_DEFAULTS:
            part["default"] = CRD_DEFAULTS[path]
        if "description" in part:
            part["description"] = " ".join(part["description"].split())
        self._convert_below(part, path)
        return _in_order(part)

    def _convert_below(self, part: _Tree, path: str) -> None:
        if "properties" in part:
            part["properties"] = {
                name: self.convert(inner, f"{path}.{name}") for name, inner in part["properties"].items()
            }
        for keyword, mark in (("items", "[]"), ("additionalProperties", "{}")):
            if keyword in part:
                part[keyword] = self.convert(part[keyword], path + mark)

    def _resolved(self, part: _Tree) -> _Tree:
        """The part with its references written out; what stands beside a reference wins."""
        part = dict(part)
        while "$ref" in part:
            target = self._definitions[part.pop("$ref").rsplit("/", 1)[1]]
            part = {**target, **part}
        return part

    def _without_null(self, part: _Tree, path: str) -> _Tree:
        if "anyOf" not in part or part.get("x-kubernetes-int-or-string"):
            return part
        choices = [choice for choice in part["anyOf"] if choice != {"type": "null"}]
        if len(choices) != 1:
            raise NotStructuralError(f"{path}: a choice of types; use one object with optional fields and a rule")
        beside = {keyword: value for keyword, value in part.items() if keyword != "anyOf"}
        return {**self._resolved(choices[0]), **beside}


def _in_order(part: _Tree) -> _Tree:
    first = {keyword: part[keyword] for keyword in _ORDER if keyword in part}
    return {**first, **{keyword: part[keyword] for keyword in sorted(part.keys() - first.keys())}}
