"""Digests of identities, and a map from them to where they first stood: exact at any number of rows, in bounded memory.

Layer: `worker.plan`; pure but for temporary files in the folder it is given. Python's own sets would need some 150
bytes a row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Digests = NDArray[np.uint64]
"""Shape (n, 2): 128 bits of BLAKE2b, high half first, big endian, so that rows sort as their bytes do."""

IN_MEMORY_ROWS = 1 << 21  # 64 MiB of entries; longer runs go to disk and are only looked into

Entry = np.dtype([("high", "<u8"), ("low", "<u8"), ("payload", "<u8"), ("line", "<i8")])


def identity_digest(item_id: str) -> bytes:
    """16 bytes that stand for an id, halves of surrogate pairs included. Frozen: the item index is sorted by it."""
    return blake2b(item_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def digests_of(texts: Iterable[str]) -> Digests:
    """`identity_digest` of each text."""
    joined = b"".join([blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts])
    return np.frombuffer(joined, dtype=">u8").astype(np.uint64).reshape(-1, 2)


def short_digests(texts: Iterable[str]) -> NDArray[np.uint64]:
    """64 bits of each text: enough to tell two values of one identity apart, not to name one."""
    joined = b"".join([blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts])
    return np.frombuffer(joined, dtype=">u8").astype(np.uint64)


@dataclass(frozen=True, slots=True)
class Found:
    """What a look-up gave, by query: whether it is there, and the payload and line it was added with (else 0)."""

    present: NDArray[np.bool_]
    payloads: NDArray[np.uint64]
    lines: NDArray[np.int64]


class DigestMap:
    """Digests, each with a payload and a line, kept as a few sorted runs.

    Runs of like size are merged, so there are about log2(rows) of them; runs of `IN_MEMORY_ROWS` lie in `scratch`,
    mapped into memory, and are no longer merged. Memory is bounded by some 200 MiB whatever the number of rows.
    """

    def __init__(self, scratch: Path, *, in_memory_rows: int = IN_MEMORY_ROWS) -> None:
        self._scratch = scratch
        self._in_memory_rows = in_memory_rows
        self._runs: list[NDArray[np.void]] = []
        self._spilled: list[NDArray[np.void]] = []

    def __len__(self) -> int:
        return sum(map(len, self._runs)) + sum(map(len, self._spilled))

    def find(self, digests: Digests) -> Found:
        """Look each digest up."""
        count = len(digests)
        found = Found(np.zeros(count, np.bool_), np.zeros(count, np.uint64), np.zeros(count, np.int64))
        order = np.argsort(digests[:, 0])  # neighbours look into the same pages
        ordered = digests[order]
        for run in (*self._spilled, *self._runs):
            at = find_positions(run, ordered)
            hit = at >= 0
            entries = run[at[hit]]
            found.present[order[hit]] = True
            found.payloads[order[hit]] = entries["payload"]
            found.lines[order[hit]] = entries["line"]
        return found

    def add(self, digests: Digests, payloads: NDArray[np.uint64], lines: NDArray[np.int64]) -> None:
        """Add digests that are not there yet, each once."""
        if not len(digests):
            return
        run = np.empty(len(digests), Entry)
        run["high"], run["low"] = digests[:, 0], digests[:, 1]
        run["payload"], run["line"] = payloads, lines
        self._runs.append(_sorted(run))
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            self._runs[-2:] = [_sorted(np.concatenate(self._runs[-2:]))]
        if len(self._runs[0]) >= self._in_memory_rows:
            self._spill(self._runs.pop(0))

    def _spill(self, run: NDArray[np.void]) -> None:
        path = self._scratch / f"digests-{id(self):x}-{len(self._spilled):05d}.npy"
        np.save(path, run)
        self._spilled.append(np.load(path, mmap_mode="r"))


def _sorted(run: NDArray[np.void]) -> NDArray[np.void]:
    # By the high half alone: ties of 64 bits are chance, and `find_positions` walks over them.
    return run[np.argsort(run["high"], kind="stable")]


def find_positions(run: NDArray[np.void], digests: Digests) -> NDArray[np.int64]:
    """Where in `run` each digest stands, -1 where it does not."""
    highs, lows = run["high"], run["low"]
    at = np.searchsorted(highs, digests[:, 0])
    result = np.full(len(digests), -1, np.int64)
    open_queries = np.arange(len(digests))
    while True:
        here = at[open_queries]
        inside = here < len(run)
        open_queries, here = open_queries[inside], here[inside]
        tied = highs[here] == digests[open_queries, 0]
        open_queries, here = open_queries[tied], here[tied]
        if not len(open_queries):
            return result
        hit = lows[here] == digests[open_queries, 1]
        result[open_queries[hit]] = here[hit]
        open_queries = open_queries[~hit]
        at[open_queries] += 1
