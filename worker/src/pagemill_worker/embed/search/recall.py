"""How well an index finds what an exact search finds, and how hard it must look for that.

Layer: `worker.embed.search`, above `finder`. Queries are rows of the index itself, without themselves in the answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pagemill_worker.embed.search.finder import Finder, nearest
from pagemill_worker.embed.search.manifest import Effort, Recall
from pagemill_worker.embed.search.parts import Matrix
from pagemill_worker.embed.search.shapes import Found

AT = 10
SAMPLE = 200  # 2,000 neighbours: the share is known to about half a percent
_TIE = np.float32(1e-5)  # two rows this near in score are equally right
_CANDIDATES = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
_PLENTY = 64


@dataclass(frozen=True, slots=True)
class Probe:
    """Queries with the truth about them. `positions` are the queries' own rows, `worst` the score of the last of the
    true neighbours, `counts` how many there are."""

    queries: Matrix
    positions: NDArray[np.int64]
    worst: NDArray[np.float32]
    counts: NDArray[np.int64]


def probe_of(finder: Finder, seed: int = 0) -> Probe:
    """A probe of a seeded sample of the living rows; costs one pass over all rows."""
    living = np.arange(finder.shape.count) if finder.alive is None else np.flatnonzero(finder.alive)
    chosen = np.random.default_rng(seed).choice(living, min(SAMPLE, len(living)), replace=False)
    positions = np.sort(chosen).astype(np.int64)
    queries = np.concatenate([finder.take(int(position)) for position in positions])
    scores, found = nearest(finder, queries, AT, without=positions)
    counts = (found >= 0).sum(axis=1)
    worst = np.where(counts > 0, np.take_along_axis(scores, np.maximum(counts - 1, 0)[:, None], 1)[:, 0], np.inf)
    return Probe(queries, positions, worst.astype(np.float32), counts)


def measure(finder: Finder, probe: Probe) -> float:
    """Recall at ten: of all true neighbours the share that the finder finds."""
    wanted = int(probe.counts.sum())
    if not wanted:
        return 1.0
    scores, found = finder.search(probe.queries, AT + 1)
    return _hits((scores, found), probe) / wanted


def tune(finder: Finder, wanted: float) -> Recall:
    """Raise the finder's effort until it finds the `wanted` share and more, then leave out what is not needed for it.

    More, since queries that are no rows find less: half of what `wanted` lets go. `is_met` is false when even the
    greatest effort does not find the `wanted` share.
    """
    if finder.shape.name == "flat":
        return Recall(wanted=wanted)
    probe = probe_of(finder)
    aim, measured = (1 + wanted) / 2, 0.0
    for effort in _ladder(finder):
        finder.effort = effort
        measured = measure(finder, probe)
        if measured >= aim:
            break
    if finder.shape.name == "ivfPq" and measured >= aim:
        measured = _fewest_candidates(finder, probe, aim, measured)
    return Recall(sample=len(probe.queries), wanted=wanted, measured=round(measured, 4), is_met=measured >= wanted)


def _ladder(finder: Finder) -> Iterator[Effort]:
    """Efforts that rise."""
    if finder.shape.name == "hnsw":
        yield from (Effort(ef_search=16 << step) for step in range(9))
        return
    lists = int(finder.shape.faiss_index.nlist)
    steps = [1 << step for step in range(lists.bit_length()) if 1 << step < lists] + [lists]
    yield from (Effort(nprobe=nprobe, candidates=_PLENTY) for nprobe in steps)
    yield from (Effort(nprobe=lists, candidates=candidates) for candidates in _CANDIDATES if candidates > _PLENTY)


def _fewest_candidates(finder: Finder, probe: Probe, aim: float, measured: float) -> float:
    """Lower the candidates while the recall holds. Returns: the recall that is left."""
    enough = finder.effort
    for candidates in _CANDIDATES:
        if candidates >= enough.candidates:
            break
        finder.effort = enough.model_copy(update={"candidates": candidates})
        found = measure(finder, probe)
        if found >= aim:
            return found
    finder.effort = enough
    return measured


def _hits(found: Found, probe: Probe) -> int:
    scores, positions = found
    others = (positions != probe.positions[:, None]) & (positions >= 0)
    right = others & (scores >= probe.worst[:, None] - _TIE)
    return int(np.minimum(right.sum(axis=1), probe.counts).sum())
