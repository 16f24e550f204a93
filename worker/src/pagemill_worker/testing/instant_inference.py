"""A tensor model that costs nothing: a row's prediction follows from its place, measured times are always the same.

Layer: `worker.testing`. The tensor half of `instant`: everything but the model and its processes is real.
"""

from __future__ import annotations

import datetime as dt

import numpy as np

from pagemill_core.errors import PartUnreadable
from pagemill_worker.embed.infer.rank_files import FetchFacts, MachineFacts, PartFacts
from pagemill_worker.embed.infer.rows import Predictions, pack
from pagemill_worker.items import ItemFailure, ItemResult, PlannedItem
from pagemill_worker.work.pool import Answer

NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)  # one instant for all, so that undisturbed runs give equal bytes
BITS_A_ROW = 64
_MACHINE = MachineFacts(
    processor="instant",
    architecture=("64bit", "ELF"),
    machine="instant",
    system="Linux",
    platform="instant",
    cores=1,
    memory_bytes=1 << 30,
)


def infer_rows(item: PlannedItem) -> Answer:
    """Predictions of the item's rows: its partition's number and the row's place in it."""
    start, stop, partition = (item.input.get(name) for name in ("start", "stop", "partition"))
    if not isinstance(start, int) or not isinstance(stop, int) or not isinstance(partition, int):
        failure = ItemFailure.of(PartUnreadable(f"{item.uri} cannot be read"))
        return Answer(ItemResult(item, "failed", failure=failure))
    count = stop - start
    values = np.stack([np.full(count, partition), np.arange(start, stop)], axis=1).astype(np.float32)
    facts, data = pack(Predictions(values))
    part = PartFacts(
        path=item.uri,
        rows=count,
        batches=1,
        batch_size=count or 1,
        input_bits=count * BITS_A_ROW,
        size_bytes=count * BITS_A_ROW // 8,
        cpu_s=1.0,
        wall_s=1.0,
        allocated_bytes=0,
        self_allocated_bytes=0,
        device="cpu",
        fetch=FetchFacts(requests=1, total_s=0.5, min_s=0.5, max_s=0.5, first_at=NOON, last_at=NOON),
        finished_at=NOON,
        machine=_MACHINE,
    )
    payload = {"predictions": facts, "part": part.model_dump(mode="json")}
    return Answer(ItemResult(item, "succeeded", payload, version_read=item.version, data=data))
