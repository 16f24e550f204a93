"""Near-duplicates: groups of rows that are linked by a cosine of at least a threshold.

Layer: `worker.embed.search`. Few rows are compared each with each, in blocks; many by an index, which may miss what it
does not find, as often as its recall says. Groups do not depend on the order of comparing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pagemill_core.errors import InvalidSpecError
from pagemill_core.storage.folder import FolderStore
from pagemill_core.work.conditional import Writer
from pagemill_worker.embed.search.finder import Finder
from pagemill_worker.embed.search.ids import SHOWN, Ids, IdsWriter, RowFacts, facts_table
from pagemill_worker.embed.search.manifest import Effort, IndexObject
from pagemill_worker.embed.search.parts import Matrix, unit_rows
from pagemill_worker.embed.search.recall import tune
from pagemill_worker.embed.search.rows import VECTORS, LiveRows
from pagemill_worker.embed.search.shapes import Shape, sample_rows
from pagemill_worker.embed.search.vectors import HALF, SINGLE, FileRows, Rows, Spool, blocks

EXACT_MAX_ROWS = 50_000  # 1.3 · 10¹² multiplications at 512 numbers: about half a minute on two cores
_TALL, _WIDE = 1024, 4096  # rows compared at once: 16 MiB of scores
_FIRST_NEIGHBOURS = 32
_QUERIES = 256

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DedupSettings:
    """How near is near: `threshold` is a cosine. Above `exact_rows` rows an index of `min_recall` finds the pairs."""

    threshold: float = 0.95
    column: str = VECTORS
    exact_rows: int = EXACT_MAX_ROWS
    min_recall: float = 0.99
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Member:
    """One row of a group; `score` is its cosine with the row that is kept."""

    row: RowFacts
    score: float
    is_kept: bool


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Rows linked by near-equality, the kept one first: the one of the most pixels, then of the smallest id."""

    number: int
    members: Sequence[Member]


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What was found among `rows` rows; `recall` is 1.0 where each was compared with each."""

    rows: int
    groups: Sequence[DuplicateGroup]
    how: str
    recall: float

    @property
    def redundant(self) -> int:
        """Rows that could go: all of every group but one."""
        return sum(len(group.members) - 1 for group in self.groups)


def find_duplicates(writer: Writer, settings: DedupSettings) -> Duplicates:
    """Groups of near-duplicates among the rows that count, largest first.

    Raises: InvalidSpecError for a threshold that is no cosine; as `LiveRows.open`.
    """
    if not 0 < settings.threshold <= 1:
        raise InvalidSpecError(f"--threshold {settings.threshold} is no cosine above 0", advice="0.95 is a good start")
    with tempfile.TemporaryDirectory(prefix="pagemill-dedup-") as folder:
        return _Search(writer, settings, Path(folder)).run()


@dataclass(slots=True)
class _Search:
    writer: Writer
    settings: DedupSettings
    folder: Path

    def run(self) -> Duplicates:
        rows, ids = self._spool()
        sets = Linked(rows.count)
        how, recall = "each with each", 1.0
        if rows.count <= self.settings.exact_rows:
            for pairs in _near_pairs(rows, self.settings.threshold):
                sets.link(*pairs)
        elif rows.count:
            finder = self._finder(rows)
            recall = tune(finder, self.settings.min_recall).measured
            how = f"by an index of recall {recall:.3f}"
            for pairs in _found_pairs(finder, rows, self.settings.threshold):
                sets.link(*pairs)
        groups = [self._group(rows, ids, members) for members in sets.groups()]
        groups.sort(key=lambda members: (-len(members), members[0].row.id))
        numbered = [DuplicateGroup(number, members) for number, members in enumerate(groups, 1)]
        return Duplicates(rows.count, numbered, how, recall)

    def _spool(self) -> tuple[FileRows, Ids]:
        live = LiveRows.open(self.writer.store, self.folder, self.settings.column)
        vectors, dim = self.folder / "rows.f32", live.dim
        with ExitStack() as stack:
            spool = stack.enter_context(Spool(vectors, SINGLE))
            ids = stack.enter_context(IdsWriter(self.folder / "ids.parquet"))
            for batch in live.batches(SHOWN):
                unit, usable = unit_rows(batch.vectors)
                dim = batch.vectors.shape[1]
                spool.add(unit)
                ids.add(facts_table(batch.columns, batch.part).take(np.flatnonzero(usable)))
        entry = IndexObject(key="ids.parquet", size=ids.path.stat().st_size, rows=ids.rows)
        return FileRows(vectors, SINGLE, dim), Ids(FolderStore(self.folder), entry)

    def _finder(self, rows: FileRows) -> Finder:
        """A compressed index of the rows, for this search alone."""
        dim = rows.dim
        chosen = np.sort(np.random.default_rng(0).choice(rows.count, sample_rows(rows.count, dim), replace=False))
        shape = Shape.make("ivfPq", dim, rows.count, rows.take(chosen.astype(np.int64)), self.settings.threads)
        with Spool(self.folder / "rows.f16", HALF) as halves:
            for _, block in blocks(rows):
                shape.add(block, self.settings.threads)
                halves.add(block)
        return Finder(shape, Effort(), FileRows(halves.path, HALF, dim))

    def _group(self, rows: Rows, ids: Ids, positions: NDArray[np.int64]) -> list[Member]:
        facts = ids.take(positions)
        order = sorted(range(len(facts)), key=lambda at: (-_pixels(facts[at]), facts[at].id))
        vectors = rows.take(positions)
        scores = vectors @ vectors[order[0]]
        members = [Member(facts[at], float(scores[at]), is_kept=at == order[0]) for at in order]
        return members[:1] + sorted(members[1:], key=lambda member: (-member.score, member.row.id))


class Linked:
    """Sets of positions that grow together as they are linked."""

    def __init__(self, count: int) -> None:
        self._root = np.arange(count, dtype=np.int64)

    def link(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> None:
        """Join the sets of each pair. Pairs that are joined already cost nothing but their look-up."""
        roots = np.sort(np.stack([self._root[left], self._root[right]], axis=1), axis=1)
        open_pairs = np.unique(roots[roots[:, 0] != roots[:, 1]], axis=0)
        if not len(open_pairs):
            return
        parents: dict[int, int] = {}
        for low, high in open_pairs.tolist():
            first, second = _find(parents, low), _find(parents, high)
            if first != second:
                parents[max(first, second)] = min(first, second)
        changed = np.asarray(sorted(parents), np.int64)
        targets = np.asarray([_find(parents, int(root)) for root in changed], np.int64)
        at = np.searchsorted(changed, self._root)
        at[at == len(changed)] = 0
        hit = changed[at] == self._root
        self._root[hit] = targets[at[hit]]

    def groups(self) -> Iterator[NDArray[np.int64]]:
        """The sets of two and more, each in order."""
        order = np.argsort(self._root, kind="stable")
        edges = np.flatnonzero(np.diff(self._root[order])) + 1
        for group in np.split(order, edges):
            if len(group) > 1:
                yield group


def _find(parents: dict[int, int], root: int) -> int:
    while (above := parents.get(root)) is not None:
        root = above
    return root


def _near_pairs(rows: Rows, threshold: float) -> Iterator[Pairs]:
    """Every pair over the threshold, a block of scores at a time."""
    for top in range(0, rows.count, _TALL):
        tall = rows.block(top, _TALL)
        for left in range(top, rows.count, _WIDE):
            yield _over(tall, rows.block(left, _WIDE), threshold, (top, left))


def _over(tall: Matrix, wide: Matrix, threshold: float, at: tuple[int, int]) -> Pairs:
    first, second = np.nonzero(tall @ wide.T >= threshold)
    first, second = first + at[0], second + at[1]
    ahead = first < second
    return first[ahead], second[ahead]


def _found_pairs(finder: Finder, rows: Rows, threshold: float) -> Iterator[Pairs]:
    """The pairs over the threshold that the index finds: more neighbours are asked for while all of them are near."""
    for first in range(0, rows.count, _QUERIES):
        queries = rows.block(first, _QUERIES)
        own = np.arange(first, first + len(queries))
        neighbours = _FIRST_NEIGHBOURS
        while True:
            scores, positions = finder.search(queries, neighbours)
            near = (scores >= threshold) & (positions >= 0)
            yield np.repeat(own, near.sum(axis=1)), positions[near]
            full = near.all(axis=1)
            if not full.any() or neighbours >= rows.count:
                break
            queries, own, neighbours = queries[full], own[full], neighbours * 8


def _pixels(row: RowFacts) -> int:
    return (row.width_px or 0) * (row.height_px or 0)
