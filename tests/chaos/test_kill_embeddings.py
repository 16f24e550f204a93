"""kill -9 while the results of an EmbeddingJob are written: between the tensors of a book, in the merge, in the index.

The real command runs in a fork with instant encoders. What a reader may see at any moment is checked right after each
kill; at the end nobody can tell that anything happened.
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

import pyarrow.parquet as pq
import pytest

from pagemill_cli.testing.forked_runs import Ended, ForkedRuns, folder_in_memory
from pagemill_cli.testing.promises import marker_tokens, newest_run
from pagemill_cli.testing.strikes import Strike
from pagemill_core.storage.folder import FolderStore

SEED = 20260102
KILLED = -9
PARTS = 3
READS = ("get ", "get_range ", "list ", "head ")
RESULTS = re.compile(r" (visual|text|records|dataset|summary|embeddings|failures|metadata|report|\.pagemill/index)")
SHOWN = ("visual/", "text/", "records/", "dataset/", "embeddings.parquet", "failures.parquet", "metadata.json")
BOOKS = {"one": ["a", "b", "c"], "Crème #2": ["d", "bad"], "three": ["e"], "four": ["f", "g"]}


@dataclass
class Stage:
    """A job with its folder, and how its results look undisturbed."""

    root: Path
    runs: ForkedRuns
    spec: dict[str, Any]
    name: str = "job"
    undisturbed: dict[str, bytes] = field(default_factory=dict)
    operations: tuple[str, ...] = ()

    @property
    def store(self) -> FolderStore:
        return FolderStore(self.root / "out", fsync=False)

    def run(self, *strikes: Strike, operations: str = "") -> Ended:
        job = {"apiVersion": "pagemill.dev/v1alpha1", "kind": "EmbeddingJob", "metadata": {"name": "chaos"}}
        file = self.root / f"{self.name}.yaml"
        file.write_text(json.dumps({**job, "spec": self.spec}), encoding="utf-8")
        plain = self.runs.request("run", str(file), "--quiet", "--output", "json", "-p", "1")
        return self.runs.run(replace(plain, strikes=strikes, operations=operations))

    def clear(self) -> None:
        shutil.rmtree(self.root / "out", ignore_errors=True)

    def shown(self) -> dict[str, bytes]:
        """What users see, less the instants that differ from run to run."""
        found = {}
        for info in self.store.list(""):
            if info.key.startswith(SHOWN):
                data = self.store.get(info.key).data
                found[info.key] = _without_time(data) if info.key == "metadata.json" else data
        return found

    def settle(self) -> None:
        """Run undisturbed, and remember what happened and what came of it."""
        log = self.root / "operations"
        ended = self.run(operations=str(log))
        assert ended.status == 0, ended.stderr
        self.undisturbed = self.shown()
        self.operations = tuple(log.read_text(encoding="utf-8").splitlines())
        log.unlink()


def _without_time(data: bytes) -> bytes:
    facts = json.loads(data)
    facts.pop("timestamp")
    return json.dumps(facts).encode()


def encoder(name: str) -> dict[str, Any]:
    return {"model": {"name": name}}


def spec_of(root: Path, source: dict[str, Any], *formats: str) -> dict[str, Any]:
    return {
        "source": source,
        "visual": encoder("instant"),
        "output": {"uri": str(root / "out"), "formats": list(formats)},
        "sharding": {"itemsPerShard": 2},
        "retries": {"maxFailedItems": "100%"},
    }


@pytest.fixture(scope="module")
def books() -> Iterator[Stage]:
    with folder_in_memory() as root:
        for name, pages in BOOKS.items():
            (root / "books" / name).mkdir(parents=True)
            for number, content in enumerate(pages):
                (root / "books" / name / f"page_{number}.png").write_text(content, encoding="utf-8")
        listed = [{"hash_code": name} for name in (*BOOKS, "gone", "../outside")]
        (root / "books.json").write_text(json.dumps(listed), encoding="utf-8")
        source = {"uri": str(root / "books"), "annotations": str(root / "books.json"), "badPages": "Drop"}
        spec = spec_of(root, {"books": source}, "bookTensors", "parquet")
        stage = Stage(root, ForkedRuns.shared(), {**spec, "text": encoder("instant-text")})
        stage.settle()
        yield stage


@pytest.fixture
def pictures() -> Iterator[Stage]:
    with folder_in_memory() as root:
        (root / "pictures").mkdir()
        for number in range(5):
            (root / "pictures" / f"p{number}.png").write_text(f"picture {number}", encoding="utf-8")
        yield Stage(root, ForkedRuns.shared(), spec_of(root, {"images": {"uri": str(root / "pictures")}}, "parquet"))


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
    """What a reader may never see, not even after a kill: half a book that says it is whole, half a table."""
    found = []
    shown = stage.shown()
    for key, data in shown.items():
        if key.startswith("records/"):
            record = json.loads(data)
            sides = [record.get("visual_key"), record.get("text_key")] if record["status"] == "success" else []
            found += [f"{key} names {side}, which is not there" for side in sides if side not in shown]
        elif key.endswith(".parquet"):
            pq.read_table(io.BytesIO(data))
    return found


def survive(stage: Stage, kills: list[Strike]) -> None:
    stage.clear()
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
    if len(kills) > 1:
        checked = stage.runs.run(stage.runs.request("verify", str(stage.root / "out"), "-o", "json"))
        assert json.loads(checked.stdout)["ok"], f"{kills}: {checked.stdout}{checked.stderr}"


def test_books_have_both_sides_or_neither_and_every_listed_book_a_record(books: Stage) -> None:
    shown = books.undisturbed
    written = {key.removesuffix(".pt").partition("/")[2] for key in shown if key.startswith("visual/")}
    assert written == set(BOOKS)
    assert {key for key in shown if key.startswith("text/")} == {f"text/{name}.pt" for name in BOOKS}
    statuses = {key: json.loads(shown[key])["status"] for key in shown if key.startswith("records/")}
    assert statuses == {
        **{f"records/{name}.json": "success" for name in BOOKS},
        "records/gone.json": "missing_directory",
    }
    assert json.loads(shown["records/Crème #2.json"])["pagemill"]["page_index"] == [0]


@pytest.mark.parametrize("part", range(PARTS))
def test_kill_while_results_are_written_leaves_no_trace(
    part: int, books: Stage, chaos_length: Literal["short", "long"]
) -> None:
    points = sorted(points_of(books.operations), key=repr)
    assert len(points) >= 40
    rng = random.Random(SEED)
    cases = [[point] for point in points]
    cases += [[rng.choice(points) for _ in range(3)] for _ in range(6 if chaos_length == "short" else 500)]
    for kills in cases:
        if crc32(repr(kills).encode()) % PARTS == part:
            survive(books, kills)


def test_kill_in_the_merge_of_a_second_run_leaves_the_old_table_or_the_new_one(pictures: Stage) -> None:
    pictures.spec["maxItems"] = 2
    pictures.settle()
    old = pictures.undisturbed["embeddings.parquet"]
    shutil.copytree(pictures.root / "out", pictures.root / "first")
    del pictures.spec["maxItems"]
    pictures.settle()
    new = pictures.undisturbed["embeddings.parquet"]
    assert [row["key"] for row in pq.read_table(io.BytesIO(new)).to_pylist()] == [f"p{number}" for number in range(5)]
    points = [point for point in points_of(pictures.operations) if "embeddings" in point.point]
    assert points
    for point in points:
        pictures.clear()
        shutil.copytree(pictures.root / "first", pictures.root / "out")
        assert pictures.run(point).status == KILLED
        assert pictures.store.get("embeddings.parquet").data in (old, new)
        assert pictures.run().status == 0
        assert pictures.shown() == pictures.undisturbed
        assert newest_run(pictures.store).seq == 2
