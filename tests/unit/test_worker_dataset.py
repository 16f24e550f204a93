"""The user-facing dataset: every item with its outcome, the source's own columns, the same bytes for the same rows."""

from __future__ import annotations

import datetime as dt
import io
import json
from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq
import pytest

from pagemill_core.storage.memory import MemoryStore
from pagemill_core.work.commit import crc32
from pagemill_worker.finalize.dataset import schema, write_part
from pagemill_worker.items import ItemFailure, ItemResult, PlannedItem
from pagemill_worker.ocr.engine import Region
from pagemill_worker.views.row import OcrRow, to_payload

FINISHED_AT = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
KEY = "dataset/run=00000001/part-00000.parquet"


def make_item(row: int, **columns: Any) -> PlannedItem:
    return PlannedItem(
        row=row, id=f"book/{row}", uri=f"https://host/{row}.png?sig=planted", version="v1", columns=columns
    )


def succeeded(row: int, text: str, **columns: Any) -> ItemResult:
    item = make_item(row, **columns)
    page = OcrRow(
        id=item.id,
        source_uri="s3://pages/x.png",
        status="succeeded",
        engine_name="tesseract",
        engine_version="5",
        finished_at=FINISHED_AT,
        regions=(Region(text, 0.5, (1.0, 2.0, 3.0, 4.0)), Region("more", 1.0)),
        width_px=100,
        height_px=50,
        languages=("en", "ja"),
    )
    return ItemResult(item, "succeeded", to_payload(page), version_read="v2")


def failed(row: int) -> ItemResult:
    failure = ItemFailure("ImageMissing", "Image file not found")
    return ItemResult(make_item(row), "failed", failure=failure)


def write(shards: list[list[ItemResult]], columns: tuple[str, ...] = ()) -> tuple[MemoryStore, list[dict[str, Any]]]:
    store = MemoryStore()
    output = write_part(store, KEY, shards, schema(columns, "f" * 64), columns)
    data = store.get(KEY).data
    assert (output.size, output.crc32, output.rows) == (len(data), crc32(data), sum(map(len, shards)))
    table = pq.read_table(io.BytesIO(data))
    assert table.schema.metadata[b"pagemill.fingerprint"] == b"f" * 64
    return store, table.to_pylist()


def test_dataset_has_every_item_with_its_outcome() -> None:
    _, rows = write([[succeeded(0, "one"), failed(1)], [ItemResult(make_item(2), "skipped")]])
    assert [(row["row"], row["id"], row["status"]) for row in rows] == [
        (0, "book/0", "succeeded"),
        (1, "book/1", "failed"),
        (2, "book/2", "skipped"),
    ]
    assert rows[0]["text"] == "one more"
    assert rows[0]["num_regions"] == 2
    assert rows[0]["mean_confidence"] == 0.75
    assert json.loads(rows[0]["regions"])[0]["bbox"] == [1.0, 2.0, 3.0, 4.0]
    assert rows[0]["finished_at"] == FINISHED_AT
    assert rows[0]["languages"] == ["en", "ja"]
    assert rows[0]["version"] == "v2", "what was read counts, not what was planned"
    assert (rows[1]["error_class"], rows[1]["error_message"]) == ("ImageMissing", "Image file not found")
    assert rows[1]["text"] is None
    assert rows[1]["version"] == "v1"


def test_dataset_shows_no_signatures_of_uris() -> None:
    store, _ = write([[succeeded(0, "one"), failed(1)]])
    assert b"planted" not in store.get(KEY).data


@pytest.mark.parametrize(
    ("value", "want"),
    [("text", "text"), (None, None), (7, "7"), (1.5, "1.5"), (True, "true")],
    ids=["text", "none", "int", "float", "bool"],
)
def test_dataset_carries_the_sources_own_columns_as_text(value: Any, want: str | None) -> None:
    _, rows = write([[succeeded(0, "one", caption=value), failed(1)]], ("caption",))
    assert rows[0]["meta_caption"] == want
    assert rows[1]["meta_caption"] is None


def test_dataset_column_of_the_source_named_like_ours_does_not_hide_ours() -> None:
    _, rows = write([[succeeded(0, "one", status="theirs", id="theirs")]], ("status", "id"))
    assert (rows[0]["status"], rows[0]["meta_status"]) == ("succeeded", "theirs")
    assert (rows[0]["id"], rows[0]["meta_id"]) == ("book/0", "theirs")


def test_dataset_of_the_same_rows_is_the_same_bytes() -> None:
    shards = [[succeeded(0, "one"), failed(1)], [succeeded(2, "two")]]
    first, _ = write(shards)
    second, _ = write([[replace(result) for result in shard] for shard in shards])
    assert first.get(KEY).data == second.get(KEY).data


def test_dataset_without_rows_is_still_a_table() -> None:
    _, rows = write([])
    assert rows == []
