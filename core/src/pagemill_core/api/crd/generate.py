"""The generated files of the API as text: both CRDs and the reference page.

Layer: `core.api`. Renders; who calls it writes the files. `make verify` renders again and compares.
"""

from __future__ import annotations

from typing import Any

import yaml

from pagemill_core.api.crd.reference import render_reference
from pagemill_core.api.crd.schema import job_schema

GROUP = "pagemill.dev"
VERSION = "v1alpha1"
PLURALS = {"OcrJob": "ocrjobs", "EmbeddingJob": "embeddingjobs"}
_SHORT_NAMES = {"OcrJob": "ocr", "EmbeddingJob": "emb"}
_HEADER = "# Generated from core/src/pagemill_core/api by `make generate`; do not edit.\n"

_Column = dict[str, Any]


def render_all() -> dict[str, str]:
    """Every generated file of the API: path relative to the repository's root, and its text."""
    files = {f"crds/{plural}.{GROUP}.yaml": render_crd(kind) for kind, plural in PLURALS.items()}
    return {**files, "docs/reference/api.md": render_reference()}


def render_crd(kind: str) -> str:
    """One CustomResourceDefinition as YAML."""
    return _HEADER + yaml.dump(crd(kind), Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=120)


def crd(kind: str) -> dict[str, Any]:
    """One CustomResourceDefinition as the API server takes it."""
    plural = PLURALS[kind]
    names = {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": plural,
        "singular": kind.lower(),
        "shortNames": [_SHORT_NAMES[kind]],
        "categories": ["pagemill"],
    }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.workers.parallelism",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        "additionalPrinterColumns": _columns(kind),
        "schema": {"openAPIV3Schema": job_schema(kind)},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}", "labels": {"app.kubernetes.io/part-of": "pagemill"}},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def _columns(kind: str) -> list[_Column]:
    """What `kubectl get` shows; those with priority 1 only with `-o wide`.

    One column with a wrong path hides itself and all after it, so a test looks each path up in the schema.
    """
    what = {
        "OcrJob": [_column("Engine", ".spec.engine.name", wide=True)],
        "EmbeddingJob": [
            _column("Visual", ".spec.visual.model.name", wide=True),
            _column("Text", ".spec.text.model.name", wide=True),
        ],
    }
    return [
        _column("Phase", ".status.phase"),
        _column("Done", ".status.done"),
        _column("Failed", ".status.items.failed", kind="integer"),
        _column("Rate", ".status.rate"),
        _column("ETA", ".status.eta"),
        _column("Cost", ".status.cost.spent"),
        _column("Age", ".metadata.creationTimestamp", kind="date"),
        *what[kind],
        _column("Pool", ".spec.workers.pool", wide=True),
        _column("Workers", ".spec.workers.parallelism", kind="integer", wide=True),
        _column("Message", ".status.message", wide=True),
    ]


def _column(name: str, json_path: str, *, kind: str = "string", wide: bool = False) -> _Column:
    column: _Column = {"name": name, "type": kind, "jsonPath": json_path}
    return {**column, "priority": 1} if wide else column


class _PlainDumper(yaml.SafeDumper):
    """YAML without anchors: kubectl takes them, but people read this."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
