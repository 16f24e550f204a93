"""The job of one point: the sweep's job file with the point's sizes put in.

Layer: `cli.bench`; pure. Works on the file's own document, so that a sweep needs no field of the API that it does not
vary; the result is checked like any job's file when it runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pagemill_cli.bench.sweep import Point, absolute
from pagemill_core.errors import InvalidSpecError

# Fields of a job that may hold a path relative to the job's file.
_PATHS = {"uri", "annotations", "textUri", "pathPrefix", "weights", "checkpoint", "config"}

Document = dict[str, Any]


def read_document(path: Path) -> Document:
    """The one job of a file as its document, with paths made absolute. Raises: InvalidSpecError."""
    try:
        documents = [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one is not None]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidSpecError(
            f"{path} cannot be read: {error}", advice="`job` in the sweep's file names it"
        ) from error
    if len(documents) != 1 or not isinstance(documents[0], dict) or not isinstance(documents[0].get("spec"), dict):
        raise InvalidSpecError(f"{path} must hold one job, and holds {len(documents)} documents")
    moved: Document = _with_absolute_paths(documents[0], path.resolve().parent)
    return moved


def digest_of(document: Mapping[str, Any]) -> str:
    """Changes whenever the job does, whatever the order of its fields."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()[:16]


def job_of(document: Document, point: Point, output: str, *, name: str) -> Document:
    """The document of one point's job, writing to `output`. Raises: InvalidSpecError for an axis the job has not."""
    spec: Document = json.loads(json.dumps(document["spec"], default=str))
    inference = spec.get("inference")
    if point.world_size is not None:
        if inference is not None:
            inference["worldSize"] = point.world_size
        spec.setdefault("workers", {})["parallelism"] = point.world_size
    if point.batch_size is not None:
        _set_batch_size(spec, point.batch_size)
    if point.partitions is not None:
        source = next(iter(spec.get("source", {}).values()), None)
        if not isinstance(source, dict):
            raise InvalidSpecError("axes.partitions: the job has no source to put them into")
        source["uri"] = point.partitions.uri
    if point.resources is not None:
        asked = {"memory": f"{point.resources.memory_gb.normalize():f}Gi"}
        if point.resources.cpus is not None:
            asked["cpu"] = f"{point.resources.cpus.normalize():f}"
        spec.setdefault("workers", {})["resources"] = {"requests": asked, "limits": dict(asked)}
    spec.setdefault("output", {})["uri"] = output
    return {**document, "metadata": {**document.get("metadata", {}), "name": name}, "spec": spec}


def _set_batch_size(spec: Document, batch_size: int) -> None:
    found = [spec[part] for part in ("inference", "visual", "text") if isinstance(spec.get(part), dict)]
    if not found:
        raise InvalidSpecError("axes.batchSize: the job has no inference, visual or text to set it in")
    for part in found:
        part["batchSize"] = batch_size


def _with_absolute_paths(node: Any, base: Path) -> Any:
    if isinstance(node, list):
        return [_with_absolute_paths(one, base) for one in node]
    if not isinstance(node, dict):
        return node
    return {
        key: absolute(value, base) if key in _PATHS and isinstance(value, str) else _with_absolute_paths(value, base)
        for key, value in node.items()
    }
