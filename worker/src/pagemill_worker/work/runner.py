"""What a child process does with items, by kind of job. The contract stands here.

Layer: `worker.work`. A runner lives in one child; `prepare` runs in its fetch threads, `process` in its main thread
(or in several, for engines that mostly wait for a remote side).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from pagemill_worker.items import ItemFailure, PlannedItem, Status


@dataclass(frozen=True, slots=True)
class Prepared:
    """An item whose input is in memory: `value` is the runner's own (a decoded page, say)."""

    item: PlannedItem
    value: Any
    size_bytes: int
    version_read: str | None
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Processed:
    """How one prepared item ended; `payload` (JSON-able) and `data` go into the committed shard as they are."""

    status: Status
    payload: Mapping[str, Any] | None = None
    failure: ItemFailure | None = None
    seconds: Mapping[str, float] | None = None
    api_cost: float = 0.0
    data: bytes | None = None


class Runner(Protocol):
    """A loaded model with its input path. Made once a process; `prepare` runs in one thread, or in `prepare_threads`
    where a runner has that attribute, up to `most_prepare_threads` once the model was found to be faster."""

    batch_size: int
    threads: int

    def prepare(self, item: PlannedItem) -> Prepared:
        """Fetch and decode. Raises: ItemError for this item alone; RetriableError when a store is down."""

    def process(self, batch: Sequence[Prepared]) -> Sequence[Processed]:
        """Infer, one answer an item in order. An item's own failure is in its answer.

        Raises: RetriableError when a remote side is down; anything else is a bug and ends the child.
        """

    def close(self) -> None:
        """Free models and connections."""


@runtime_checkable
class LongRunner(Protocol):
    """A runner whose items may take longer than the time limit of one: it says meanwhile that it gets on."""

    def listen(self, alive: Callable[[], None]) -> None:
        """Take what to call from `process` when some of an item is done; each call starts its time limit anew."""


@runtime_checkable
class GpuRunner(Protocol):
    """A runner whose model may be on a GPU."""

    def gpu_bytes(self) -> int:
        """Memory of GPUs that this process holds, bytes; 0 without a GPU."""
