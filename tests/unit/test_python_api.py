"""Pagemill in Python: what a run left as frames, matrices and tensors; data sets; tables written by hand."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pagemill
from pagemill_core.errors import InvalidSpecError, ObjectNotFoundError
from pagemill_core.storage.folder import FolderStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_worker.embed.rows import pack
from pagemill_worker.items import ItemResult, PlannedItem
from pagemill_worker.testing.made_embeddings import MadeEmbeddings, encoded, lost, make_job, unit_row


def make_items(*names: str) -> list[PlannedItem]:
    return [PlannedItem(row, name, f"/pictures/{name}.jpg", version="v1") for row, name in enumerate(names)]


def made(folder: Path, **spec: Any) -> MadeEmbeddings:
    return MadeEmbeddings(FolderStore(folder, fsync=False), FakeClock(), make_job(**spec))


def test_read_gives_frames_and_matrices_of_what_counts_now(tmp_path: Path) -> None:
    output = made(tmp_path)
    output.finish(make_items("a", "b", "c"), lambda item: lost(item) if item.id == "b" else encoded(item))
    output.finish(make_items("d"))
    found = pagemill.read(str(tmp_path))
    assert found.run.startswith("00000002-")
    frame = found.to_pandas()
    assert list(frame["key"]) == ["a", "c", "d"]
    pd.testing.assert_frame_equal(frame, pd.read_parquet(tmp_path / "embeddings.parquet"))
    want = np.concatenate([unit_row(0), unit_row(2), unit_row(0)])
    assert np.array_equal(found.vectors(), want)
    assert found.vectors().dtype == np.float32
    assert found.to_torch().shape == (3, 8)
    assert found.to_arrow(["key"]).column_names == ["key"]
    assert [table.num_rows for table in found.batches()] == [2, 1]
    assert found.failures().column("key").to_pylist() == ["b"]


def test_read_takes_the_jobs_file_too(tmp_path: Path) -> None:
    output = made(tmp_path / "out")
    output.finish(make_items("a"))
    job = output.job.model_dump(by_alias=True, exclude_none=True, mode="json")
    job["spec"]["output"]["uri"] = "out"
    (tmp_path / "job.yaml").write_text(json.dumps(job), encoding="utf-8")
    assert list(pagemill.read(str(tmp_path / "job.yaml")).to_pandas()["key"]) == ["a"]


def test_read_of_texts_gives_their_rows_whatever_side_is_named(tmp_path: Path) -> None:
    def text(item: PlannedItem) -> ItemResult:
        facts, data = pack({"text": unit_row(item.row, 4)})
        return ItemResult(item, "succeeded", {"rows": facts, "tokens": 3, "truncated": False}, data=data)

    spec = {"source": {"texts": {"uri": "t.csv"}}, "text": {"model": {"name": "made-up"}}, "visual": None}
    output = made(tmp_path, **spec)
    output.finish(make_items("a", "b"), text)
    assert np.array_equal(pagemill.read(str(tmp_path)).vectors(), pagemill.read(str(tmp_path)).vectors("text"))


def test_read_of_a_side_that_the_job_has_not_says_what_it_has(tmp_path: Path) -> None:
    made(tmp_path).finish(make_items("a"))
    with pytest.raises(InvalidSpecError, match="has no text rows"):
        pagemill.read(str(tmp_path)).vectors("text")


def test_read_of_an_output_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFoundError, match="holds no run"):
        pagemill.read(str(tmp_path))


def test_read_of_books_gives_their_tensors(tmp_path: Path) -> None:
    def book(item: PlannedItem) -> ItemResult:
        rows = np.concatenate([unit_row(row) for row in range(3)])
        facts, data = pack({"visual": rows, "text": rows[:, :4]})
        pages = [{"name": f"{row}.png", "row": row, "status": "succeeded"} for row in range(3)]
        return ItemResult(item, "succeeded", {"rows": facts, "pages": pages}, data=data)

    books = {"uri": "books", "annotations": "books.json"}
    text = {"model": {"name": "made-up"}, "normalize": "none"}
    output = made(tmp_path, source={"books": books}, text=text, output={"uri": "out", "formats": ["bookTensors"]})
    output.finish(make_items("one#1"), book)
    found = pagemill.read(str(tmp_path))
    assert {side: tuple(tensor.shape) for side, tensor in found.book("one#1").items()} == {
        "visual": (3, 8),
        "text": (3, 4),
    }
    assert found.vectors("text").shape == (3, 4)
    assert list(found.to_pandas()["key"]) == [f"one#1/{row}.png" for row in range(3)]
    with pytest.raises(ObjectNotFoundError, match="no tensors of the book 'gone'"):
        found.book("gone")


# -- data sets --------------------------------------------------------------------------------------------------------


def make_dataset(folder: Path) -> Path:
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"picture")
    rows = {"url": [str(folder / "a.jpg"), None], "key": ["007", "008"], "caption": ["a cup", None], "width": [7, 8]}
    for name in ("00000", "00001"):
        pq.write_table(pa.table(rows), folder / f"{name}.parquet")
    return folder


def test_loader_lists_shards_and_their_samples(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "shards")
    shards = pagemill.list_shards(str(folder))
    assert shards == [f"{folder}/00000.parquet", f"{folder}/00001.parquet"]
    first, second = pagemill.load_shard(shards[0])
    assert (first.key, first.caption, first.columns["width"], first.data()) == ("007", "a cup", 7, b"picture")
    assert second.failure is not None
    assert (second.failure.error_class, second.caption) == ("RowUnusable", "")


def test_loader_streams_samples_of_all_shards_as_far_as_wanted(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "shards")
    assert [sample.key for sample in pagemill.iterate_samples(str(folder))] == ["007", "008"] * 2
    assert len(list(pagemill.iterate_samples(str(folder), max_samples=3))) == 3


def test_loader_refuses_what_is_no_shard(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpecError, match="is no shard"):
        pagemill.load_shard(str(tmp_path / "a.csv"))


# -- writing ----------------------------------------------------------------------------------------------------------


def test_writer_writes_what_the_readers_recipe_reads(tmp_path: Path) -> None:
    rows = ({"url": f"u{row}", "key": f"{row:03d}", "embedding": unit_row(row)[0], "width": row} for row in range(5000))
    assert pagemill.write_parquet(rows, str(tmp_path / "out.parquet")) == 5000
    frame = pd.read_parquet(tmp_path / "out.parquet")
    assert list(frame.columns) == ["url", "key", "caption", "embedding", "meta_width"]
    assert np.array(frame["embedding"].tolist()).shape == (5000, 8)
    assert (frame["caption"][0], frame["meta_width"][4999]) == ("", 4999)


def test_writer_refuses_vectors_of_different_lengths(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpecError, match="one and the same length"):
        pagemill.write_parquet([{"embedding": [1.0]}, {"embedding": [1.0, 2.0]}], str(tmp_path / "x.parquet"))
    assert not (tmp_path / "x.parquet").exists()


def test_writer_writes_metadata_with_numbers_of_numpy(tmp_path: Path) -> None:
    pagemill.write_json({"num_samples": np.int64(3), "model": "ü"}, str(tmp_path / "metadata.json"))
    assert json.loads((tmp_path / "metadata.json").read_text(encoding="utf-8")) == {"num_samples": 3, "model": "ü"}


def test_writer_writes_a_table_without_rows(tmp_path: Path) -> None:
    assert pagemill.write_parquet([], str(tmp_path / "none.parquet")) == 0
    assert pq.read_table(io.BytesIO((tmp_path / "none.parquet").read_bytes())).num_rows == 0


@pytest.mark.parametrize(
    ("changes", "want"),
    [({"source": "tapes"}, "source: tapes is none of"), ({"formats": ["tape"]}, "spec.output.formats")],
    ids=["source", "format"],
)
def test_process_dataset_refuses_what_no_job_could_do(tmp_path: Path, changes: dict[str, Any], want: str) -> None:
    with pytest.raises(InvalidSpecError, match=want):
        pagemill.process_dataset(str(tmp_path), str(tmp_path / "out"), "made-up", **changes)
