"""Building the index, or adding to it: from the dataset's parts to objects and the pointer that shows them.

Layer: the top of `worker.embed.search`'s building half, called by finalize once the dataset's parts are written.
Rows are spooled to disk in one pass and go on from there by blocks, so memory holds a training sample, a block and the
index itself.

An index is added to while that is as good as a new one: same fingerprint, column, shape and length of rows, at most
twice as many rows as it was trained for, and at most a fifth of its positions dead. Else it is built anew.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from pagemill_core.api.v1alpha1.output import IndexKind
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_worker.embed.search.finder import Finder
from pagemill_worker.embed.search.ids import SCHEMA, SHOWN, Ids, IdsWriter, facts_table
from pagemill_worker.embed.search.local import copy_object
from pagemill_worker.embed.search.manifest import (
    REPORT_KEY,
    Action,
    Effort,
    IndexManifest,
    IndexObject,
    IndexReport,
    ShapeName,
    read_manifest,
    show_manifest,
    sweep,
    version_prefix,
)
from pagemill_worker.embed.search.parts import Flags, Matrix, unit_rows
from pagemill_worker.embed.search.recall import tune
from pagemill_worker.embed.search.rows import VECTORS, LiveRows
from pagemill_worker.embed.search.shapes import FLAT_MAX_NUMBERS, Shape, choose_shape, sample_rows
from pagemill_worker.embed.search.space import Space
from pagemill_worker.embed.search.vectors import (
    HALF,
    SINGLE,
    ChainedRows,
    FileRows,
    Rows,
    Spool,
    blocks,
    stored_rows,
)

MAX_DEAD_SHARE = 0.2
MAX_GROWTH = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """What index to build, for which run. `attempt` is never used twice. `scratch` takes temporary files of about six
    bytes a number; None: the system's folder for them."""

    run: str
    attempt: str
    space: Space = field(default_factory=Space)
    kind: IndexKind = "auto"
    min_recall: float = 0.95
    column: str = VECTORS
    threads: int = 1
    scratch: Path | None = None
    flat_numbers: int = FLAT_MAX_NUMBERS

    @property
    def seq(self) -> int:
        return RunLayout(self.run).seq


def build_index(writer: Writer, settings: IndexSettings) -> IndexReport:
    """Make the index that includes this run's rows, and show it; with one of this or a newer run in place, nothing.

    Call it when the run's part of the dataset is written and the item index folded. Repeating it is harmless; the
    same rows give the same index. Raises: InvalidSpecError, ObjectNotFoundError, IntegrityError.
    """
    current = read_manifest(writer)
    if current is not None and current.seq >= settings.seq:
        _write_report(writer, current)  # whoever showed it may have died before
        return current.report
    with tempfile.TemporaryDirectory(prefix="pagemill-index-", dir=settings.scratch) as folder:
        manifest = _Build(writer, settings, Path(folder), current).run()
    shown = show_manifest(writer, manifest)
    _write_report(writer, shown)
    if shown.object_keys() == manifest.object_keys():
        sweep(writer, shown, current)
    return shown.report


def _write_report(writer: Writer, shown: IndexManifest) -> None:
    """The report as a file of its own, for people; the pointer holds it too."""
    writer.put(REPORT_KEY, shown.report.model_dump_json(by_alias=True, indent=2).encode())


@dataclass(slots=True)
class _Build:
    """One attempt at an index."""

    writer: Writer
    settings: IndexSettings
    folder: Path
    current: IndexManifest | None
    seconds: dict[str, float] = field(default_factory=dict)
    unusable: int = 0

    def run(self) -> IndexManifest:
        rows = LiveRows.open(self.writer.store, self.folder, self.settings.column)
        base = self._base(rows)
        alive = self._still_alive(rows, base) if base else np.zeros(0, np.bool_)
        with self._timed("read"):
            spool = self._spool(rows, after=base.seq if base else 0)
        if base and not self._is_worth_adding(base, alive, spool):
            base, alive = None, np.zeros(0, np.bool_)
            with self._timed("read"):
                spool = self._spool(rows, after=0)
        return self._finish(rows, base, alive, spool)

    def _base(self, rows: LiveRows) -> IndexManifest | None:
        """The index to add to, if there is one of these rows."""
        now = self.current
        if now is None or (now.fingerprint, now.column) != (rows.fingerprint, rows.column):
            return None
        return now if not rows.dim or now.dim == rows.dim else None

    def _still_alive(self, rows: LiveRows, base: IndexManifest) -> Flags:
        """By position of the old index: whether its row still counts."""
        found = []
        for batch in Ids(self.writer.store, base.ids).batches(["id", "book", "run", "alive"]):
            ids, books = batch.column("id").to_pylist(), batch.column("book").to_pylist()
            items = [book or item for item, book in zip(ids, books, strict=True)]
            runs = batch.column("run").to_numpy()
            alive = batch.column("alive").to_numpy(zero_copy_only=False).astype(np.bool_)
            for seq in np.unique(runs):
                here = np.flatnonzero((runs == seq) & alive)
                alive[here] = rows.is_live([items[at] for at in here], int(seq))
            found.append(alive)
        return np.concatenate(found) if found else np.zeros(0, np.bool_)

    def _is_worth_adding(self, base: IndexManifest, alive: Flags, spool: _Spooled) -> bool:
        total, living = len(alive) + spool.count, int(alive.sum()) + spool.count
        shape = choose_shape(self.settings.kind, living, base.dim, self.settings.flat_numbers)
        is_grown = base.kind == "ivfPq" and living > MAX_GROWTH * max(1, base.report.trained_rows)
        is_dim = not spool.count or spool.dim == base.dim
        return is_dim and shape == base.kind and not is_grown and total - living <= MAX_DEAD_SHARE * total

    def _spool(self, rows: LiveRows, *, after: int) -> _Spooled:
        """The rows of runs after `after`, scaled to length 1, on disk with their facts."""
        vectors, ids = self.folder / f"rows-{after}.f32", self.folder / f"facts-{after}.arrow"
        self.unusable, dim = 0, rows.dim
        sink = None
        with Spool(vectors, SINGLE) as spool, pa.OSFile(str(ids), "wb") as file:
            for batch in rows.batches(SHOWN, after=after):
                unit, usable = unit_rows(batch.vectors)
                self.unusable += int((~usable).sum())
                dim = batch.vectors.shape[1]
                spool.add(unit)
                table = facts_table(batch.columns, batch.part).filter(pa.array(usable))
                sink = sink or pa.ipc.new_stream(file, table.schema)
                sink.write_table(table)
            if sink is not None:
                sink.close()
        return _Spooled(vectors, ids, spool.rows, dim)

    def _finish(self, rows: LiveRows, base: IndexManifest | None, alive: Flags, spool: _Spooled) -> IndexManifest:
        added = FileRows(spool.vectors, SINGLE, spool.dim)
        living = np.concatenate([alive, np.ones(spool.count, np.bool_)])
        with self._timed("train"):
            shape, trained = self._shape(base, added)
        with self._timed("add"):
            halves = self._add(shape, added)
        finder = Finder(shape, base.report.effort if base else Effort(), None, None if living.all() else living)
        if not shape.is_exact:
            old = [stored_rows(self.writer.store, base.vectors, spool.dim)] if base else []
            finder.rows = ChainedRows([*old, FileRows(halves, HALF, spool.dim)], spool.dim)
        with self._timed("measure"):
            recall = tune(finder, self.settings.min_recall)
        with self._timed("write"):
            index, ids, vectors = self._write(shape, base, alive, spool)
        report = IndexReport(
            run=self.settings.run,
            action=_action(base, alive, spool),
            kind=shape.name,
            rows=len(living),
            dead=int((~living).sum()),
            added=spool.count,
            unusable=self.unusable,
            left_out=rows.left_out,
            dim=shape.dim,
            trained_rows=trained,
            effort=finder.effort,
            recall=recall,
            size_bytes=index.size + ids.size + sum(each.size for each in vectors),
            seconds={name: round(seconds, 2) for name, seconds in self.seconds.items()},
        )
        return self._manifest(rows, report, index, (ids, vectors))

    def _manifest(
        self, rows: LiveRows, report: IndexReport, index: IndexObject, others: tuple[IndexObject, list[IndexObject]]
    ) -> IndexManifest:
        return IndexManifest(
            seq=self.settings.seq,
            run=self.settings.run,
            fingerprint=rows.fingerprint,
            kind=report.kind,
            column=rows.column,
            dim=report.dim,
            space=self.settings.space,
            index=index,
            ids=others[0],
            vectors=others[1],
            report=report,
        )

    def _shape(self, base: IndexManifest | None, added: Rows) -> tuple[Shape, int]:
        """The old index in memory, or a new one, trained; and for how many rows it was."""
        threads = self.settings.threads
        if base is not None:
            path = self.folder / "old.faiss"
            copy_object(self.writer.store, base.index, path)
            return Shape.read(base.kind, base.dim, path, threads), base.report.trained_rows
        dim = max(1, added.block(0, 1).shape[1])
        name: ShapeName = choose_shape(self.settings.kind, added.count, dim, self.settings.flat_numbers)
        sample: Matrix = np.empty((0, dim), np.float32)
        if name == "ivfPq":
            chosen = np.random.default_rng(0).choice(added.count, sample_rows(added.count, dim), replace=False)
            sample = added.take(np.sort(chosen).astype(np.int64))
        return Shape.make(name, dim, added.count, sample, threads), added.count

    def _add(self, shape: Shape, added: Rows) -> Path:
        """Add the new rows. Returns: the file of their float16 form, empty where the shape is exact."""
        path = self.folder / "rows.f16"
        with Spool(path, HALF) as halves:
            for _, block in blocks(added):
                shape.add(block, self.settings.threads)
                if not shape.is_exact:
                    halves.add(block)
        return path

    def _write(
        self, shape: Shape, base: IndexManifest | None, alive: Flags, spool: _Spooled
    ) -> tuple[IndexObject, IndexObject, list[IndexObject]]:
        """Upload everything that the pointer will name: (index, ids, vectors)."""
        path = self.folder / "index.faiss"
        shape.write(path)
        index = self._put("index.faiss", path, shape.count)
        with IdsWriter(self.folder / "ids.parquet") as ids:
            first = 0
            for batch in Ids(self.writer.store, base.ids).batches(SCHEMA.names) if base else ():
                ids.add(_with_alive(batch, alive[first : first + batch.num_rows]))
                first += batch.num_rows
            for table in spool.facts():
                ids.add(table)
        vectors = list(base.vectors) if base else []
        if not shape.is_exact and spool.count:
            vectors.append(self._put("vectors.f16", self.folder / "rows.f16", spool.count))
        return index, self._put("ids.parquet", ids.path, ids.rows), vectors

    def _put(self, name: str, path: Path, rows: int) -> IndexObject:
        key = version_prefix(self.settings.seq, self.settings.attempt) + name
        self.writer.retrying(lambda: self.writer.store.put_file(key, path))
        return IndexObject(key=key, size=path.stat().st_size, rows=rows)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started


@dataclass(frozen=True, slots=True)
class _Spooled:
    """Rows on disk, with the facts of each."""

    vectors: Path
    ids: Path
    count: int
    dim: int

    def facts(self) -> Iterator[pa.Table]:
        if not self.count:
            return
        with pa.OSFile(str(self.ids)) as file:
            for batch in pa.ipc.open_stream(file):
                yield pa.Table.from_batches([batch])


def _with_alive(batch: pa.RecordBatch, alive: Flags) -> pa.Table:
    table = pa.Table.from_batches([batch])
    at = table.schema.get_field_index("alive")
    return table.set_column(at, table.schema.field(at), pa.array(alive))


def _action(base: IndexManifest | None, alive: Flags, spool: _Spooled) -> Action:
    if base is None:
        return "Built"
    is_same = not spool.count and int((~alive).sum()) == base.report.dead
    return "Unchanged" if is_same else "Added"
