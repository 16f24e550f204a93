"""A process that builds the search index is killed by SIGKILL at each of its writes: the old index or the new one."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from pagemill_core.clock import SystemClock
from pagemill_core.storage.folder import FolderStore
from pagemill_core.work.conditional import Writer
from pagemill_worker.embed.search.build import IndexSettings, build_index
from pagemill_worker.embed.search.manifest import MANIFEST_KEY, REPORT_KEY, IndexReport, read_manifest
from pagemill_worker.embed.search.opening import SearchSettings, open_searcher
from pagemill_worker.testing.vector_dataset import MadePart, clustered, write_vectors

DIM, FIRST, SECOND = 16, 400, 60
# index.faiss, ids.parquet or vectors.f16, the pointer (created? then swapped), the report
POINTS = {"short": (3, 5, 6), "long": (1, 2, 3, 4, 5, 6)}
BUILD = """
import os, signal, sys
from pathlib import Path
from pagemill_core.clock import SystemClock
from pagemill_core.storage.folder import FolderStore
from pagemill_core.work.conditional import Writer
from pagemill_worker.embed.search.build import IndexSettings, build_index

class Fatal(FolderStore):
    left = int(sys.argv[2])
    is_before = sys.argv[3] == "before"

def fatal(name):
    plain = getattr(FolderStore, name)
    def write(self, *given, **named):
        Fatal.left -= 1
        if Fatal.left == 0 and Fatal.is_before:
            os.kill(os.getpid(), signal.SIGKILL)
        done = plain(self, *given, **named)
        if Fatal.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return done
    setattr(Fatal, name, write)

for name in ("put", "put_file", "put_if_absent", "put_if_match", "delete"):
    fatal(name)
writer = Writer(Fatal(Path(sys.argv[1]), fsync=False), SystemClock(), deadline_s=0)
build_index(writer, IndexSettings(run="00000002-abcdef01", attempt="killed", kind="ivfPq"))
"""


def make_output(folder: Path, rows: np.ndarray) -> Writer:
    """Two runs in the dataset, the first of them in the index."""
    writer = Writer(FolderStore(folder, fsync=False), SystemClock(), deadline_s=0)
    write_vectors(writer.store, MadePart(ids=[f"a{n}" for n in range(FIRST)], vectors=rows[:FIRST]))
    build_index(writer, IndexSettings(run="00000001-abcdef01", attempt="first", kind="ivfPq"))
    write_vectors(writer.store, MadePart(ids=[f"b{n}" for n in range(SECOND)], vectors=rows[FIRST:], seq=2))
    return writer


def nearest(writer: Writer, row: np.ndarray) -> str:
    with open_searcher(writer, SearchSettings()) as searcher:
        (hits,) = searcher.search(row[None, :], 1)
        return hits[0].row.id


@pytest.mark.parametrize("when", ["before", "after"])
def test_index_build_killed_at_a_write_leaves_a_whole_index_and_can_be_repeated(
    tmp_path: Path, chaos_length: Literal["short", "long"], when: str
) -> None:
    rows = clustered(FIRST + SECOND, DIM)
    seen = set()
    for point in POINTS[chaos_length]:
        writer = make_output(tmp_path / str(point), rows)
        words = [sys.executable, "-c", BUILD, str(tmp_path / str(point)), str(point), when]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode in (-signal.SIGKILL, 0), done.stderr

        manifest = read_manifest(writer)
        assert manifest is not None
        seen.add(manifest.seq)
        assert nearest(writer, rows[5]) == "a5"
        assert (nearest(writer, rows[FIRST + 7]) == "b7") == (manifest.seq == 2)

        report = build_index(writer, IndexSettings(run="00000002-abcdef01", attempt="again", kind="ivfPq"))

        assert (report.rows, report.run) == (FIRST + SECOND, "00000002-abcdef01")
        assert IndexReport.from_bytes(writer.store.get(REPORT_KEY).data, REPORT_KEY) == report
        assert nearest(writer, rows[FIRST + 7]) == "b7"
        assert writer.store.head(MANIFEST_KEY) is not None
    assert seen == {1, 2}
