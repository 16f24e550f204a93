"""embeddings.parquet, failures.parquet and metadata.json: read as their readers do, over one run and over several."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pagemill_core.storage.folder import FolderStore
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.storage.store import ObjectStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.work.records import Totals
from pagemill_core.work.tracker import Tracker
from pagemill_worker.finalize.embedding import EmbeddingKind
from pagemill_worker.finalize.publish_file import publish_file
from pagemill_worker.items import ItemFailure, ItemResult, PlannedItem
from pagemill_worker.testing.made_embeddings import MadeEmbeddings, encoded, lost, make_job, unit_row

COLUMNS = {"url": "string", "key": "string", "caption": "string", "width": "int64"}


def make_items(*names: str, version: str = "v1", **columns: Any) -> list[PlannedItem]:
    return [
        PlannedItem(row, name, f"/pictures/{name}.jpg", version=version, columns=columns)
        for row, name in enumerate(names)
    ]


def made(store: ObjectStore | None = None, **output: Any) -> MadeEmbeddings:
    job = make_job(output={"uri": "out", **output})
    return MadeEmbeddings(store or MemoryStore(), FakeClock(), job)


def all_but(*names: str) -> Callable[[PlannedItem], ItemResult]:
    return lambda item: lost(item) if item.id in names else encoded(item)


def table_of(output: MadeEmbeddings, key: str = "embeddings.parquet") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(output.store.get(key).data)).to_pylist()
    return rows


def folder_of(output: MadeEmbeddings) -> list[dict[str, Any]]:
    keys = sorted(info.key for info in output.store.list("embeddings.parquet/"))
    return [row for key in keys for row in table_of(output, key)]


def metadata_of(output: MadeEmbeddings) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output.store.get("metadata.json").data)
    return found


def test_table_holds_successes_in_input_order_and_failures_stand_apart() -> None:
    output = made()
    output.finish(make_items("a", "b", "c", "d", "e"), all_but("b", "e"))
    rows = table_of(output)
    assert [row["key"] for row in rows] == ["a", "c", "d"]
    assert [row["url"] for row in rows] == ["/pictures/a.jpg", "/pictures/c.jpg", "/pictures/d.jpg"]
    assert np.array_equal(np.array([row["embedding"] for row in rows], np.float32)[1], unit_row(2)[0])
    failures = table_of(output, "failures.parquet")
    assert [(row["key"], row["url"], row["reason"], row["row"], row["run"]) for row in failures] == [
        ("b", "/pictures/b.jpg", "ImageMissing", 1, 1),
        ("e", "/pictures/e.jpg", "ImageMissing", 4, 1),
    ]
    facts = metadata_of(output)
    assert (facts["num_samples"], facts["failed"], facts["considered"], facts["max_items"]) == (3, 2, 5, None)
    assert (facts["model"], facts["dim"], facts["dtype"], facts["normalized"]) == ("made-up", 8, "float32", True)
    assert facts["timestamp"] == FakeClock().now().timestamp()
    assert facts["fingerprint"] == output.fingerprint


def test_table_is_read_by_the_recipe_that_readers_have(tmp_path: Path) -> None:
    output = made(FolderStore(tmp_path / "out", fsync=False))
    output.finish(make_items("a", "b", "c"))
    frame = pd.read_parquet(tmp_path / "out" / "embeddings.parquet")
    assert list(frame.columns) == ["url", "key", "caption", "embedding"]
    assert len(frame["embedding"][0]) == 8
    matrix = np.array(frame["embedding"].tolist())
    assert matrix.shape == (3, 8)
    assert matrix.dtype == np.float32
    assert np.allclose(np.linalg.norm(matrix, axis=1), 1, atol=1e-6)


def test_table_carries_the_sources_columns_with_their_types_and_values() -> None:
    output = made()
    items = make_items("000#0", url="https://h/x.jpg?a=1", key="007", caption="a ☕", width=2**60)
    items += [PlannedItem(1, "000#1", "/p/1.jpg", columns={"url": None, "key": "007", "caption": None, "width": None})]
    output.finish(items, columns=COLUMNS)
    first, second = table_of(output)
    assert (first["url"], first["key"], first["caption"], first["meta_width"]) == (
        "https://h/x.jpg?a=1",
        "007",
        "a ☕",
        2**60,
    )
    assert (second["url"], second["key"], second["caption"], second["meta_width"]) == ("/p/1.jpg", "007", None, None)
    assert "meta_url" not in first


def test_table_of_a_data_set_has_its_urls_verbatim_and_no_signature_elsewhere() -> None:
    output = MadeEmbeddings(MemoryStore(), FakeClock(), make_job(source={"dataset": {"uri": "shards"}}))
    items = [PlannedItem(row, f"00000#{row}", f"https://h/{row}.jpg?size=large#top") for row in range(2)]
    output.finish(items, all_but("00000#1"))
    assert [row["url"] for row in table_of(output)] == ["https://h/0.jpg?size=large#top"]
    assert [row["url"] for row in table_of(output, "failures.parquet")] == ["https://h/1.jpg?size=large#top"]
    (part,) = output.store.list("dataset/")
    rows = table_of(output, part.key)
    assert [row["source_uri"] for row in rows] == ["https://h/0.jpg", "https://h/1.jpg"]


def test_table_of_a_source_without_captions_has_empty_ones() -> None:
    output = made()
    output.finish(make_items("a"))
    assert table_of(output)[0]["caption"] == ""


def test_table_where_nothing_succeeded_has_no_rows() -> None:
    output = made()
    output.finish(make_items("a", "b"), lost)
    assert table_of(output) == []
    assert (metadata_of(output)["num_samples"], metadata_of(output)["failed"]) == (0, 2)


def test_table_without_items_is_a_table() -> None:
    output = made()
    output.finish([])
    assert table_of(output) == []
    assert metadata_of(output)["considered"] == 0


@pytest.mark.parametrize("files", ["Single", "Partitioned"])
def test_table_over_several_runs_has_the_newest_row_of_each_item(files: str) -> None:
    output = made(files=files)
    output.finish(make_items("a", "b", "c", "d"), all_but("d"))
    newer = [PlannedItem(row, name, f"/new/{name}.jpg", version="v2") for row, name in enumerate("bde")]
    output.finish(newer, lambda item: encoded(PlannedItem(item.row, item.id, item.uri, version="v2")))
    rows = table_of(output) if files == "Single" else folder_of(output)
    assert [(row["key"], row["url"]) for row in rows] == [
        ("a", "/pictures/a.jpg"),
        ("c", "/pictures/c.jpg"),
        ("b", "/new/b.jpg"),
        ("d", "/new/d.jpg"),
        ("e", "/new/e.jpg"),
    ]
    assert table_of(output, "failures.parquet") == [], "d succeeded since"


def test_table_keeps_an_older_success_of_what_failed_again_unchanged() -> None:
    output = made(files="Single")
    output.finish(make_items("a", "b"))
    output.finish(make_items("a"), lost)
    assert [row["key"] for row in table_of(output)] == ["a", "b"]
    assert table_of(output, "failures.parquet") == []


def test_table_loses_the_row_of_what_changed_and_failed_since() -> None:
    output = made(files="Single")
    output.finish(make_items("a", "b"), lambda item: encoded(item, version="v1"))
    output.finish(make_items("a", version="v2"), lost)
    assert [row["key"] for row in table_of(output)] == ["b"]
    assert [(row["key"], row["run"]) for row in table_of(output, "failures.parquet")] == [("a", 2)]


def test_table_names_rows_that_repeat_an_id_among_the_failures() -> None:
    output = made(files="Single")

    def outcome(item: PlannedItem) -> ItemResult:
        return ItemResult(item, "failed", failure=item.failure) if item.failure else encoded(item)

    twice = [
        *make_items("a", "b"),
        PlannedItem(2, "a", "/other/a.jpg", failure=ItemFailure("DuplicateId", "line 3 repeats line 1")),
    ]
    output.finish(twice, outcome)
    output.finish(make_items("c"))
    assert [row["key"] for row in table_of(output)] == ["a", "b", "c"]
    assert [row["reason"] for row in table_of(output, "failures.parquet")] == ["DuplicateId"]


def test_table_of_another_fingerprint_is_not_mixed_in() -> None:
    store = MemoryStore()
    made(store).finish(make_items("a", "b"))
    other = MadeEmbeddings(store, FakeClock(), fingerprint="e" * 64)
    other.finish(make_items("c"), lambda item: encoded(item, dim=4))
    assert [row["key"] for row in table_of(other)] == ["c"]


def test_table_partitioned_is_read_by_the_same_call_and_whole_parts_are_left_alone(tmp_path: Path) -> None:
    output = made(FolderStore(tmp_path / "out", fsync=False), files="Partitioned")
    output.finish(make_items("a", "b", "c"))
    before = {info.key: info.token for info in output.store.list("embeddings.parquet/")}
    output.finish(make_items("d", "e"))
    after = {info.key: info.token for info in output.store.list("embeddings.parquet/")}
    assert before.items() <= after.items()
    frame = pd.read_parquet(tmp_path / "out" / "embeddings.parquet")
    assert list(frame["key"]) == ["a", "b", "c", "d", "e"]
    assert np.array(frame["embedding"].tolist()).shape == (5, 8)
    assert metadata_of(output)["files"] == sorted(after)


def test_table_beyond_the_size_of_a_single_file_becomes_a_folder_and_a_file_again(
    tmp_path: Path,
) -> None:
    output = made(FolderStore(tmp_path / "out", fsync=False))
    output.finish(make_items("a", "b"))
    assert (tmp_path / "out" / "embeddings.parquet").is_file()
    output.single_bytes = 2 * 8 * 4
    output.finish(make_items("c"))
    assert (tmp_path / "out" / "embeddings.parquet").is_dir()
    assert list(pd.read_parquet(tmp_path / "out" / "embeddings.parquet")["key"]) == ["a", "b", "c"]
    output.single_bytes *= 2
    output.finish(make_items("d"))
    assert (tmp_path / "out" / "embeddings.parquet").is_file()
    assert list(pd.read_parquet(tmp_path / "out" / "embeddings.parquet")["key"]) == ["a", "b", "c", "d"]


def test_table_by_a_late_finalizer_is_the_same_bytes_and_an_older_one_changes_nothing() -> None:
    output = made(files="Single")
    held = output.claim()
    kind = output.plan(held, make_items("a", "b"), {})
    output.commit_all(kind, encoded)
    output.end(held, kind)
    names = ("embeddings.parquet", "failures.parquet", "metadata.json", "report.html")
    before = [output.store.get(name) for name in names]
    kind.write_merged(kind.pointer, totals_of(output, kind))
    assert [output.store.get(name).token for name in names] == [blob.token for blob in before]
    output.finish(make_items("c"))
    newer = [output.store.get(name).data for name in names]
    kind.write_merged(kind.pointer, totals_of(output, kind))
    assert [output.store.get(name).data for name in names] == newer


def totals_of(output: MadeEmbeddings, kind: EmbeddingKind) -> Totals:
    return Tracker(output.writer, kind.layout, kind.pointer.shards).poll()


def test_large_file_is_published_upwards_only(tmp_path: Path) -> None:
    output = made()
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert publish_file(output.writer, "big", path, 3, max_conditional=10)
    token = output.store.get("big").token
    assert publish_file(output.writer, "big", path, 3, max_conditional=10)
    assert output.store.get("big").token == token, "the same bytes of the same run are not written again"
    path.write_bytes(b"y" * 100)
    assert not publish_file(output.writer, "big", path, 2, max_conditional=10)
    assert output.store.get("big").data == b"x" * 100
    assert publish_file(output.writer, "big", path, 4, max_conditional=10)
    assert output.store.get("big").data == b"y" * 100
