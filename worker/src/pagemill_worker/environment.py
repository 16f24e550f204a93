"""A job with everything its steps need: stores, credentials, where relative paths start, what this machine may use.

Layer: above `fetch`, below `plan`, `work` and `finalize`, which each take one. Built only by the worker's and the
command's `main`; nothing below reads the process's environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import SecretStr

from pagemill_core.api.v1alpha1 import Job
from pagemill_core.api.v1alpha1.base import ApiModel
from pagemill_core.clock import Clock, SystemClock
from pagemill_core.errors import InvalidSpecError
from pagemill_core.storage.open import open_store, split_uri
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.storage.store import ObjectStore
from pagemill_core.work.conditional import Writer
from pagemill_worker.fetch.addresses import AddressPolicy
from pagemill_worker.fetch.fetched import Fetcher
from pagemill_worker.fetch.http import HttpFetcher, HttpPolicy
from pagemill_worker.fetch.local import LocalFetcher
from pagemill_worker.fetch.objects import ObjectFetcher
from pagemill_worker.fetch.recent import RecentFetcher
from pagemill_worker.fetch.source import SourceFetcher

_Part = TypeVar("_Part", bound=ApiModel)
KEEP_BYTES = 64 << 20  # of recent files, for the pages of one


@dataclass(frozen=True)
class JobEnvironment:
    """One job on this machine.

    `base` is the folder that relative paths of the job's file start from. `s3` is how every s3:// URI of the job is
    reached. `api_key` is a remote engine's, never written anywhere. `allowed_hosts` are host names and networks that
    may be fetched from although they are private. `pool` and `price_per_hour` (a decimal string) are what a machine is
    called and costs here. `source_uri` is the output of the job that the source names instead of a place.
    `plans_for_gpu`: this machine only plans, and those that will work have GPUs.
    """

    job: Job
    base: Path
    s3: S3Settings
    api_key: SecretStr = field(default=SecretStr(""), repr=False)
    allowed_hosts: tuple[str, ...] = ()
    pool: str = "local"
    price_per_hour: str = "0"
    source_uri: str = ""
    plans_for_gpu: bool = False
    clock: Clock = field(default_factory=SystemClock)

    def absolute(self, uri: str) -> str:
        """`uri` of the job's file with a relative local path made absolute."""
        if "://" in uri:
            return uri
        path = Path(uri)
        # Leading ".." go up from the folder that the file really lies in, so folding them by their text is right.
        return str(path) if path.is_absolute() else os.path.normpath(self.base / path)

    def absolute_job(self) -> Job:
        """The job with the URIs of its source and output made absolute; for reading, never for its work key."""
        spec = self.job.spec
        given = {
            "source": self._absolute_fields(spec.source),
            "output": spec.output.model_copy(update={"uri": self.absolute(spec.output.uri)}),
        }
        return self.job.model_copy(update={"spec": spec.model_copy(update=given)})

    def _absolute_fields(self, part: _Part) -> _Part:
        """`part` of a spec with every URI in it made absolute."""
        update: dict[str, object] = {}
        for name in type(part).model_fields:
            value = getattr(part, name)
            if isinstance(value, ApiModel):
                update[name] = self._absolute_fields(value)
            elif value is None and name == "uri" and getattr(part, "name", None) is not None:
                update[name] = self.source_uri or None
            elif isinstance(value, str) and (name == "uri" or name.endswith("_uri") or name == "annotations"):
                update[name] = self.absolute(value)
        return part.model_copy(update=update)

    def open_output(self) -> ObjectStore:
        """The store rooted at the job's output."""
        return open_store(self.absolute(self.job.spec.output.uri), self.s3)

    def open_root(self, uri: str) -> ObjectStore:
        """The store rooted at `uri`, reached as the job's storage is."""
        return open_store(self.absolute(uri), self.s3)

    def open_parent(self, uri: str) -> tuple[ObjectStore, str]:
        """The store that holds the object `uri`, and its key in it. Raises: InvalidSpecError for a bare root."""
        root, key = split_uri(self.absolute(uri))
        if not key:
            raise InvalidSpecError(f"{uri} names no object")
        return open_store(root, self.s3), key

    def writer(self, store: ObjectStore, *, deadline_s: float = 600.0) -> Writer:
        """A writer for protocol steps on `store`."""
        return Writer(store, self.clock, deadline_s=deadline_s)


def source_fetcher(s3: S3Settings, allowed_hosts: Sequence[str]) -> Fetcher:
    """What reads items' bytes, whatever their URI; the last file is kept, for the pages of a PDF follow one another.

    Raises: InvalidSpecError for an entry of `allowed_hosts` that is neither a network nor a host name.
    """
    return RecentFetcher(
        SourceFetcher(
            local=LocalFetcher(),
            objects=ObjectFetcher(lambda bucket: open_store(f"s3://{bucket}/", s3)),
            http=HttpFetcher(HttpPolicy(addresses=AddressPolicy.allowing(allowed_hosts)), SystemClock()),
        ),
        keep_bytes=KEEP_BYTES,
    )


def reveal(settings: S3Settings) -> dict[str, Any]:
    """`settings` as JSON with its secrets in the clear, for a pipe to a child process and for nothing else."""
    secrets = {
        "secret_key": settings.secret_key.get_secret_value(),
        "session_token": settings.session_token.get_secret_value(),
    }
    plain: Mapping[str, Any] = settings.model_dump(mode="json", exclude=set(secrets))
    return {**plain, **secrets}
