"""Reading a job's file, and writing one: the border between text and the models.

Layer: `core.api`. No I/O: takes and gives text. As strict as the API server under strict validation, and friendlier:
all problems at once, each with its line, its field's path and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from pagemill_core.api.documents import Document, FieldPath, read_documents
from pagemill_core.api.problems import Problem, dotted, explain
from pagemill_core.api.v1alpha1.jobs import API_VERSION, KINDS, Job
from pagemill_core.api.v1alpha1.metadata import KNOWN_METADATA
from pagemill_core.errors import InvalidSpecError

Found = tuple[FieldPath, str]


@dataclass(frozen=True, slots=True)
class LoadedJobs:
    """The jobs of a file, in its order, and what kubectl would read otherwise than people do."""

    jobs: tuple[Job, ...]
    warnings: tuple[Problem, ...]


def load_jobs(text: str, *, origin: str) -> list[Job]:
    """The jobs of a file, without its warnings; `read_jobs` gives those too. Raises: InvalidSpecError."""
    return list(read_jobs(text, origin=origin).jobs)


def read_jobs(text: str, *, origin: str) -> LoadedJobs:
    """Read every job of a file of YAML documents, or of one JSON document.

    `origin` is what the file is called in messages. A `status` is passed over, as the API server does on creation.
    Raises: InvalidSpecError, whose message has one line for each problem of the whole file.
    """
    jobs: list[Job] = []
    problems: list[Problem] = []
    warnings: list[Problem] = []
    documents = read_documents(text, origin=origin, keep_word=_is_language)
    if not documents:
        raise InvalidSpecError(f"{origin}: holds no job; write one with apiVersion: {API_VERSION}")
    for document in documents:
        job, found = _read(document)
        problems += _located(document, origin, found)
        warnings += _located(document, origin, _misread(document))
        if job is not None and not found:
            if any((job.kind, job.metadata.name) == (other.kind, other.metadata.name) for other in jobs):
                problems += _located(
                    document, origin, [(("metadata", "name"), "another job of this file has this name")]
                )
            jobs.append(job)
    if problems:
        raise InvalidSpecError("\n".join(str(problem) for problem in sorted(problems)))
    return LoadedJobs(tuple(jobs), tuple(warnings))


def dump_job(job: Job) -> str:
    """A job as YAML that kubectl and `load_jobs` read back as the same job: what was given, without status."""
    given = job.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True, exclude={"status"})
    ordered = {"apiVersion": job.api_version, "kind": job.kind, **given}
    return yaml.dump(ordered, Dumper=_KubernetesDumper, sort_keys=False, allow_unicode=True, width=120)


def _is_language(path: FieldPath) -> bool:
    return path[:-1] == ("spec", "engine", "languages")


def _located(document: Document, origin: str, found: list[Found]) -> list[Problem]:
    return [Problem(document.line_of(path), dotted(path), message, origin) for path, message in found]


def _read(document: Document) -> tuple[Job | None, list[Found]]:
    found: list[Found] = list(document.problems)
    value = document.value
    if not isinstance(value, dict):
        return None, [*found, ((), f"is no job; write one with apiVersion: {API_VERSION}")]
    if value.get("apiVersion") != API_VERSION:
        found.append((("apiVersion",), f"must be {API_VERSION}"))
    model = KINDS.get(str(value.get("kind")))
    if model is None:
        return None, [*found, (("kind",), f"must be {' or '.join(KINDS)}")]
    found += _metadata_problems(value.get("metadata"))
    job: Job | None = None
    try:
        job = model.model_validate({name: part for name, part in value.items() if name not in ("status", "apiVersion")})
    except ValidationError as error:
        found += explain(error, model)
    return job, found


def _metadata_problems(metadata: Any) -> Iterator[Found]:
    """What Kubernetes would refuse in metadata; its types are the model's to check."""
    if not isinstance(metadata, dict):
        return
    for name in metadata.keys() - KNOWN_METADATA:
        yield ("metadata", name), "is no field of Kubernetes' metadata; remove it"
    if not metadata.get("name") and not metadata.get("generateName"):
        yield ("metadata", "name"), "is required: the job's name, at most 63 characters"


def _misread(document: Document) -> list[Found]:
    def message(word: str, is_key: bool) -> str:
        what = "this field's name" if is_key else "this"
        return f'put "{word}" in quotes: kubectl reads {what} as a boolean'

    return [(one.path, message(one.word, one.is_key)) for one in document.misread]


class _KubernetesDumper(yaml.SafeDumper):
    """YAML without anchors, with those words in quotes that kubectl would read as booleans."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML quotes yes, no, on and off by itself, but not the single letters.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if text.lower() in ("y", "n") else None)


_KubernetesDumper.add_representer(str, _represent_text)
