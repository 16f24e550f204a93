"""Writes charts/pagemill/values.schema.json, by which helm refuses values that the chart does not know.

Why it exists: a misspelt value would otherwise be passed over in silence. The part below `config` is the operator's own
settings class, so the chart cannot offer what the operator does not read. Layer: project tooling; pure.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from pagemill_core.recurring import MAX_SERIES_CHARS
from pagemill_operator.settings import Config

PATH = "charts/pagemill/values.schema.json"
# Settings that the chart fills in from values of its own, because more than the settings file depends on them.
FROM_OTHER_VALUES = ("stores", "readSecretsIn", "workerServiceAccount")

Schema = dict[str, Any]
_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
_NAMESPACE: Schema = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
_OBJECT_NAME: Schema = {"type": "string", "pattern": _NAME, "maxLength": 253}
_OPTIONAL_NAME: Schema = {"type": "string", "pattern": rf"^$|{_NAME}", "maxLength": 253}
_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_TEXTS: Schema = {"type": "object", "additionalProperties": _TEXT}
_ANYTHING: Schema = {"type": "object"}
_PULL_POLICY: Schema = {"enum": ["IfNotPresent", "Always", "Never"]}
_PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}


def _fields(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    """An object with these fields and no other."""
    found: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return {**found, "required": list(required)} if required else found


def _with(fields: Schema, name: str, field: Schema) -> Schema:
    return {**fields, "properties": {**fields["properties"], name: field}}


def _list(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def _image() -> Schema:
    return _fields(
        repository={"type": "string", "pattern": "^[^:@ ]+(:[0-9]+/[^:@ ]+)?$", "description": "without tag"},
        tag={"type": "string", "pattern": r"^[\w.-]{0,128}$"},
        digest={"type": "string", "pattern": "^$|^sha256:[0-9a-f]{64}$"},
    )


def _account() -> Schema:
    return _fields(create=_FLAG, name=_OPTIONAL_NAME, annotations=_TEXTS)


def _monitor() -> Schema:
    return _fields(enabled=_FLAG, labels=_TEXTS, interval={"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"})


def _series() -> Schema:
    job = _fields(
        ("kind", "spec"),
        kind={"enum": ["OcrJob", "EmbeddingJob"]},
        apiVersion={"const": "pagemill.dev/v1alpha1"},
        metadata=_fields(labels=_TEXTS, annotations=_TEXTS, name=_OBJECT_NAME),
        spec=_ANYTHING,
    )
    keep: Schema = {"type": "integer", "minimum": 0}
    return _fields(
        ("name", "schedule", "job"),
        name={**_OBJECT_NAME, "maxLength": MAX_SERIES_CHARS},
        namespace=_NAMESPACE,
        schedule={"type": "string", "minLength": 1},
        timeZone=_TEXT,
        suspend=_FLAG,
        keepSucceeded=keep,
        keepFailed=keep,
        job=job,
    )


def _store() -> Schema:
    return _fields(
        prefix={"type": "string", "pattern": "^s3://"},
        endpoint={"type": "string", "pattern": "^$|^https?://"},
        region=_TEXT,
        secretName=_OPTIONAL_NAME,
        caSecretName=_OPTIONAL_NAME,
    )


def _config() -> tuple[Schema, Schema]:
    """The schema of `config`, and the definitions that it names."""
    own = copy.deepcopy(Config.model_json_schema(by_alias=True))
    definitions: Schema = own.pop("$defs")
    for name in FROM_OTHER_VALUES:
        del own["properties"][name]
    del definitions["StoreAccess"]
    images = definitions["Images"]["properties"]
    short = {"anyOf": [{"type": "string", "minLength": 1}, {"$ref": "#/$defs/WorkerImage"}]}
    images["engines"]["additionalProperties"] = short
    images["loaders"]["additionalProperties"] = short
    images["default"] = {"anyOf": [*short["anyOf"], {"type": "null"}], "description": images["default"]["description"]}
    for part in (own, *definitions.values()):
        _strip(part)
    return own, definitions


def _strip(part: Schema) -> None:
    """Leave out titles and defaults, which say nothing that values.yaml does not."""
    for field in part["properties"].values():
        field.pop("title", None)
        field.pop("default", None)
    part.pop("title", None)


def schema() -> Schema:
    """The whole schema."""
    config, definitions = _config()
    values = _fields(
        nameOverride=_OPTIONAL_NAME,
        fullnameOverride=_OPTIONAL_NAME,
        commonLabels=_TEXTS,
        image=_with(_image(), "pullPolicy", _PULL_POLICY),
        imagePullSecrets=_list(_OBJECT_NAME),
        scope=_fields(clusterWide=_FLAG, namespaces=_list(_NAMESPACE, uniqueItems=True)),
        worker=_fields(image=_image(), serviceAccount=_account()),
        stores=_list(_store()),
        readSecrets=_list(_fields(("namespace", "names"), namespace=_NAMESPACE, names=_list(_OBJECT_NAME, minItems=1))),
        config=config,
        operator=_operator(),
        serviceAccount=_account(),
        rbac=_fields(create=_FLAG, aggregateToUserRoles=_FLAG, ownerReferences=_FLAG),
        kueue=_fields(enabled=_FLAG),
        resources=_ANYTHING,
        podSecurityContext=_ANYTHING,
        podAnnotations=_TEXTS,
        podLabels=_TEXTS,
        nodeSelector=_TEXTS,
        tolerations=_list(_ANYTHING),
        affinity=_ANYTHING,
        priorityClassName=_TEXT,
        recurring=_fields(enabled=_FLAG, namespaces=_list(_NAMESPACE, uniqueItems=True), jobs=_list(_series())),
        metrics=_metrics(),
        externalMetrics=_fields(enabled=_FLAG),
        networkPolicy=_network_policy(),
    )
    values["properties"]["global"] = _ANYTHING  # helm gives it to every chart
    draft = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": draft, "title": "Values of the chart pagemill", **values, "$defs": definitions}


def _operator() -> Schema:
    return _fields(
        logLevel={"enum": ["DEBUG", "INFO", "WARNING", "ERROR"]},
        workers={"type": "integer", "minimum": 1, "maximum": 64},
        storeThreads={"type": "integer", "minimum": 1, "maximum": 256},
        resyncSeconds={"type": "number", "exclusiveMinimum": 0},
    )


def _metrics() -> Schema:
    return _fields(
        service=_fields(enabled=_FLAG, annotations=_TEXTS),
        serviceMonitor=_monitor(),
        podMonitor=_monitor(),
        rules=_fields(enabled=_FLAG, labels=_TEXTS),
        dashboard=_fields(enabled=_FLAG, labels=_TEXTS, annotations=_TEXTS),
    )


def _network_policy() -> Schema:
    return _fields(
        enabled=_FLAG,
        metricsFrom=_list(_ANYTHING),
        egressPorts=_list(_PORT, minItems=1, uniqueItems=True),
        extraEgress=_list(_ANYTHING),
        workers=_fields(enabled=_FLAG, blocked=_list({"type": "string", "pattern": r"^[0-9.]+/[0-9]+$"})),
    )


def render_all() -> dict[str, str]:
    """The schema's file."""
    return {PATH: json.dumps(schema(), indent=2) + "\n"}
