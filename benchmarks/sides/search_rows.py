"""Builds an index over clustered rows and searches them, exactly and by the index, in a process of its own.

A program: what to do as JSON on standard input, figures as JSON on standard output. Its memory is its own: the rows
lie in Parquet parts before the index is built, and are read from there.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from benchmarks.sides.plan_million_rows import MEBIBYTE, peak_rss_bytes
from pagemill_core.clock import SystemClock
from pagemill_core.storage.folder import FolderStore
from pagemill_core.work.conditional import Writer
from pagemill_worker.embed.search.build import IndexSettings, build_index
from pagemill_worker.embed.search.by_index import open_index
from pagemill_worker.embed.search.manifest import Effort, IndexManifest, IndexReport, read_manifest
from pagemill_worker.embed.search.parts import Matrix, unit_rows
from pagemill_worker.embed.search.rows import LiveRows
from pagemill_worker.embed.search.shapes import Shape
from pagemill_worker.testing.vector_dataset import MadePart, clustered, write_vectors

PART_ROWS = 100_000


class SearchWork(BaseModel):
    """What to do in `folder`: `rows` × `dim` rows, `queries` searched one by one for the `k` nearest.

    `step` is one of write (the parts), build (the index), search (both ways, the index's recall included).
    """

    model_config = ConfigDict(frozen=True)

    folder: str
    rows: int
    dim: int
    queries: int
    step: str
    kind: str = "auto"
    threads: int = 1
    k: int = 10
    min_recall: float = 0.95
    flat_numbers: int = 0


def main() -> None:
    """Work and tell."""
    work = SearchWork.model_validate_json(sys.stdin.read())
    steps: dict[str, Callable[[SearchWork, Writer], dict[str, float]]] = {
        "write": write,
        "build": build,
        "search": search,
    }
    sys.stdout.write(json.dumps(steps[work.step](work, Writer(FolderStore(Path(work.folder)), SystemClock()))))


def write(work: SearchWork, writer: Writer) -> dict[str, float]:
    """Write the dataset's parts; the same clusters in each part, for a tenth of a hundred rows a cluster."""
    started = time.perf_counter()
    for number, first in enumerate(range(0, work.rows, PART_ROWS)):
        count = min(PART_ROWS, work.rows - first)
        rows = _rows(work, count, first)
        ids = [f"photo-{row:09d}" for row in range(first, first + count)]
        write_vectors(writer.store, MadePart(ids=ids, vectors=rows, number=number, first_row=first))
    return {"seconds": time.perf_counter() - started}


def build(work: SearchWork, writer: Writer) -> dict[str, float]:
    """Build the index; time and memory of that alone."""
    settings = IndexSettings(
        run="00000001-00000000",
        attempt="bench",
        kind="auto" if work.kind == "auto" else "hnsw" if work.kind == "hnsw" else "ivfPq",
        min_recall=work.min_recall,
        threads=work.threads,
        flat_numbers=work.flat_numbers,
    )
    started = time.perf_counter()
    report = build_index(writer, settings)
    return _told(report) | {"build_s": time.perf_counter() - started, "build_mib": peak_rss_bytes() / MEBIBYTE}


def search(work: SearchWork, writer: Writer) -> dict[str, float]:
    """Median seconds of a search by the index and by a flat one, one query at a time, and how many answers they share.

    Queries are new rows of the same clusters, which the index does not hold.
    """
    manifest = read_manifest(writer)
    if manifest is None:
        raise RuntimeError("there is no index to search")
    queries = _rows(work, work.queries, work.rows)
    with open_index(writer.store, manifest, threads=work.threads) as searcher:
        by_index, index_s = _timed(queries, lambda query: [hit.row.row for hit in searcher.search(query, work.k)[0]])
        _, positions_s = _timed(queries, lambda query: searcher.finder.search(query, work.k)[1][0].tolist())
        with_index_mib = peak_rss_bytes() / MEBIBYTE
    flat = _flat(work, writer, manifest)
    exact, exact_s = _timed(queries, lambda query: flat.search(query, work.k, Effort(), None)[1][0].tolist())
    shared = sum(len({*one} & {*other}) for one, other in zip(by_index, exact, strict=True))
    return {
        "rows": work.rows,
        "index_ms": index_s * 1000,
        "positions_ms": positions_s * 1000,
        "exact_ms": exact_s * 1000,
        "ratio": exact_s / index_s,
        "recall": shared / (len(queries) * work.k),
        "search_mib": with_index_mib,
    }


def _rows(work: SearchWork, count: int, first: int) -> Matrix:
    """Rows of the same clusters whatever `first` is."""
    clusters = max(20, work.rows // 200)
    centres = clustered(clusters, work.dim, clusters=clusters, spread=1.0, seed=7)
    rng = np.random.default_rng(first + 11)
    noise = rng.normal(size=(count, work.dim)).astype(np.float32) * np.float32(0.5 / np.sqrt(work.dim))
    return unit_rows(centres[rng.integers(clusters, size=count)] + noise)[0]


def _flat(work: SearchWork, writer: Writer, manifest: IndexManifest) -> Shape:
    """Every row in an exact index, in the dataset's order, which is that of its rows."""
    flat = Shape.make("flat", work.dim, manifest.rows, np.empty((0, work.dim), np.float32), work.threads)
    for batch in LiveRows.open(writer.store, Path(work.folder)).batches(["row"]):
        flat.add(unit_rows(batch.vectors)[0], work.threads)
    return flat


def _timed(queries: Matrix, ask: Callable[[Matrix], list[int]]) -> tuple[list[list[int]], float]:
    """(answers, median seconds), after a few that are not counted."""
    for number in range(min(5, len(queries))):
        ask(queries[number : number + 1])
    answers, seconds = [], []
    for number in range(len(queries)):
        started = time.perf_counter()
        answers.append(ask(queries[number : number + 1]))
        seconds.append(time.perf_counter() - started)
    return answers, statistics.median(seconds)


def _told(report: IndexReport) -> dict[str, float]:
    return {
        "rows": report.rows,
        "sample_recall": report.recall.measured,
        "nprobe": report.effort.nprobe,
        "candidates": report.effort.candidates,
        "ef_search": report.effort.ef_search,
        "size_mib": report.size_bytes / MEBIBYTE,
        **{f"{name}_s": seconds for name, seconds in report.seconds.items()},
    }


if __name__ == "__main__":
    main()
