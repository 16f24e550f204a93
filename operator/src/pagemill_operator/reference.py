"""docs/reference/operator.md: the operator's settings and metrics, written from the classes that read and count them.

Layer: the operator package's, beside `main`; used by tools/generate.py alone. Renders text; reads no setting.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pagemill_operator.metrics import HELP
from pagemill_operator.next_run import NextRunSettings
from pagemill_operator.settings import Config, OperatorSettings

PATH = "docs/reference/operator.md"

_INTRO = """\
<!-- Generated from operator/src/pagemill_operator by `make generate`; do not edit. -->
# The operator: settings and metrics

`pagemill-operator` is the operator; `pagemill-operator next-run` is one tick of a series, in the pods of CronJobs that
the chart or `pagemill schedule` makes. With the [chart](../../charts/pagemill/README.md) nobody writes these by hand:
its values become the variables and the file.
"""
_FILE = """\
## The settings file

YAML at `PAGEMILL_CONFIG_PATH`, read once, when the operator starts. Unknown fields are refused. `[]` stands for each
entry of a list, `{}` for each key.
"""
_METRICS = """\
## Metrics

`/metrics` on `PAGEMILL_PORT`, beside `/healthz` (restart it when this fails) and `/readyz`. No series is of one job, so
their number does not grow with the jobs.
"""
_HISTOGRAMS = ("pagemill_operator_reconcile_seconds", "pagemill_operator_queue_wait_seconds")


def render_all() -> dict[str, str]:
    """The page by its path."""
    parts = [_INTRO, "## The operator's process", "", *_variables(OperatorSettings)]
    parts += ["", _FILE, "| field | default | meaning |", "|---|---|---|", *_fields(Config, "")]
    parts += ["", "## The pod of a series", "", *_variables(NextRunSettings)]
    parts += ["", _METRICS, "| series | type | what it says |", "|---|---|---|"]
    parts += [f"| `{name}` | {_metric_type(name)} | {text} |" for name, text in sorted(HELP.items())]
    return {PATH: "\n".join(parts) + "\n"}


def _variables(settings: type[BaseModel]) -> Iterator[str]:
    yield "| variable | default | meaning |"
    yield "|---|---|---|"
    for name, field in settings.model_fields.items():
        yield f"| `PAGEMILL_{name.upper()}` | {_default(field)} | {_escaped(field.description or '')} |"


def _fields(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        inner, suffix = _inner(field.annotation)
        yield f"| `{path}` | {_default(field)} | {_escaped(field.description or '')} |"
        if inner is not None:
            yield from _fields(inner, f"{path}{suffix}.")


def _inner(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """The model that a field holds, in a list, by key, or plainly, and how that is written."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    arguments = [argument for argument in get_args(annotation) if argument is not NoneType]
    for argument in arguments:
        found, _ = _inner(argument)
        if found is not None:
            origin = getattr(annotation, "__origin__", None)
            return found, "[]" if origin is list else "{}" if origin is dict else ""
    return None, ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    default = field.get_default(call_default_factory=True)
    if default in (None, "", [], {}) or isinstance(default, BaseModel):
        return ""
    if isinstance(default, list) and isinstance(default[0], BaseModel):
        default = [entry.model_dump(mode="json", by_alias=True, exclude_unset=True) for entry in default]
    return f"`{default if isinstance(default, (str, Path)) else json.dumps(default)}`"


def _metric_type(name: str) -> str:
    if name in _HISTOGRAMS:
        return "histogram"
    return "counter" if name.endswith("_total") else "gauge"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
