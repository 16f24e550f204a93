"""docs/reference/api.md: every field, rule, condition and reason, written from the models.

Layer: `core.api`. Renders text; writes no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import Any

from pydantic.alias_generators import to_snake

from pagemill_core.api.conditions import ConditionType, Reason
from pagemill_core.api.crd.schema import job_schema, structural_schema
from pagemill_core.api.mutability import change_of, fixed_rules
from pagemill_core.api.v1alpha1.jobs import KINDS, SPECS, JobSpec
from pagemill_core.api.v1alpha1.status import JobStatus

_Tree = Mapping[str, Any]

_INTRO = """\
<!-- Generated from core/src/pagemill_core/api by `make generate`; do not edit. -->
# The API: OcrJob and EmbeddingJob

Group `pagemill.dev`, version `v1alpha1`, namespaced. `kubectl get pagemill` lists both kinds; their short names are
`ocr` and `emb`. The same file is what `pagemill run` takes on a laptop.

Unknown fields are refused. Money and ratios are strings, durations are whole seconds. A field that is left out, one
that is `null` and one that is written with its default mean the same, also to the work key, by which Pagemill knows
work that it has done before.

"May change" says when a change of a field takes effect. What is *fixed once planned* is free until
`status.plannedAt` is set; then the API server refuses to change it, because what is done would not fit what is asked.
"""


def render_reference() -> str:
    """The page as Markdown."""
    parts = [_INTRO]
    for kind, model in KINDS.items():
        description = " ".join((model.__doc__ or "").split())
        own = SPECS[kind].model_fields.keys() - JobSpec.model_fields.keys()
        parts += [f"## {kind}\n", f"{description}\n", *_spec_sections(kind, own), *_rules_section(kind)]
    parts += ["## Fields of both kinds\n", *_spec_sections("OcrJob", JobSpec.model_fields.keys())]
    parts += ["## Status\n", "Both kinds have the same status.\n", _table(structural_schema(JobStatus), "status")]
    parts += ["## Conditions\n", _words(ConditionType), "## Reasons\n", _words(Reason)]
    return "\n".join(parts)


def _spec_sections(kind: str, names: Set[str]) -> Iterator[str]:
    spec = job_schema(kind)["properties"]["spec"]
    parts = {name: part for name, part in spec["properties"].items() if to_snake(name) in names}
    lone = {name: part for name, part in parts.items() if not _has_fields(part)}
    required = set(spec["required"])
    for name, part in parts.items():
        if _has_fields(part):
            must = "Required. " if name in required else ""
            yield f"### spec.{name}\n\n{must}{part['description']}\n"
            yield _table(part, f"spec.{name}", kind)
    if lone:
        yield "### Single fields of spec\n"
        yield _table({"properties": lone, "required": sorted(required)}, "spec", kind)


def _has_fields(part: _Tree) -> bool:
    return "properties" in part or "properties" in part.get("items", {})


def _table(part: _Tree, root: str, kind: str | None = None) -> str:
    heads = ("field", "type", *(("may change",) if kind else ()), "meaning")
    lines = [" | ".join(("", *heads, "")).strip(), "|" + "---|" * len(heads)]
    if "items" in part:
        part, root = part["items"], f"{root}[]"
    for path, field, required in _fields(part, root):
        change = (change_of(kind, path.removeprefix("spec.")).value,) if kind else ()
        meaning = ("**Required.** " if required else "") + field.get("description", "")
        cells = (f"`{path}`", _type(field), *change, meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _fields(part: _Tree, root: str) -> Iterator[tuple[str, _Tree, bool]]:
    """Every field below, parts before what they hold: path, schema, and whether it must be given."""
    for name, field in part.get("properties", {}).items():
        path = f"{root}.{name}"
        yield path, field, name in part.get("required", ())
        yield from _fields(field, path)
        yield from _fields(field.get("items", {}), f"{path}[]")


def _type(field: _Tree) -> str:
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("x-kubernetes-int-or-string"):
        return "quantity" if "pattern" in field else "integer or `auto`"
    if field["type"] == "array":
        return f"list of {_type(field['items'])}, at most {field['maxItems']}"
    if "additionalProperties" in field:
        return f"map of {_type(field['additionalProperties'])}"
    if field["type"] == "integer":
        return f"integer, {field['minimum']} to {field['maximum']}" if "minimum" in field else "integer"
    return "instant" if field.get("format") == "date-time" else str(field["type"])


def _rules_section(kind: str) -> Iterator[str]:
    yield "### Rules\n\nChecked by the API server and by the command line alike.\n"
    schema = job_schema(kind)
    fixed = {rule.message for rule in fixed_rules(kind)}
    lines = [
        f"- `{path}`: {entry['message']}" for path, entry in _validations(schema, "") if entry["message"] not in fixed
    ]
    yield "\n".join(dict.fromkeys(lines)) + "\n"


def _validations(part: _Tree, path: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    for entry in part.get("x-kubernetes-validations", ()):
        yield (path + entry.get("fieldPath", "")).removeprefix(".") or "spec", entry
    for name, inner in part.get("properties", {}).items():
        yield from _validations(inner, f"{path}.{name}")
    if "items" in part:
        yield from _validations(part["items"], f"{path}[]")


def _words(words: type[ConditionType] | type[Reason]) -> str:
    return "\n".join(f"- `{word.value}`: {word.meaning}" for word in words) + "\n"
