"""JSON schemas for kubeconform out of what a real API server publishes, CRDs included.

Why it exists: kubeconform fetches its schemas from a web site, which is neither of this server's version nor always in
reach. Layer: project tooling; pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Schema = dict[str, Any]
_REFERENCE = "#/definitions/"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
LOCATION = "{{.Group}}_{{.ResourceAPIVersion}}_{{.ResourceKind}}.json"
"""The files' names as kubeconform's -schema-location writes them; to it the group of Kubernetes' own core is v1."""


def from_openapi(document: Schema) -> dict[str, Schema]:
    """Schemas by file name, from the server's /openapi/v2. Fields that a type does not list are refused."""
    definitions: dict[str, Schema] = {name: _strict(given) for name, given in document["definitions"].items()}
    definitions[_QUANTITY] = {"type": ["string", "number"]}
    found: dict[str, Schema] = {}
    for name, given in document["definitions"].items():
        kinds = given.get("x-kubernetes-group-version-kind", [])
        if len(kinds) != 1:  # options and watch events belong to every group
            continue
        kind = kinds[0]
        needed = {other: definitions[other] for other in sorted(_reachable(name, definitions))}
        file = f"{kind['group'] or kind['version']}_{kind['version']}_{kind['kind'].lower()}.json"
        found[file] = {**definitions[name], "definitions": needed}
    return found


def _strict(given: Any) -> Any:
    if isinstance(given, list):
        return [_strict(part) for part in given]
    if not isinstance(given, dict):
        return given
    part = {name: _strict(value) for name, value in given.items()}
    if part.get("x-kubernetes-int-or-string") or part.get("format") == "int-or-string":
        return {"type": ["string", "integer"]}
    is_open = "additionalProperties" in part or part.get("x-kubernetes-preserve-unknown-fields")
    if "properties" in part and not is_open:
        part["additionalProperties"] = False
    return part


def _reachable(name: str, definitions: Mapping[str, Schema]) -> set[str]:
    """Every definition that this one names, directly or not."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for other in _references(definitions[waiting.pop()]):
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, list):
        for item in part:
            yield from _references(item)
    elif isinstance(part, dict):
        target = part.get("$ref")
        if isinstance(target, str) and target.startswith(_REFERENCE):
            yield target.removeprefix(_REFERENCE)
        for value in part.values():
            yield from _references(value)
