"""What finalizing a tensor job means: the dataset with one row for each row of the partitions.

Layer: `worker.finalize`. What every kind shares stands in `committed`; what is written once a run in
`inference_extras`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from pagemill_core.api.v1alpha1 import EmbeddingJob
from pagemill_core.errors import IntegrityError
from pagemill_core.work import layout as keys
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.publish import View
from pagemill_core.work.records import Marker, OutputRef, PlanPointer, Totals
from pagemill_worker.embed.infer.rank_files import PartFacts
from pagemill_worker.embed.infer.rows import PredictionFacts, Predictions, unpack
from pagemill_worker.fetch.fetched import shown_uri
from pagemill_worker.finalize.committed import CommittedRun
from pagemill_worker.finalize.part_file import write_parquet
from pagemill_worker.items import ItemResult, PlannedItem

_HEAD = [
    pa.field("row", pa.int64(), nullable=False),
    pa.field("id", pa.string(), nullable=False),
    pa.field("status", pa.string(), nullable=False),
    pa.field("error_class", pa.string()),
    pa.field("error_message", pa.string()),
    pa.field("source_uri", pa.string(), nullable=False),
    pa.field("version", pa.string()),
    pa.field("rank", pa.int32(), nullable=False),
    pa.field("partition", pa.int64(), nullable=False),
    pa.field("partition_row", pa.int64()),
]


@dataclass(frozen=True, slots=True)
class Part:
    """One item of a tensor run, a partition or rows of one, as it was planned and as it ended.

    `facts` and `predictions` are None for a part that failed. `start` is its first row in the partition.
    """

    item: PlannedItem
    result: ItemResult
    rank: int
    partition: int
    start: int
    facts: PartFacts | None
    predictions: Predictions | None

    @property
    def planned_rows(self) -> int | None:
        """How many rows were planned, None where the plan could not tell."""
        start, stop = self.item.input.get("start"), self.item.input.get("stop")
        return stop - start if isinstance(start, int) and isinstance(stop, int) else None


@dataclass(frozen=True, kw_only=True)
class InferenceKind(CommittedRun):
    """The finalizing half of a tensor job's run."""

    job: EmbeddingJob
    items_of: Callable[[PlanPointer], Callable[[int], list[PlannedItem]]]
    mend: Callable[[PlanPointer, Totals], object] = lambda *_: None
    merged: Callable[[], list[str]] = lambda: []

    def views_of(self, results: Iterable[ItemResult]) -> Iterator[View]:
        """None: all files of a tensor job are of the whole run."""
        return iter(())

    def views(self, marker: Marker) -> Iterator[View]:
        return iter(())

    def of_run(self, layout: RunLayout, pointer: PlanPointer) -> InferenceKind:
        """The same for another run on this output."""
        return replace(self, layout=layout, pointer=pointer, items=self.items_of(pointer))

    def write_dataset(self, segment: int, markers: Sequence[Marker]) -> OutputRef:
        key = keys.dataset_part(self.layout.seq, segment)
        parts = (part for marker in markers for part in self.parts_of(marker))
        return write_parquet(self.store, key, self.tables(parts, self.values), self.schema_of(self.values))

    def tables(self, parts: Iterable[Part], values: int) -> Iterator[pa.Table]:
        """The rows of parts, a table a part; `values` is how many a prediction has."""
        schema = self.schema_of(values)
        return (_table(part, schema, values) for part in parts)

    def parts(self) -> Iterator[Part]:
        """Every part of the run in plan order."""
        for marker in self.markers():
            yield from self.parts_of(marker)

    def parts_of(self, marker: Marker) -> Iterator[Part]:
        """The parts of one shard in plan order. Raises: IntegrityError for what does not hold what it should."""
        planned = {item.row: item for item in self.items(marker.shard)}
        for result in self.results(marker):
            yield _part(planned[result.item.row], result)

    @cached_property
    def values(self) -> int:
        """How many values a prediction has: that of the first part with rows, 1 where there is none."""
        held = (part.predictions for part in self.parts() if part.predictions is not None)
        return next((found.values.shape[1] for found in held if len(found.values)), 1)

    def schema_of(self, values: int) -> pa.Schema:
        """The dataset's columns: a prediction of one value is a number, one of several a list of fixed length."""
        value = pa.float32() if values == 1 else pa.list_(pa.float32(), values)
        inference = self.job.spec.inference
        has_labels = inference is not None and inference.labels is not None
        labels = [pa.field("label", pa.float64())] if has_labels else []
        metadata = {b"pagemill.fingerprint": self.pointer.fingerprint.encode()}
        return pa.schema([*_HEAD, pa.field("prediction", value), *labels], metadata=metadata)

    def merged_keys(self) -> list[str]:
        return self.merged()

    def mend_merged(self, pointer: PlanPointer, totals: Totals) -> bool:
        self.mend(pointer, totals)
        return True


def _table(part: Part, schema: pa.Schema, values: int) -> pa.Table:
    """A part's rows; one that failed has its planned rows without predictions, one at least."""
    result, found = part.result, part.predictions
    if found is not None and len(found.values) and found.values.shape[1] != values:
        raise IntegrityError(f"{part.item.id}: {found.values.shape[1]} values a row, others have {values}")
    known = part.planned_rows if found is None else len(found.values)
    count = (1 if known is None else known) if found is None else len(found.values)
    places = pa.nulls(count, pa.int64()) if known is None else pa.array(np.arange(part.start, part.start + count))
    fixed: dict[str, Any] = {
        "row": part.item.row,
        "id": part.item.id,
        "status": result.status,
        "error_class": result.failure.error_class if result.failure is not None else None,
        "error_message": result.failure.message if result.failure is not None else None,
        "source_uri": shown_uri(part.item.uri),
        "version": result.version_read or part.item.version,
        "rank": part.rank,
        "partition": part.partition,
    }
    columns = {name: pa.repeat(pa.scalar(value, schema.field(name).type), count) for name, value in fixed.items()}
    columns["partition_row"] = places
    columns["prediction"] = _predictions(found, schema.field("prediction").type, count)
    if "label" in schema.names:
        labels = None if found is None else found.labels
        columns["label"] = pa.nulls(count, pa.float64()) if labels is None else pa.array(labels)
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def _part(item: PlannedItem, result: ItemResult) -> Part:
    rank, partition, start = (item.input.get(name, 0) for name in ("rank", "partition", "start"))
    if not isinstance(rank, int) or not isinstance(partition, int) or not isinstance(start, int):
        raise IntegrityError(f"the plan's row {item.row} does not say to which rank and partition it belongs")
    if result.status != "succeeded" or result.payload is None:
        return Part(item, result, rank, partition, start, None, None)
    try:
        facts = PartFacts.model_validate(result.payload["part"])
        predictions = unpack(PredictionFacts.model_validate(result.payload["predictions"]), result.data, item.id)
    except (KeyError, ValueError) as error:
        raise IntegrityError(f"{item.id}: its committed row is no result of a tensor model") from error
    return Part(item, result, rank, partition, start, facts, predictions)


def _predictions(found: Predictions | None, kind: pa.DataType, count: int) -> pa.Array:
    if found is None:
        return pa.nulls(count, kind)
    flat = pa.array(np.ascontiguousarray(found.values, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, kind.list_size) if pa.types.is_fixed_size_list(kind) else flat
