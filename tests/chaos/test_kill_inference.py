"""kill -9 while the results of a tensor job are written: predictions, reports of ranks, what is made of them.

The real command runs in a fork with an instant model. At the end nobody can tell that anything happened.
"""

from __future__ import annotations

import io
import json
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

import numpy as np
import pyarrow.parquet as pq
import pytest

from pagemill_cli.testing.forked_runs import Ended, ForkedRuns, folder_in_memory
from pagemill_cli.testing.promises import marker_tokens
from pagemill_cli.testing.strikes import Strike
from pagemill_core.storage.folder import FolderStore
from pagemill_worker.views.book_tensors import render_tensor

SEED = 20260103
KILLED = -9
PARTS = 2
READS = ("get ", "get_range ", "list ", "head ")
RESULTS = re.compile(r" (results/|predictions|dataset|summary|report|\.pagemill/index)")
SHOWN = ("results/", "predictions", "dataset/")
ROWS = {"1": 5, "2": 3, "3": 4, "10": 1}
RANKS = 3


@dataclass
class Stage:
    """A job with its folder, and how its results look undisturbed."""

    root: Path
    runs: ForkedRuns
    spec: dict[str, Any]
    undisturbed: dict[str, bytes] = field(default_factory=dict)
    operations: tuple[str, ...] = ()

    @property
    def store(self) -> FolderStore:
        return FolderStore(self.root / "out", fsync=False)

    def run(self, *strikes: Strike, operations: str = "") -> Ended:
        job = {"apiVersion": "pagemill.dev/v1alpha1", "kind": "EmbeddingJob", "metadata": {"name": "chaos"}}
        file = self.root / "job.yaml"
        file.write_text(json.dumps({**job, "spec": self.spec}), encoding="utf-8")
        plain = self.runs.request("run", str(file), "--quiet", "--output", "json", "-p", "1")
        return self.runs.run(replace(plain, strikes=strikes, operations=operations))

    def shown(self) -> dict[str, bytes]:
        return {info.key: self.store.get(info.key).data for info in self.store.list("") if info.key.startswith(SHOWN)}


@pytest.fixture(scope="module")
def tensors() -> Iterator[Stage]:
    with folder_in_memory() as root:
        (root / "partitions").mkdir()
        for name, rows in ROWS.items():
            (root / "partitions" / f"{name}.pt").write_bytes(render_tensor(np.ones((rows, 2), np.float32)))
        (root / "model.pt2").write_bytes(b"an instant model")
        spec = {
            "source": {"tensors": {"uri": str(root / "partitions"), "order": "natural"}},
            "inference": {"adapter": "torchExport", "weights": str(root / "model.pt2"), "worldSize": RANKS},
            "output": {"uri": str(root / "out"), "formats": ["parquet", "rankFiles", "pt"]},
            "sharding": {"itemsPerShard": 1},
        }
        stage = Stage(root, ForkedRuns.shared(), spec)
        log = root / "operations"
        ended = stage.run(operations=str(log))
        assert ended.status == 0, ended.stderr
        stage.undisturbed = stage.shown()
        stage.operations = tuple(log.read_text(encoding="utf-8").splitlines())
        yield stage


def points_of(operations: tuple[str, ...]) -> list[Strike]:
    """A strike before and after everything that writes results, each at the number of times it happens."""
    seen: dict[str, int] = {}
    points = []
    for name in operations:
        seen[name] = seen.get(name, 0) + 1
        if RESULTS.search(name) and not name.startswith(READS):
            points += [Strike(name, "before", seen[name]), Strike(name, "after", seen[name])]
    return points


def broken_now(stage: Stage) -> list[str]:
    """What a reader may never see, not even after a kill: a list of ranks that lacks one, half a table."""
    shown, found = stage.shown(), []
    if "results/combined_data.json" in shown:
        reports = json.loads(shown["results/combined_data.json"])
        found += [f"{len(reports)} ranks"] if len(reports) != RANKS else []
        found += [f"rank {rank} has no file" for rank in range(RANKS) if f"results/{rank}.json" not in shown]
    for key, data in shown.items():
        if key.endswith(".parquet"):
            rows = pq.read_table(io.BytesIO(data)).num_rows
            found += [f"{key} has {rows} rows"] if rows != sum(ROWS.values()) else []
    return found


def survive(stage: Stage, kills: list[Strike]) -> None:
    shutil.rmtree(stage.root / "out", ignore_errors=True)
    tokens: dict[str, str] = {}
    for kill in kills:
        ended = stage.run(kill)
        assert ended.status in (KILLED, 0), f"{kills}: status {ended.status}\n{ended.stderr}"
        assert broken_now(stage) == [], kills
        now = marker_tokens(stage.store)
        assert {key: now.get(key) for key in tokens} == tokens, f"{kills}: a marker was overwritten"
        tokens = now
    ended = stage.run()
    assert ended.status == 0, f"{kills}: status {ended.status}\n{ended.stderr}"
    assert stage.shown() == stage.undisturbed, kills


def test_undisturbed_results_are_complete_and_in_order(tensors: Stage) -> None:
    shown = tensors.undisturbed
    table = pq.read_table(io.BytesIO(shown["predictions.parquet"]))

    want = [[float(partition), float(row)] for partition, rows in enumerate(ROWS.values()) for row in range(rows)]
    assert table.column("prediction").to_pylist() == want
    assert {key for key in shown if key.startswith("predictions/")} == {f"predictions/{name}.pt" for name in ROWS}
    reports = json.loads(shown["results/combined_data.json"])
    assert [report["rows"] for report in reports] == [8, 4, 1]
    assert json.loads(shown["results/Results.json"])["rows"] == 13


def test_results_of_several_runs_are_those_of_one(tensors: Stage) -> None:
    shutil.rmtree(tensors.root / "out", ignore_errors=True)
    tensors.spec |= {"incremental": True, "maxItems": 2}
    first = tensors.run()
    of_first = json.loads((tensors.root / "out" / "results" / "combined_data.json").read_text())
    del tensors.spec["maxItems"]
    second = tensors.run()
    del tensors.spec["incremental"]

    assert (first.status, second.status) == (0, 0), first.stderr + second.stderr
    assert [report["rows"] for report in of_first] == [8]
    assert json.loads(second.stdout)["items"]["planned"] == 2
    united = {key: data for key, data in tensors.undisturbed.items() if not key.startswith("dataset/")}
    assert {key: tensors.shown()[key] for key in united} == united


@pytest.mark.parametrize("part", range(PARTS))
def test_kill_while_results_are_written_leaves_no_trace(
    part: int, tensors: Stage, chaos_length: Literal["short", "long"]
) -> None:
    points = sorted(points_of(tensors.operations), key=repr)
    assert len(points) >= 20
    rng = random.Random(SEED)
    cases = [[point] for point in points]
    cases += [[rng.choice(points) for _ in range(3)] for _ in range(4 if chaos_length == "short" else 300)]
    for kills in cases:
        if crc32(repr(kills).encode()) % PARTS == part:
            survive(tensors, kills)
