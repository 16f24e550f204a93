"""The three shapes of an index, as FAISS has them: flat, compressed (IVF-PQ), graph (HNSW).

Layer: `worker.embed.search`, the one module that imports FAISS, when a shape is made or read. Rows and queries have
length 1, so that the inner product is the cosine. Positions count rows in the order they were added and never move:
nothing is taken out of an index, a search is told which positions live.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagemill_core.api.v1alpha1.output import IndexKind
from pagemill_core.errors import EngineUnavailableError, IntegrityError
from pagemill_worker.embed.search.manifest import Effort, ShapeName
from pagemill_worker.embed.search.parts import Flags, Matrix

FLAT_MAX_NUMBERS = 1 << 25  # 128 MiB, 65,536 rows of 512: about 5 ms a query on two cores
CODE_DIMS = 8  # numbers that share one byte of a compressed row
SAMPLE_MAX_BYTES = 512 << 20
_SAMPLES_A_LIST = 40  # FAISS asks for 39
_MAX_LISTS = 16_384
_ITERATIONS = 10
_SEED = 1234
_NEIGHBOURS = 32  # links a node of the graph has
_BREADTH_BUILDING = 80

Found = tuple[Matrix, NDArray[np.int64]]
"""Scores and positions, shape (queries, k) each, best first; position -1 where there are fewer than k."""


def choose_shape(kind: IndexKind, rows: int, dim: int, flat_numbers: int = FLAT_MAX_NUMBERS) -> ShapeName:
    """The shape for so many rows: exact while that is fast, then compressed. Too few rows to train are always flat."""
    if kind == "hnsw":
        return "hnsw"
    is_small = rows < 256 or (kind == "auto" and rows * dim <= flat_numbers)
    if kind == "flat" or is_small:
        return "flat"
    return "ivfPq"


def list_count(rows: int) -> int:
    """Lists of a compressed index: a power of two near 2 · √rows, so that centroids and lists cost a query alike."""
    return int(min(_MAX_LISTS, 2 ** max(2, round(math.log2(2 * math.sqrt(rows))))))


def sample_rows(rows: int, dim: int) -> int:
    """How many rows a compressed index is trained on; bounded in bytes."""
    wanted = max(_SAMPLES_A_LIST * list_count(rows), 10_240)
    return int(min(rows, wanted, SAMPLE_MAX_BYTES // (4 * dim)))


@dataclass(slots=True)
class Shape:
    """An index in memory. Not safe to change from several threads; searching is."""

    name: ShapeName
    dim: int
    faiss_index: Any

    @classmethod
    def make(cls, name: ShapeName, dim: int, rows: int, sample: Matrix, threads: int) -> Shape:
        """An empty index for about `rows` rows, trained on `sample` where it needs training.

        The same sample gives the same index on the same class of machine.
        """
        faiss = load_faiss(threads)
        if name == "flat":
            return cls(name, dim, faiss.IndexFlatIP(dim))
        if name == "hnsw":
            graph = faiss.IndexHNSWFlat(dim, _NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
            graph.hnsw.efConstruction = _BREADTH_BUILDING
            return cls(name, dim, graph)
        lists = min(list_count(rows), len(sample))
        wide = _padded_dim(dim)
        quantizer = faiss.IndexFlatIP(wide)
        index = faiss.IndexIVFPQ(quantizer, wide, lists, wide // CODE_DIMS, 8, faiss.METRIC_INNER_PRODUCT)
        for clustering in (index.cp, index.pq.cp):
            clustering.niter, clustering.seed, clustering.min_points_per_centroid = _ITERATIONS, _SEED, 1
        index.train(_padded(sample, wide))
        return cls(name, dim, index)

    @classmethod
    def read(cls, name: ShapeName, dim: int, path: Path, threads: int) -> Shape:
        """An index from its file. Raises: IntegrityError when the file holds none."""
        faiss = load_faiss(threads)
        try:
            return cls(name, dim, faiss.read_index(str(path)))
        except RuntimeError as error:
            raise IntegrityError(
                f"the index cannot be read: {str(error)[:200]}", advice="run the job again: its index is built anew"
            ) from error

    def write(self, path: Path) -> None:
        """Write the index to a file."""
        load_faiss().write_index(self.faiss_index, str(path))

    @property
    def count(self) -> int:
        """Positions in the index."""
        return int(self.faiss_index.ntotal)

    @property
    def is_exact(self) -> bool:
        """Whether scores are the rows' own; those of a compressed index only choose candidates."""
        return self.name != "ivfPq"

    def add(self, rows: Matrix, threads: int) -> None:
        """Append rows of length 1. A graph is built by one thread: with more, its links would be chance."""
        load_faiss(1 if self.name == "hnsw" else threads)
        self.faiss_index.add(_padded(rows, int(self.faiss_index.d)))

    def rows(self, first: int, count: int) -> Matrix:
        """The rows themselves, of an exact index."""
        store = self.faiss_index.storage if self.name == "hnsw" else self.faiss_index
        wanted = max(0, min(count, self.count - first))
        return np.asarray(store.reconstruct_n(first, wanted), np.float32).reshape(wanted, self.dim)

    def search(self, queries: Matrix, k: int, effort: Effort, alive: Flags | None) -> Found:
        """The `k` best living positions by this index's own scores; `alive` None means all."""
        if not self.count:
            return np.zeros((len(queries), k), np.float32), np.full((len(queries), k), -1, np.int64)
        faiss = load_faiss()
        bits = None if alive is None else np.packbits(alive, bitorder="little")
        options: dict[str, Any] = {} if bits is None else {"sel": faiss.IDSelectorBitmap(bits)}
        if self.name == "flat":
            parameters = faiss.SearchParameters(**options)
        elif self.name == "hnsw":
            parameters = faiss.SearchParametersHNSW(efSearch=max(effort.ef_search, k), **options)
        else:
            parameters = faiss.SearchParametersIVF(nprobe=effort.nprobe, **options)
        scores, positions = self.faiss_index.search(_padded(queries, int(self.faiss_index.d)), k, params=parameters)
        return scores, positions


def load_faiss(threads: int | None = None) -> Any:
    """FAISS, using `threads` from now on. Raises: EngineUnavailableError when it is not installed."""
    try:
        import faiss
    except ImportError as error:
        raise EngineUnavailableError(
            "FAISS is not installed, so an index can neither be built nor read",
            advice="install pagemill[embed], or search without the index: pagemill search --exact",
        ) from error
    if threads is not None:
        faiss.omp_set_num_threads(threads)
    return faiss


def _padded_dim(dim: int) -> int:
    return -(-dim // CODE_DIMS) * CODE_DIMS


def _padded(rows: Matrix, dim: int) -> Matrix:
    """Rows with zeros behind them, which change no inner product."""
    missing = dim - rows.shape[1]
    return np.ascontiguousarray(np.pad(rows, ((0, 0), (0, missing))) if missing else rows, np.float32)
