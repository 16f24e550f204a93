"""Running a tensor model in a child process: partitions, or rows of them, in; predictions and measurements out.

Layer: `worker.embed.infer`, below `worker.work`, which starts it by name. Loads one model. What is measured is the
loop alone: reading is timed by itself, and the first batch is run once beforehand, to warm the model and to profile it.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pagemill_core.errors import ItemError, PartUnreadable
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_worker.embed.infer.adapters import Adapter, load_adapter
from pagemill_worker.embed.infer.job import from_json
from pagemill_worker.embed.infer.loop import BatchMemory, LoopFacts, batch_memory, predict
from pagemill_worker.embed.infer.partitions import Partition, read_partition, split_labels
from pagemill_worker.embed.infer.rank_files import FetchFacts, MachineFacts, PartFacts
from pagemill_worker.embed.infer.rows import Predictions, pack
from pagemill_worker.embed.infer.setup import InferSetup
from pagemill_worker.environment import source_fetcher
from pagemill_worker.fetch.fetched import changed, local_version, shown_uri
from pagemill_worker.items import ItemFailure, PlannedItem
from pagemill_worker.work.runner import Prepared, Processed


@dataclass(frozen=True, slots=True)
class RowRange:
    """The rows of one item in memory: the model's inputs, the true values, and how they were read."""

    inputs: Partition
    labels: NDArray[Any] | None
    size_bytes: int
    fetch: FetchFacts


def make_runner(settings: Mapping[str, Any]) -> InferenceRunner:
    """Load the model that a set-up message names."""
    return InferenceRunner(InferSetup.model_validate(settings))


class InferenceRunner:
    """Gives predictions for the rows of partitions."""

    batch_size = 1
    threads = 1

    def __init__(self, setup: InferSetup) -> None:
        self._settings = from_json(setup.model)
        self._adapter: Adapter = load_adapter(self._settings)
        self._fetcher = source_fetcher(S3Settings.model_validate(setup.s3), setup.allowed_hosts)
        self._max_bytes = setup.max_bytes
        self._machine = MachineFacts.here()
        self._memory: BatchMemory | None = None
        self._last = LastPartition()

    def prepare(self, item: PlannedItem) -> Prepared:
        started_at, started = dt.datetime.now(dt.UTC), time.perf_counter()
        read = self._read(item)
        inputs, labels = split_labels(read.partition, self._settings.labels, shown_uri(item.uri))
        seconds = time.perf_counter() - started
        fetch = FetchFacts(
            requests=1,
            total_s=seconds,
            min_s=seconds,
            max_s=seconds,
            first_at=started_at,
            last_at=dt.datetime.now(dt.UTC),
        )
        value = RowRange(inputs, labels, read.size_bytes, fetch)
        return Prepared(item, value, read.size_bytes, read.version, {"fetch": seconds})

    def process(self, batch: Sequence[Prepared]) -> Sequence[Processed]:
        return [self._infer(prepared.item, prepared.value) for prepared in batch]

    def close(self) -> None:
        """Nothing is held but the model, which ends with the process."""

    def _infer(self, item: PlannedItem, rows: RowRange) -> Processed:
        started = time.perf_counter()
        try:
            memory = self._profiled(rows.inputs)
            found, loop = predict(self._adapter, rows.inputs, self._settings.batch_size)
        except ItemError as error:
            return Processed("failed", failure=ItemFailure.of(error))
        facts, data = pack(Predictions(found, rows.labels))
        payload = {"predictions": facts, "part": self._facts(item, rows, loop, memory).model_dump(mode="json")}
        return Processed("succeeded", payload, seconds={"infer": time.perf_counter() - started}, data=data)

    def _profiled(self, inputs: Partition) -> BatchMemory | None:
        """What a batch allocates, looked at once a process; None for a partition without rows."""
        if self._memory is None and inputs.rows:
            self._memory = batch_memory(self._adapter, inputs, self._settings.batch_size)
        return self._memory

    def _facts(self, item: PlannedItem, rows: RowRange, loop: LoopFacts, memory: BatchMemory | None) -> PartFacts:
        def scaled(batch_bytes: int) -> int:
            return batch_bytes * loop.rows // memory.rows if memory is not None else 0

        return PartFacts(
            path=shown_uri(item.uri),
            rows=loop.rows,
            batches=loop.batches,
            batch_size=self._settings.batch_size,
            input_bits=loop.input_bits,
            size_bytes=rows.size_bytes,
            cpu_s=loop.cpu_s,
            wall_s=loop.wall_s,
            allocated_bytes=scaled(memory.total_bytes) if memory is not None else 0,
            self_allocated_bytes=scaled(memory.self_bytes) if memory is not None else 0,
            device=self._adapter.device,
            profile=memory.profile if memory is not None else "",
            fetch=rows.fetch,
            finished_at=dt.datetime.now(dt.UTC),
            machine=self._machine,
        )

    def _read(self, item: PlannedItem) -> ReadRows:
        """The item's rows."""
        rows = _rows_of(item)
        local = _local_path(item.uri)
        if local is None:
            whole = self._last.get(item, lambda: self._fetched(item))
            partition = whole.partition
            if rows is None:
                return whole
            if not rows[0] <= rows[1] <= partition.rows:
                raise PartUnreadable(f"{shown_uri(item.uri)}: it has {partition.rows} rows, not {rows[1]}")
            part = Partition(partition.batch(*rows), partition.names)
            return ReadRows(part, whole.size_bytes * part.rows // max(1, partition.rows), whole.version)
        version = _checked_version(local, item)
        part = read_partition(local, rows=rows, where=item.uri)
        # Out of the mapped file into memory, so that reading is not timed as computing.
        part = Partition(tuple(tensor.clone() for tensor in part.tensors), part.names)
        return ReadRows(part, part.bits // 8, version)

    def _fetched(self, item: PlannedItem) -> ReadRows:
        fetched = self._fetcher.fetch(item.uri, expected_version=item.version, max_bytes=self._max_bytes)
        partition = read_partition(fetched.data, where=shown_uri(item.uri))
        return ReadRows(partition, len(fetched.data), fetched.version)


@dataclass(frozen=True, slots=True)
class ReadRows:
    """A partition or rows of one as they were read, how many bytes of its file that is, and the file's version."""

    partition: Partition
    size_bytes: int
    version: str | None


class LastPartition:
    """The partition that a store gave last: row ranges of one follow one another, and each would fetch it anew."""

    def __init__(self) -> None:
        self._key: tuple[str, str | None] | None = None
        self._held: ReadRows | None = None
        self._lock = threading.Lock()

    def get(self, item: PlannedItem, read: Callable[[], ReadRows]) -> ReadRows:
        """The item's whole partition, by `read` unless it is the one that was asked for last."""
        key = (item.uri, item.version)
        with self._lock:  # while it is read too: whoever waits wants the same one
            if self._held is None or self._key != key or item.version is None:
                self._held = None  # before the next one is there: two would be twice the memory
                self._held, self._key = read(), key
            return self._held


def _rows_of(item: PlannedItem) -> tuple[int, int] | None:
    start, stop = item.input.get("start"), item.input.get("stop")
    return (start, stop) if isinstance(start, int) and isinstance(stop, int) else None


def _local_path(uri: str) -> Path | None:
    if "://" not in uri:
        return Path(uri)
    return Path(uri.removeprefix("file://")) if uri.startswith("file://") else None


def _checked_version(path: Path, item: PlannedItem) -> str:
    """The version of a local file. Raises: SourceChanged, PartUnreadable."""
    try:
        found = local_version(path.stat())
    except OSError as error:
        raise PartUnreadable(f"{path} cannot be read: {error.strerror}") from error
    if item.version is not None and found != item.version:
        raise changed(item.uri)
    return found
