"""An EmbeddingJob run again: nothing to do, what failed, what is new, what is gone, books whose pages were mended.

The real command in a fork, with encoders that cost nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import pagemill
from pagemill_cli.testing.forked_runs import Ended, ForkedRuns, folder_in_memory
from pagemill_core.storage.folder import FolderStore

NOT_FOUND = 70


@dataclass
class Job:
    """A job's file over a folder of pictures or books, and its output."""

    root: Path
    spec: dict[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.root / "job.yaml"

    @property
    def output(self) -> Path:
        return self.root / "out"

    def write(self, **changes: Any) -> None:
        spec = {
            "source": {"images": {"uri": str(self.root / "pictures")}},
            "visual": {"model": {"name": "instant"}},
            "output": {"uri": str(self.output)},
            "retries": {"maxFailedItems": "100%"},
            **self.spec,
            **changes,
        }
        job = {"apiVersion": "pagemill.dev/v1alpha1", "kind": "EmbeddingJob", "metadata": {"name": "again"}}
        self.file.write_text(json.dumps({**job, "spec": spec}), encoding="utf-8")

    def do(self, *words: str) -> Ended:
        runs = ForkedRuns.shared()
        more = ("--quiet", "-p", "1") if words[0] in ("run", "retry") else ()
        return runs.run(runs.request(*words, str(self.file), "-o", "json", *more))

    def run(self, **changes: Any) -> dict[str, Any]:
        self.write(**changes)
        return told(self.do("run"))

    def table(self) -> pd.DataFrame:
        return pd.read_parquet(self.output / "embeddings.parquet")

    def tokens(self) -> dict[str, str]:
        return {info.key: info.token for info in FolderStore(self.output).list("")}


def told(ended: Ended) -> dict[str, Any]:
    assert ended.status == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def put(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


@pytest.fixture
def pictures() -> Iterator[Job]:
    with folder_in_memory() as root:
        for name in "abc":
            put(root / "pictures" / f"{name}.png", f"picture {name}")
        yield Job(root)


@pytest.fixture
def books() -> Iterator[Job]:
    with folder_in_memory() as root:
        for name in ("one", "two"):
            put(root / "books" / name / "p1.png", f"page of {name}")
        put(root / "books.json", json.dumps([{"hash_code": name} for name in ("one", "two", "late")]))
        source = {"uri": str(root / "books"), "annotations": str(root / "books.json")}
        output = {"uri": str(root / "out"), "formats": ["bookTensors", "parquet"]}
        yield Job(root, {"source": {"books": source}, "text": {"model": {"name": "instant"}}, "output": output})


def test_run_again_does_nothing_and_rewrites_nothing(pictures: Job) -> None:
    assert pictures.run()["items"]["succeeded"] == 3
    before = pictures.tokens()
    again = pictures.run()
    assert (again["worked"], again["items"]["succeeded"]) == (False, 3)
    assert pictures.tokens() == before


def test_retry_of_a_mended_manifest_row_completes_the_table(pictures: Job) -> None:
    manifest = pictures.root / "list.csv"
    rows = [f"{name},{pictures.root}/pictures/{name}.png" for name in "abd"]
    manifest.write_text("\n".join(["canonical_id,absolute_image_path", *rows]) + "\n", encoding="utf-8")
    assert pictures.run(source={"manifest": {"uri": str(manifest)}})["failedByClass"] == {"ImageMissing": 1}
    assert list(pictures.table()["key"]) == ["a", "b"]
    put(pictures.root / "pictures" / "d.png", "picture d")
    assert told(pictures.do("retry", "--failed"))["items"]["succeeded"] == 1
    assert list(pictures.table()["key"]) == ["a", "b", "d"]
    assert len(pd.read_parquet(pictures.output / "failures.parquet")) == 0
    assert told(pictures.do("verify"))["ok"]


def test_incremental_run_adds_what_is_new_takes_what_changed_and_drops_what_is_gone(pictures: Job) -> None:
    pictures.run(incremental=True)
    first = pictures.table().set_index("key")["embedding"]
    put(pictures.root / "pictures" / "d.png", "picture d")
    put(pictures.root / "pictures" / "b.png", "another picture b")
    (pictures.root / "pictures" / "c.png").unlink()
    done = pictures.run(incremental=True)
    assert done["items"]["planned"] == 2, "b and d"
    table = pictures.table().set_index("key")["embedding"]
    assert sorted(table.index) == ["a", "b", "d"]
    assert list(table["a"]) == list(first["a"])
    assert list(table["b"]) != list(first["b"])
    assert sorted(pagemill.read(str(pictures.output)).to_pandas()["key"]) == ["a", "b", "d"]
    assert told(pictures.do("verify"))["ok"]


def test_run_of_another_model_on_the_same_output_is_refused_and_nothing_is_overwritten(pictures: Job) -> None:
    pictures.run()
    before = pictures.tokens()
    pictures.write(visual={"model": {"name": "another"}})
    ended = pictures.do("run")
    assert ended.status != 0
    assert "OutputInUse" in ended.stderr
    assert "instant" in ended.stderr
    assert "another" in ended.stderr
    assert {key: token for key, token in pictures.tokens().items() if key in before and "/runs/" not in key} == {
        key: token for key, token in before.items() if "/runs/" not in key
    }


def test_book_that_was_missing_is_retried_as_the_book_it_is(books: Job) -> None:
    assert books.run()["failedByClass"] == {"BookMissing": 1}
    record = json.loads((books.output / "records" / "late.json").read_text(encoding="utf-8"))
    assert record["status"] == "missing_directory"
    put(books.root / "books" / "late" / "p1.png", "page of late")
    assert told(books.do("retry", "--failed"))["items"]["succeeded"] == 1
    record = json.loads((books.output / "records" / "late.json").read_text(encoding="utf-8"))
    assert (record["status"], record["visual_shape"], record["text_shape"]) == ("success", [1, 6], [1, 4])
    assert list(books.table()["key"]) == ["one/p1.png", "two/p1.png", "late/p1.png"]
    found = pagemill.read(str(books.output))
    assert found.book("late")["visual"].shape == (1, 6)
    assert told(books.do("verify"))["ok"]
    assert {info["status"] for info in map(json.loads, _records(books))} == {"success"}


def test_cat_of_a_book_and_of_one_that_failed(books: Job) -> None:
    books.run()
    runs = ForkedRuns.shared()
    one = runs.run(runs.request("cat", "one", str(books.output)))
    assert json.loads(one.stdout)["vectors"]["text"]["shape"] == [1, 4]
    late = runs.run(runs.request("cat", "late", str(books.output)))
    assert (late.status, "BookMissing" in late.stderr) == (NOT_FOUND, True)


def _records(job: Job) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted((job.output / "records").glob("*.json"))]
