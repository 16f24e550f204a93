"""Shards of a data set and their samples, as the planner sees them: img2dataset's Parquet, WebDataset's tars.

Layer: `pagemill`. Streams: one shard's batch in memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pagemill_cli.output.target import bare_s3
from pagemill_cli.settings import CliSettings, read_settings
from pagemill_core.errors import InvalidSpecError
from pagemill_core.storage.open import open_store
from pagemill_core.storage.store import ObjectStore
from pagemill_worker.environment import source_fetcher
from pagemill_worker.fetch.items import fetch_input
from pagemill_worker.images.limits import ImageLimits
from pagemill_worker.items import ItemFailure, PlannedItem
from pagemill_worker.plan.dataset import PARQUET, TAR, TARS_AT_ONCE, DatasetSource
from pagemill_worker.plan.dataset_parquet import parquet_rows
from pagemill_worker.plan.dataset_tar import tar_rows
from pagemill_worker.plan.listing import Selection, sorted_files
from pagemill_worker.plan.request import DatasetRequest
from pagemill_worker.plan.rows import Candidates, Row, batches_of, decode_columns
from pagemill_worker.plan.sorting import Sorter
from pagemill_worker.plan.source_bytes import open_source


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of a data set. `failure` says why it cannot be read, as the data set itself or its shard tells.

    `columns` are the shard's own, key and caption among them; `url` is what the row is read by.
    """

    id: str
    url: str
    columns: dict[str, Any] = field(default_factory=dict)
    failure: ItemFailure | None = None
    input: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def key(self) -> str:
        """The sample's key, its place where it has none."""
        return str(self.columns.get("key") or self.id)

    @property
    def caption(self) -> str:
        """The sample's caption, "" where it has none."""
        return str(self.columns.get("caption") or "")

    def data(self) -> bytes:
        """The picture's bytes. Raises: ItemError of its own, as a job would record it."""
        settings = read_settings()
        hosts = tuple(host.strip() for host in settings.allowed_hosts.split(",") if host.strip())
        item = PlannedItem(0, self.id, self.url, input=self.input)
        fetched = fetch_input(source_fetcher(bare_s3(settings), hosts), item, max_bytes=ImageLimits().max_bytes)
        return fetched.data if fetched is not None else b""


def list_shards(uri: str) -> list[str]:
    """The shards below a folder or prefix, sorted by name."""
    with tempfile.TemporaryDirectory(prefix="pagemill-") as scratch:
        selection = Selection.matching((f"*{PARQUET}", f"*{TAR}"))
        root, entries = sorted_files(uri, selection, Sorter("codePoint", Path(scratch)), _opener(read_settings()))
        return [f"{root}{entry.name}" for entry in entries]


def load_shard(uri: str) -> list[Sample]:
    """The samples of one shard, in order. Raises: SourceError when it is damaged; InvalidSpecError for another file."""
    stem, _, suffix = uri.rpartition("/")[2].rpartition(".")
    read = {PARQUET: parquet_rows, TAR: tar_rows}.get(f".{suffix.lower()}")
    if read is None:
        raise InvalidSpecError(f"{uri} is no shard: its name ends neither in {PARQUET} nor in {TAR}")
    with open_source(uri, _opener(read_settings())) as source:
        rows: Iterator[Row] = read(source, stem, lambda *_: None)
        return [sample for batch in batches_of(rows) for sample in _samples(batch)]


def iterate_samples(uri: str, max_samples: int | None = None) -> Iterator[Sample]:
    """All samples of a data set, shard after shard, at most `max_samples`; a shard that cannot be read is one sample
    with a failure. Raises: SourceError when there is no such folder."""
    with tempfile.TemporaryDirectory(prefix="pagemill-") as scratch, ThreadPoolExecutor(TARS_AT_ONCE) as threads:
        source = DatasetSource(DatasetRequest(uri=uri), _opener(read_settings()), Path(scratch), threads)
        samples = (sample for batch in source.batches() for sample in _samples(batch))
        yield from islice(samples, max_samples)


def _samples(batch: Candidates) -> Iterator[Sample]:
    for at, (item_id, uri, columns) in enumerate(zip(batch.ids, batch.uris, batch.columns, strict=True)):
        given = decode_columns(batch.inputs.get(at))
        yield Sample(item_id, uri, decode_columns(columns), batch.failures.get(at), given)


def _opener(settings: CliSettings) -> Any:
    def open_named(uri: str) -> ObjectStore:
        return open_store(uri, bare_s3(settings))

    return open_named
