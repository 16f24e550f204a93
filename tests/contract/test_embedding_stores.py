"""Results of an EmbeddingJob on every store: the same files byte for byte, tables larger than one request included."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pytest

from pagemill.output import Output
from pagemill_cli.output.target import Target
from pagemill_cli.output.verify import verify_output
from pagemill_cli.settings import CliSettings
from pagemill_core.storage.folder import FolderStore
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.storage.s3 import S3Store
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.storage.store import ObjectStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.plan import read_plan
from pagemill_worker.embed.rows import pack
from pagemill_worker.finalize.part_file import crc32_of
from pagemill_worker.finalize.publish_file import publish_file
from pagemill_worker.items import ItemResult, PlannedItem
from pagemill_worker.testing.made_embeddings import MadeEmbeddings, encoded, lost, make_job

SHOWN = ("embeddings.parquet", "failures.parquet", "metadata.json", "dataset/", "visual/", "text/", "records/")


def make_items(*names: str) -> list[PlannedItem]:
    return [PlannedItem(row, name, f"/pictures/{name}.jpg", version="v1") for row, name in enumerate(names)]


def shown(store: ObjectStore) -> dict[str, bytes]:
    return {info.key: store.get(info.key).data for info in store.list("") if info.key.startswith(SHOWN)}


def run_twice(store: ObjectStore, **output: object) -> MadeEmbeddings:
    made = MadeEmbeddings(store, FakeClock(), make_job(output={"uri": "out", **output}))
    made.finish(make_items("a", "b#é", "c"), lambda item: lost(item) if item.id == "c" else encoded(item))
    made.finish(make_items("c", "d"))
    return made


@pytest.mark.s3
@pytest.mark.parametrize("files", ["Single", "Partitioned"])
def test_results_on_s3_in_a_folder_and_in_memory_are_the_same_bytes(
    files: str, s3_store: S3Store, tmp_path: Path
) -> None:
    stores: list[ObjectStore] = [MemoryStore(), FolderStore(tmp_path, fsync=False), s3_store]
    found = [shown(run_twice(store, files=files).store) for store in stores]
    assert found[0] == found[1] == found[2]
    assert found[0]["metadata.json"]


@pytest.mark.s3
def test_results_on_s3_verify_and_are_read(s3_store: S3Store) -> None:
    made = run_twice(s3_store, files="Partitioned")
    target = Target(s3_store.uri, made.writer, S3Settings(), CliSettings())
    assert [check.problems for check in verify_output(target)] == [[], []]
    (newest, _) = verify_output(target)
    pointer = read_plan(made.writer, RunLayout(newest.run))
    assert pointer is not None
    output = Output(target, pointer)
    assert list(output.to_pandas()["key"]) == ["a", "b#é", "c", "d"]
    assert output.vectors().shape == (4, 8)


@pytest.mark.s3
def test_books_on_s3_are_the_tensors_that_a_folder_has(s3_store: S3Store, tmp_path: Path) -> None:
    import torch

    def book(item: PlannedItem) -> ItemResult:
        facts, data = pack({"visual": np.ones((2, 4), np.float16), "text": np.ones((2, 3), np.float32)})
        pages = [{"name": f"{row}.png", "row": row, "status": "succeeded"} for row in range(2)]
        return ItemResult(item, "succeeded", {"rows": facts, "pages": pages}, data=data)

    spec = {
        "source": {"books": {"uri": "books", "annotations": "books.json"}},
        "text": {"model": {"name": "made-up"}, "normalize": "none"},
        "output": {"uri": "out", "formats": ["bookTensors"]},
    }
    for store in (s3_store, FolderStore(tmp_path, fsync=False)):
        MadeEmbeddings(store, FakeClock(), make_job(**spec)).finish(make_items("Crème #7/50 %…"), book)
    assert shown(s3_store) == shown(FolderStore(tmp_path))
    data = s3_store.get("visual/Crème #7/50 %….pt").data
    assert torch.equal(torch.load(io.BytesIO(data)), torch.load(tmp_path / "visual/Crème #7/50 %….pt"))


@pytest.mark.s3
def test_table_larger_than_one_request_is_written_in_parts_and_only_upwards(s3_store: S3Store, tmp_path: Path) -> None:
    made = MadeEmbeddings(s3_store, FakeClock())
    path = tmp_path / "big"
    path.write_bytes(np.random.default_rng(0).bytes(65 << 20))
    assert publish_file(made.writer, "embeddings.parquet", path, 2)
    info = s3_store.head("embeddings.parquet")
    assert info is not None
    assert (info.size, info.meta["pagemill-seq"], info.meta["pagemill-crc32"]) == (65 << 20, "2", crc32_of(path))
    assert not publish_file(made.writer, "embeddings.parquet", path, 1)


def test_table_in_a_folder_is_read_by_pandas_and_arrow_alike(tmp_path: Path) -> None:
    run_twice(FolderStore(tmp_path, fsync=False), files="Partitioned")
    frame = pd.read_parquet(tmp_path / "embeddings.parquet")
    table = ds.dataset(tmp_path / "embeddings.parquet").to_table()
    assert list(frame["key"]) == table.column("key").to_pylist() == ["a", "b#é", "c", "d"]
