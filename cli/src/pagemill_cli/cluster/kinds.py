"""Names of jobs on a cluster, as people write them: comics, ocrjob/comics, emb/books.

Layer: `cli.cluster`; pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pagemill_cli.cluster.api import object_path
from pagemill_core.api.crd.generate import GROUP, PLURALS, crd
from pagemill_core.api.v1alpha1 import API_VERSION
from pagemill_core.api.v1alpha1.types import OBJECT_NAME_PATTERN
from pagemill_core.errors import InvalidSpecError


def _words() -> Mapping[str, str]:
    found: dict[str, str] = {}
    for kind, plural in PLURALS.items():
        names = crd(kind)["spec"]["names"]
        for word in (plural, kind.lower(), *names["shortNames"]):
            found[word] = kind
            found[f"{word}.{GROUP}"] = kind
    return found


KIND_WORDS: Final = _words()
"""Every word that stands for a kind, as kubectl takes them."""


@dataclass(frozen=True, slots=True)
class JobRef:
    """A job by name; `kind` is "" where only the cluster can tell."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind.lower()}/{self.name}" if self.kind else self.name

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds it may be of."""
        return (self.kind,) if self.kind else tuple(PLURALS)


def read_ref(text: str) -> JobRef | None:
    """The job that `text` names, None when it is no name of a job."""
    word, slash, name = text.rpartition("/")
    if not re.fullmatch(OBJECT_NAME_PATTERN, name):
        return None
    if not slash:
        return JobRef("", name)
    kind = KIND_WORDS.get(word.lower())
    return None if kind is None else JobRef(kind, name)


def ref(text: str) -> JobRef:
    """The job that `text` names. Raises: InvalidSpecError."""
    found = read_ref(text)
    if found is None:
        raise InvalidSpecError(f"{text!r} is no job's name", advice="write comics, ocrjob/comics or emb/books")
    return found


def is_named_on_cluster(text: str) -> bool:
    """Whether `text` means a job of a cluster: KIND/NAME, or a plain name. What exists as a file or folder does not."""
    if text == "-" or "://" in text or Path(text).exists():
        return False
    found = read_ref(text)
    return found is not None and (bool(found.kind) or not text.endswith((".yaml", ".yml", ".json")))


def job_path(kind: str, namespace: str, name: str = "") -> str:
    """The path of a job on the API server or, without a name, of all jobs of its kind."""
    return object_path(API_VERSION, PLURALS[kind], namespace, name)
