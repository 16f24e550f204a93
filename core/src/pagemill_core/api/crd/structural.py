"""A linter for structural schemas: what the API server would refuse or silently drop in a CRD.

Layer: `core.api`. Covers the forms that the generator can produce, and is strict beyond the API server where its
leniency loses something: every field needs a description and every string, list and map a bound.
Source: the Kubernetes documentation of structural schemas and of CRD validation rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_TYPES = frozenset({"array", "boolean", "integer", "number", "object", "string"})
_KEYWORDS = frozenset(
    {
        "additionalProperties",
        "anyOf",
        "default",
        "description",
        "enum",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "pattern",
        "properties",
        "required",
        "type",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
    }
)
_FORMATS = frozenset({"date-time", "int32", "int64"})
_REASONS = frozenset({"FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate"})
_LIST_TYPES = frozenset({"atomic", "set", "map"})
_INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]
_LOOK_AROUND = ("(?=", "(?!", "(?<")


def problems(schema: Schema) -> list[str]:
    """What is wrong with `openAPIV3Schema`, one line each with the field's path; empty when all is well."""
    found = [f"{path or '.'}: {problem}" for path, part in _walk(schema, "") for problem in _problems_of(part)]
    if "additionalProperties" in schema:
        found.append(".: additionalProperties must not stand at the root")
    found += [
        f"{path}: no description, so kubectl explain shows nothing"
        for path, part in _walk(schema, "")
        if not part.get("description") and not path.endswith(("[]", "{}")) and not path.startswith(".metadata")
    ]
    return found


def _walk(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """The schema and all below it. anyOf is no place for fields in a structural schema and is not entered."""
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from _walk(part, f"{path}.{name}")
    for keyword, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(schema.get(keyword), Mapping):
            yield from _walk(schema[keyword], path + mark)


def _problems_of(part: Schema) -> Iterator[str]:
    yield from (f"keyword {keyword} is not allowed here" for keyword in sorted(part.keys() - _KEYWORDS))
    yield from _type_problems(part)
    yield from _bound_problems(part)
    yield from _list_problems(part)
    yield from _default_problems(part)
    yield from _validation_problems(part)


def _type_problems(part: Schema) -> Iterator[str]:
    kind = part.get("type")
    free = part.get("x-kubernetes-int-or-string") or part.get("x-kubernetes-preserve-unknown-fields")
    if kind is None and not free:
        yield "type is missing"
    if kind is not None and kind not in _TYPES:
        yield f"type {kind!r} is not one of {', '.join(sorted(_TYPES))}"
    if "anyOf" in part and not (part.get("x-kubernetes-int-or-string") and part["anyOf"] == _INT_OR_STRING):
        yield "anyOf is only for int-or-string; use one object with optional fields and a rule"
    if "properties" in part and "additionalProperties" in part:
        yield "properties and additionalProperties exclude each other"
    if "additionalProperties" in part and not isinstance(part["additionalProperties"], Mapping):
        yield "additionalProperties must be a schema"
    if kind == "array" and not isinstance(part.get("items"), Mapping):
        yield "an array needs items, one schema"
    if "format" in part and part["format"] not in _FORMATS:
        yield f"format {part['format']!r} is unknown to the API server"
    missing = set(part.get("required", ())) - set(part.get("properties", {}))
    yield from (f"required field {name} is not a property" for name in sorted(missing))


def _bound_problems(part: Schema) -> Iterator[str]:
    kind = part.get("type")
    bounded_text = {"maxLength", "enum", "format"} & part.keys()
    if kind == "string" and not bounded_text:
        yield "a string without maxLength"
    if kind == "array" and "maxItems" not in part:
        yield "an array without maxItems"
    is_map = "additionalProperties" in part or part.get("x-kubernetes-preserve-unknown-fields")
    if is_map and "maxProperties" not in part:
        yield "a map without maxProperties"
    if kind == "number":
        yield "a float; money and ratios are strings, durations whole seconds"
    if any(mark in part.get("pattern", "") for mark in _LOOK_AROUND):
        yield "the pattern looks around, which RE2 cannot"


def _list_problems(part: Schema) -> Iterator[str]:
    if part.get("type") != "array":
        if "x-kubernetes-list-type" in part:
            yield "x-kubernetes-list-type needs type array"
        return
    kind = part.get("x-kubernetes-list-type")
    if kind not in _LIST_TYPES:
        yield "an array needs x-kubernetes-list-type"
    keys = part.get("x-kubernetes-list-map-keys", [])
    if (kind == "map") != bool(keys):
        yield "x-kubernetes-list-map-keys goes with list type map"
    items = part.get("items", {})
    for key in keys:
        if key not in items.get("required", ()):
            yield f"the map key {key} must be a required property of the items"
    if kind == "set" and items.get("type") in ("object", "array"):
        yield "a set holds scalars only"


def _default_problems(part: Schema) -> Iterator[str]:
    if "default" not in part:
        return
    expected = {"string": str, "integer": int, "boolean": bool, "object": dict, "array": list}
    wanted = expected.get(part.get("type", ""))
    if wanted is not None and type(part["default"]) is not wanted:
        yield "the default is not of the field's type"


def _validation_problems(part: Schema) -> Iterator[str]:
    for entry in part.get("x-kubernetes-validations", ()):
        rule = entry.get("rule", "")
        if not rule.strip():
            yield "a validation without rule"
        if not entry.get("message") or "\n" in entry["message"]:
            yield f"rule {rule!r} needs a message of one line"
        if entry.get("reason") not in _REASONS:
            yield f"rule {rule!r} needs a reason that the API server knows"
        if "fieldPath" in entry and not _has_field(part, entry["fieldPath"]):
            yield f"rule {rule!r} points to {entry['fieldPath']}, which is not a field"


def _has_field(part: Schema, field_path: str) -> bool:
    for name in field_path.removeprefix(".").split("."):
        if name not in part.get("properties", {}):
            return False
        part = part["properties"][name]
    return True
