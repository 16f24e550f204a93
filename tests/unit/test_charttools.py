"""Making kubeconform's schemas and the schema of the chart's values."""

from __future__ import annotations

from typing import Any

from charttools import schemas, values_schema

from pagemill_operator.settings import Config

OPENAPI: dict[str, Any] = {
    "definitions": {
        "io.k8s.api.core.v1.Thing": {
            "type": "object",
            "properties": {
                "spec": {"$ref": "#/definitions/io.k8s.api.core.v1.ThingSpec"},
                "port": {"type": "string", "format": "int-or-string"},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            },
            "x-kubernetes-group-version-kind": [{"group": "", "version": "v1", "kind": "Thing"}],
        },
        "io.k8s.api.core.v1.ThingSpec": {
            "type": "object",
            "properties": {
                "size": {"$ref": "#/definitions/io.k8s.apimachinery.pkg.api.resource.Quantity"},
                "inner": {"$ref": "#/definitions/io.k8s.api.core.v1.ThingSpec"},
                "anything": {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {}},
            },
        },
        "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": "string"},
        "dev.pagemill.v1.Other": {
            "type": "object",
            "properties": {},
            "x-kubernetes-group-version-kind": [{"group": "pagemill.dev", "version": "v1", "kind": "Other"}],
        },
        "io.k8s.DeleteOptions": {
            "x-kubernetes-group-version-kind": [
                {"group": "", "version": "v1", "kind": "DeleteOptions"},
                {"group": "apps", "version": "v1", "kind": "DeleteOptions"},
            ]
        },
    }
}


def test_schemas_are_strict_and_hold_what_they_name() -> None:
    found = schemas.from_openapi(OPENAPI)

    assert found.keys() == {"v1_v1_thing.json", "pagemill.dev_v1_other.json"}
    thing = found["v1_v1_thing.json"]
    spec = thing["definitions"]["io.k8s.api.core.v1.ThingSpec"]
    assert thing["additionalProperties"] is False
    assert thing["properties"]["port"] == {"type": ["string", "integer"]}
    assert thing["properties"]["labels"]["additionalProperties"] == {"type": "string"}
    assert spec["additionalProperties"] is False
    assert "additionalProperties" not in spec["properties"]["anything"]
    assert thing["definitions"]["io.k8s.apimachinery.pkg.api.resource.Quantity"] == {"type": ["string", "number"]}


def test_values_schema_knows_every_setting_and_no_other() -> None:
    config = values_schema.schema()["properties"]["config"]

    assert config["additionalProperties"] is False
    names = {field.alias or name for name, field in Config.model_fields.items()}
    assert config["properties"].keys() == names - set(values_schema.FROM_OTHER_VALUES)
    assert set(values_schema.FROM_OTHER_VALUES) < names


def test_values_schema_names_no_definition_that_is_not_there() -> None:
    whole = values_schema.schema()

    def references(part: Any) -> set[str]:
        if isinstance(part, list):
            return set().union(*map(references, part)) if part else set()
        if not isinstance(part, dict):
            return set()
        own = {part["$ref"].removeprefix("#/$defs/")} if "$ref" in part else set()
        return own.union(*(references(value) for value in part.values()))

    assert references(whole) == whole["$defs"].keys()
