"""The generated CRDs: structural, complete, current; and the linter that says so."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import Field

from pagemill_core.api.conditions import ConditionType, Reason
from pagemill_core.api.crd.generate import PLURALS, crd, render_all
from pagemill_core.api.crd.schema import CRD_DEFAULTS, NotStructuralError, job_schema, structural_schema
from pagemill_core.api.crd.structural import problems
from pagemill_core.api.mutability import change_of
from pagemill_core.api.rules import RULES
from pagemill_core.api.v1alpha1.base import ApiModel

ROOT = Path(__file__).parents[2]
KINDS = list(PLURALS)


def version(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = crd(kind)["spec"]["versions"][0]
    return found


def field_at(schema: dict[str, Any], json_path: str) -> dict[str, Any]:
    for name in json_path.removeprefix(".").split("."):
        schema = schema["properties"][name]
    return schema


def validations(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [entry["rule"] for entry in part.get("x-kubernetes-validations", [])]
        return own + [rule for inner in part.values() for rule in validations(inner)]
    return [rule for inner in part for rule in validations(inner)] if isinstance(part, list) else []


@pytest.mark.parametrize("kind", KINDS)
def test_crd_schema_is_structural(kind: str) -> None:
    assert problems(job_schema(kind)) == []


def test_crd_files_are_what_the_models_say() -> None:
    rendered = render_all()
    assert set(rendered) == {
        "crds/ocrjobs.pagemill.dev.yaml",
        "crds/embeddingjobs.pagemill.dev.yaml",
        "docs/reference/api.md",
    }
    stale = [path for path, text in rendered.items() if (ROOT / path).read_text(encoding="utf-8") != text]
    assert stale == [], "run `make generate`"


@pytest.mark.parametrize("kind", KINDS)
def test_crd_as_yaml_is_the_crd(kind: str) -> None:
    text = render_all()[f"crds/{PLURALS[kind]}.pagemill.dev.yaml"]
    assert yaml.safe_load(text) == crd(kind)
    assert "&id" not in text


@pytest.mark.parametrize("kind", KINDS)
def test_crd_names_and_subresources_are_those_of_the_design(kind: str) -> None:
    spec = crd(kind)["spec"]
    assert crd(kind)["metadata"]["name"] == f"{spec['names']['plural']}.{spec['group']}"
    assert spec["names"]["categories"] == ["pagemill"]
    assert spec["names"]["shortNames"] == [{"OcrJob": "ocr", "EmbeddingJob": "emb"}[kind]]
    assert set(version(kind)["subresources"]) == {"status", "scale"}


@pytest.mark.parametrize("kind", KINDS)
def test_crd_printer_columns_and_scale_point_to_fields_of_their_type(kind: str) -> None:
    schema = job_schema(kind)
    for column in version(kind)["additionalPrinterColumns"]:
        if column["jsonPath"] != ".metadata.creationTimestamp":
            assert field_at(schema, column["jsonPath"])["type"] == column["type"], column["name"]
    scale = version(kind)["subresources"]["scale"]
    wanted = {"specReplicasPath": "integer", "statusReplicasPath": "integer", "labelSelectorPath": "string"}
    assert {name: field_at(schema, path)["type"] for name, path in scale.items()} == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_crd_columns_shown_without_wide_keep_their_order(kind: str) -> None:
    columns = version(kind)["additionalPrinterColumns"]
    shown = [column["name"] for column in columns if "priority" not in column]
    assert shown == ["Phase", "Done", "Failed", "Rate", "ETA", "Cost", "Age"]


@pytest.mark.parametrize("kind", KINDS)
def test_crd_defaults_stand_only_where_a_field_may_always_change(kind: str) -> None:
    for path in CRD_DEFAULTS:
        if path != ".spec.workers":
            assert not change_of(kind, path.removeprefix(".spec.")).is_fixed
    text = str(job_schema(kind))
    assert text.count("'default':") == len(CRD_DEFAULTS)


def test_crd_every_rule_of_the_table_stands_in_a_crd() -> None:
    written = {rule for kind in KINDS for rule in validations(job_schema(kind))}
    assert [rule.message for rule in RULES if rule.cel not in written] == []


@pytest.mark.parametrize("kind", KINDS)
def test_crd_rules_use_no_function_that_came_after_the_oldest_supported_server(kind: str) -> None:
    newer = ("quantity(", "isQuantity(", "url(", "isURL(", "optional.", ".?", "format.", "ip(", "cidr(", "semver(")
    assert [rule for rule in validations(job_schema(kind)) if any(name in rule for name in newer)] == []


def test_crd_reference_names_every_condition_and_reason() -> None:
    page = render_all()["docs/reference/api.md"]
    words = [*ConditionType, *Reason]
    assert [word.value for word in words if f"- `{word.value}`: {word.meaning}" not in page] == []


def small_schema() -> dict[str, Any]:
    return {
        "description": "x",
        "type": "object",
        "properties": {
            "name": {"description": "x", "type": "string", "maxLength": 9},
            "items": {
                "description": "x",
                "type": "array",
                "maxItems": 3,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": {"description": "x", "type": "string", "maxLength": 9}},
                },
            },
        },
    }


DEFECTS: list[tuple[str, dict[str, Any], str]] = [
    ("properties.name", {"$ref": "#/x"}, "keyword $ref is not allowed"),
    ("properties.name", {"title": "Name"}, "keyword title is not allowed"),
    ("properties.name", {"const": "a"}, "keyword const is not allowed"),
    ("properties.name", {"oneOf": []}, "keyword oneOf is not allowed"),
    ("properties.name", {"type": "null"}, "type 'null' is not one of"),
    ("properties.name", {"type": None}, "type is missing"),
    ("properties.name", {"anyOf": [{"type": "string"}, {"type": "null"}]}, "anyOf is only for int-or-string"),
    ("properties.name", {"format": "duration"}, "is unknown to the API server"),
    ("properties.name", {"maxLength": None}, "a string without maxLength"),
    ("properties.name", {"description": None}, "no description"),
    ("properties.name", {"pattern": "^(?!x)"}, "looks around"),
    ("properties.name", {"type": "number"}, "a float"),
    ("properties.name", {"default": 1}, "the default is not of the field's type"),
    ("properties.name", {"x-kubernetes-list-type": "set"}, "needs type array"),
    ("properties.items", {"maxItems": None}, "an array without maxItems"),
    ("properties.items", {"items": None}, "an array needs items"),
    ("properties.items", {"x-kubernetes-list-type": None}, "an array needs x-kubernetes-list-type"),
    ("properties.items", {"x-kubernetes-list-type": "set"}, "a set holds scalars only"),
    ("properties.items", {"x-kubernetes-list-map-keys": None}, "goes with list type map"),
    ("properties.items.items", {"required": []}, "must be a required property"),
    ("properties.items.items", {"required": ["name", "gone"]}, "required field gone is not a property"),
    ("", {"additionalProperties": {"type": "string", "maxLength": 1}}, "must not stand at the root"),
    ("", {"additionalProperties": False}, "additionalProperties must be a schema"),
    ("", {"x-kubernetes-preserve-unknown-fields": True}, "a map without maxProperties"),
    ("", {"x-kubernetes-validations": [{"rule": " ", "message": "x", "reason": "FieldValueInvalid"}]}, "without rule"),
    ("", {"x-kubernetes-validations": [{"rule": "a", "message": "x\ny", "reason": "FieldValueInvalid"}]}, "one line"),
    ("", {"x-kubernetes-validations": [{"rule": "a", "message": "x", "reason": "Bad"}]}, "needs a reason"),
    (
        "",
        {"x-kubernetes-validations": [{"rule": "a", "message": "x", "reason": "FieldValueInvalid", "fieldPath": ".b"}]},
        "points to .b, which is not a field",
    ),
]


def test_linter_good_schema_has_no_problems() -> None:
    assert problems(small_schema()) == []


@pytest.mark.parametrize(("path", "defect", "want"), DEFECTS, ids=[want for _, _, want in DEFECTS])
def test_linter_planted_defect_is_found(path: str, defect: dict[str, Any], want: str) -> None:
    schema = copy.deepcopy(small_schema())
    part = schema
    for name in path.split(".") if path else ():
        part = part[name]
    for keyword, value in defect.items():
        if value is None:
            part.pop(keyword)
        else:
            part[keyword] = value
    assert any(want in problem for problem in problems(schema))


class Chosen(ApiModel):
    """A choice of types, which no CRD can say."""

    value: int | list[str] = Field(description="Either.")


def test_structural_schema_choice_of_types_is_refused_by_name() -> None:
    with pytest.raises(NotStructuralError, match=r"\.value: a choice of types"):
        structural_schema(Chosen)
