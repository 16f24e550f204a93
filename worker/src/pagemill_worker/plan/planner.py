"""Planning: one pass over a job's source, from rows to tables.

Layer: the top of `worker.plan`. Writes the tables of one attempt and says what they hold; creating the pointer that
makes them count is the caller's, and so is giving the attempt up when this raises.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pagemill_core.storage.open import join_uri
from pagemill_core.storage.store import ObjectStore
from pagemill_core.work.records import PlanPart
from pagemill_worker.plan.column_types import settled
from pagemill_worker.plan.digests import DigestMap, digests_of
from pagemill_worker.plan.expand import COUNTING_THREADS, PageCounter, expand_pages
from pagemill_worker.plan.identity import IdentityCheck
from pagemill_worker.plan.known import Known
from pagemill_worker.plan.request import PlanRequest
from pagemill_worker.plan.rows import BATCH_ROWS, Candidates
from pagemill_worker.plan.shards import ShardCutter, cut_rule
from pagemill_worker.plan.source_bytes import OpenedStores, StoreOpener
from pagemill_worker.plan.sources import OpenedSource, SourceTools, open_items
from pagemill_worker.plan.tables import TableWriter

TOMBSTONES = "tombstones.parquet"
TOMBSTONE_SCHEMA = pa.schema([pa.field("identity", pa.binary(16)), pa.field("id", pa.string())])
MAX_SAMPLES = 3
READING_THREADS = 16  # that list folders and read small ranges; a store answers in some 30 ms, so 500 a second


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTools:
    """What the planner works with. `scratch` is an empty local folder, `prefix` the attempt's own in `store`.

    `on_progress` hears how many items are planned so far; it may raise to stop the planning. `fetch_url` gives the
    bytes behind http(s) URIs of lists of books.
    """

    open_store: StoreOpener
    count_pages: PageCounter
    store: ObjectStore
    prefix: str
    scratch: Path
    known: Known | None = None
    on_progress: Callable[[int], None] = lambda _: None
    fetch_url: Callable[[str], bytes] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanResult:
    """What was planned. `items` counts failed ones too; `repeats` are rows that were planned once already.

    `already_done` and `given_up` are items that earlier runs finished or failed too often. `size_bytes` adds up the
    sizes that are known, of `sized_items` items. `columns` maps the source's own further columns to their types.
    """

    items: int
    shards: int
    parts: tuple[PlanPart, ...]
    failed: int
    failure_classes: dict[str, int]
    failure_samples: tuple[tuple[str, str, str], ...]
    repeats: int
    already_done: int
    given_up: int
    tombstones: int
    size_bytes: int
    sized_items: int
    columns: dict[str, str]
    source_uri: str
    source_version: str
    warnings: tuple[str, ...]


def plan_source(request: PlanRequest, tools: PlanTools) -> PlanResult:
    """Read the source once and write the attempt's tables.

    Raises: SourceError (what cannot be read or parsed, with the first bad line; a source that changes meanwhile), the
    stores' errors. Nothing that was written then counts.
    """
    tally = _Tally()
    present = DigestMap(tools.scratch) if tools.known is not None else None
    with (
        ThreadPoolExecutor(READING_THREADS, thread_name_prefix="source") as readers,
        open_items(request.source, _source_tools(tools, readers)) as source,
        ThreadPoolExecutor(COUNTING_THREADS, thread_name_prefix="pages") as threads,
    ):
        check = IdentityCheck(request.keys, tools.scratch, noun=source.noun)
        rows = source.batches()
        if source.is_paged:
            rows = expand_pages(rows, tools.count_pages, threads)
        batches = _limited(_wanted(rows, check, tools.known, tally, present), request.max_items, tally)
        with TableWriter(tools.store, tools.prefix, tools.scratch) as writer:
            cutter = _write(batches, request, tools, tally, writer)
            parts = writer.finish()
    tombstones = 0
    if tools.known is not None and present is not None and not tally.is_cut:
        tombstones = _write_tombstones(tools, tools.known, present)
    return PlanResult(
        items=writer.rows,
        shards=cutter.shard_count,
        parts=tuple(parts),
        failed=sum(tally.classes.values()),
        failure_classes=dict(tally.classes),
        failure_samples=tuple(tally.samples),
        repeats=check.repeats.count,
        already_done=tally.already_done,
        given_up=tally.given_up,
        tombstones=tombstones,
        size_bytes=tally.size_bytes,
        sized_items=tally.sized_items,
        columns=settled(source.columns),
        source_uri=source.uri,
        source_version=source.version,
        warnings=tuple(_warnings(writer.rows, check, tally, source)),
    )


def _source_tools(tools: PlanTools, threads: Executor) -> SourceTools:
    return SourceTools(
        open_store=OpenedStores(tools.open_store),
        scratch=tools.scratch,
        threads=threads,
        fetch_url=tools.fetch_url,
        publish=lambda name, path: _publish(tools, name, path),
    )


def _publish(tools: PlanTools, name: str, path: Path) -> str:
    key = f"{tools.prefix}{name}"
    tools.store.put_file(key, path)
    return join_uri(tools.store.uri, key)


@dataclass(slots=True)
class _Tally:
    already_done: int = 0
    given_up: int = 0
    size_bytes: int = 0
    sized_items: int = 0
    is_cut: bool = False
    classes: Counter[str] = field(default_factory=Counter)
    samples: list[tuple[str, str, str]] = field(default_factory=list)

    def count(self, batch: Candidates) -> None:
        sizes = [size for size in batch.sizes if size is not None]
        self.size_bytes += sum(sizes)
        self.sized_items += len(sizes)
        for at, failure in sorted(batch.failures.items()):
            self.classes[failure.error_class] += 1
            if len(self.samples) < MAX_SAMPLES:
                self.samples.append((batch.ids[at], failure.error_class, failure.message))


def _wanted(
    rows: Iterator[Candidates], check: IdentityCheck, known: Known | None, tally: _Tally, present: DigestMap | None
) -> Iterator[Candidates]:
    """Batches of rows that are to become items."""
    for batch in rows:
        judged = check.judge(batch)
        if known is not None and present is not None:
            judged = _subtracted(judged, known, present, tally)
        if len(judged):
            yield judged


def _subtracted(batch: Candidates, known: Known, present: DigestMap, tally: _Tally) -> Candidates:
    digests = digests_of(batch.ids)
    # A row that fails in the plan does not keep its id alive twice, nor take it from the row that holds it.
    new = ~present.find(digests).present
    new[list(batch.failures)] = False
    zeros = np.zeros(int(new.sum()), np.uint64)
    present.add(digests[new], zeros, zeros.astype(np.int64))
    found = known.subtract(batch, digests)
    batch.earlier = known.earlier_versions(batch, digests)
    for at in batch.failures:
        found.done[at] = found.given_up[at] = False
    tally.already_done += int(found.done.sum())
    tally.given_up += int(found.given_up.sum())
    out = found.done | found.given_up
    return batch.take(np.flatnonzero(~out).tolist()) if out.any() else batch


def _limited(batches: Iterator[Candidates], max_items: int | None, tally: _Tally) -> Iterator[Candidates]:
    """The first `max_items` rows; notes when there may be more."""
    left = max_items
    for batch in batches:
        if left is None:
            yield batch
            continue
        if len(batch) >= left:
            tally.is_cut = True
            yield batch.take(range(left))
            return
        left -= len(batch)
        yield batch


def _write(
    batches: Iterator[Candidates], request: PlanRequest, tools: PlanTools, tally: _Tally, writer: TableWriter
) -> ShardCutter:
    """Cut and write all rows. A source that ends within the first batches is cut knowing its size."""
    ahead: list[Candidates] = []
    for batch in batches:
        ahead.append(batch)
        if sum(map(len, ahead)) >= BATCH_ROWS:
            break
    total = sum(map(len, ahead))
    cutter = ShardCutter(cut_rule(request.cut, total if total < BATCH_ROWS else None))
    for some in (iter(ahead), batches):
        for batch in some:
            tally.count(batch)
            writer.add(batch, cutter.assign(len(batch)))
            tools.on_progress(writer.rows)
    return cutter


def _write_tombstones(tools: PlanTools, known: Known, present: DigestMap) -> int:
    """Write the ids that are gone from the source, if any. Returns: how many."""
    path = tools.scratch / TOMBSTONES
    count = 0
    with pq.ParquetWriter(path, TOMBSTONE_SCHEMA, compression="zstd", store_schema=False) as writer:
        held: list[tuple[bytes, str]] = []
        for entry in known.gone(present):
            held.append(entry)
            count += 1
            if len(held) >= BATCH_ROWS:
                writer.write_table(_tombstone_table(held))
                held = []
        writer.write_table(_tombstone_table(held))
    if count:
        tools.store.put_file(f"{tools.prefix}{TOMBSTONES}", path)
    path.unlink()
    return count


def _tombstone_table(held: list[tuple[bytes, str]]) -> pa.Table:
    columns = [pa.array([entry[at] for entry in held], TOMBSTONE_SCHEMA.field(at).type) for at in (0, 1)]
    return pa.Table.from_arrays(columns, schema=TOMBSTONE_SCHEMA)


def _warnings(items: int, check: IdentityCheck, tally: _Tally, source: OpenedSource) -> Iterator[str]:
    repeats = check.repeats
    yield from source.warnings
    if not items and not tally.already_done + tally.given_up:
        yield f"{source.uri} holds no item"
    if repeats.count:
        rows = "row repeats" if repeats.count == 1 else "rows repeat"
        first = f"{source.noun} {repeats.first_line}"
        yield f"{repeats.count:,} {rows} an earlier id and path, planned once each (first: {first})"
    if tally.classes:
        classes = ", ".join(f"{kind} {count:,}" for kind, count in tally.classes.most_common())
        yield f"{sum(tally.classes.values()):,} items cannot be done as the source names them: {classes}"
