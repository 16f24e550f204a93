"""An EmbeddingJob's dataset: every row with its status, vectors that are the encoder's, the source's columns typed."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pagemill_core.errors import IntegrityError
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.work.commit import crc32
from pagemill_worker.embed.rows import pack
from pagemill_worker.finalize import embedding_dataset
from pagemill_worker.finalize.embedding_dataset import NEEDED, DatasetShape, dataset_tables, side_facts
from pagemill_worker.finalize.embedding_vectors import SideFacts, list_matrix
from pagemill_worker.finalize.part_file import write_parquet
from pagemill_worker.items import ItemFailure, ItemResult, PlannedItem
from pagemill_worker.work import shard_data

FINGERPRINT = "f" * 64
KEY = "dataset/run=00000001/part-00000.parquet"
VISUAL = SideFacts("visual", 4, "float32", is_unit=True)
TEXT = SideFacts("text", 2, "float32")


def unit(row: int, dim: int = 4, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    rows = np.random.default_rng(row).standard_normal((1, dim))
    return (rows / np.linalg.norm(rows)).astype(dtype)


def make_item(row: int, **columns: Any) -> PlannedItem:
    return PlannedItem(row, f"00000#{row:09d}", f"https://host/{row}.jpg?sig=planted", version="v1", columns=columns)


def done(row: int, sides: Mapping[str, Any] | None = None, **columns: Any) -> ItemResult:
    facts, data = pack(sides or {"visual": unit(row)})
    payload = {"rows": facts, "width": 640, "height": 480, "tokens": 7, "truncated": False}
    return ItemResult(make_item(row, **columns), "succeeded", payload, version_read="v2", data=data)


def failed(row: int, **columns: Any) -> ItemResult:
    return ItemResult(make_item(row, **columns), "failed", failure=ItemFailure("ImageMissing", "gone"))


def tables(shards: Iterable[list[ItemResult]]) -> list[pa.Table]:
    encoded = [shard_data.encode(shard, FINGERPRINT) for shard in shards]
    return [shard_data.read_table(data, FINGERPRINT, "key", NEEDED) for data in encoded]


def shape_of(*sides: SideFacts, has_books: bool = False, **columns: str) -> DatasetShape:
    return DatasetShape(sides=sides or (VISUAL,), columns=columns, fingerprint=FINGERPRINT, has_books=has_books)


def write(shards: Iterable[list[ItemResult]], shape: DatasetShape) -> pa.Table:
    store = MemoryStore()
    output = write_parquet(store, KEY, dataset_tables(tables(shards), shape), shape.schema)
    data = store.get(KEY).data
    table = pq.read_table(io.BytesIO(data))
    assert (output.size, output.crc32, output.rows) == (len(data), crc32(data), len(table))
    assert table.schema.metadata[b"pagemill.fingerprint"] == FINGERPRINT.encode()
    return table


def test_dataset_has_every_row_with_its_status_and_vectors_of_successes_alone() -> None:
    shards = [[done(0), failed(1)], [ItemResult(make_item(2), "skipped"), done(3)]]
    table = write(shards, shape_of())
    rows = table.to_pylist()
    assert [(row["row"], row["status"], row["error_class"]) for row in rows] == [
        (0, "succeeded", None),
        (1, "failed", "ImageMissing"),
        (2, "skipped", None),
        (3, "succeeded", None),
    ]
    assert [row["embedding"] is None for row in rows] == [False, True, True, False]
    assert np.array_equal(np.array(rows[3]["embedding"], np.float32), unit(3)[0])
    assert (rows[0]["width_px"], rows[0]["height_px"], rows[0]["tokens"], rows[0]["truncated"]) == (640, 480, 7, False)
    assert (rows[0]["version"], rows[1]["version"]) == ("v2", "v1")
    assert rows[0]["source_uri"] == "https://host/0.jpg", "signatures stay out of what people read"
    assert table.schema.field("embedding").type == pa.list_(pa.field("element", pa.float32(), nullable=False), 4)


def test_dataset_of_successes_alone_is_a_matrix_again() -> None:
    table = write([[done(0), done(1)], [done(2)]], shape_of())
    assert np.array_equal(list_matrix(table.column("embedding")), np.concatenate([unit(row) for row in range(3)]))


def test_dataset_of_two_sides_has_two_columns_of_vectors() -> None:
    sides = {"visual": unit(5), "text": unit(6, 2)}
    rows = write([[done(0, sides), failed(1)]], shape_of(VISUAL, TEXT)).to_pylist()
    assert np.allclose(rows[0]["embedding"], unit(5)[0])
    assert np.allclose(rows[0]["text_embedding"], unit(6, 2)[0])
    assert rows[1]["text_embedding"] is None


def test_dataset_of_halves_stays_in_halves() -> None:
    side = SideFacts("text", 4, "float16", is_unit=True)
    table = write([[done(0, {"text": unit(0, 4, np.float16)}), failed(1)]], shape_of(side))
    assert table.schema.field("embedding").type.value_type == pa.float16()
    assert np.array_equal(np.array(table.to_pylist()[0]["embedding"], np.float16), unit(0, 4, np.float16)[0])


def test_dataset_keeps_the_types_of_the_sources_columns_and_null_stays_null() -> None:
    types = {"key": "string", "caption": "string", "width": "int64", "score": "double", "ok": "bool", "tag": "string"}
    full = {"key": "007", "caption": "a ☕", "width": 2**60, "score": 0.5, "ok": True, "tag": "x"}
    empty = dict.fromkeys(types)
    table = write([[done(0, **full), failed(1, **empty), done(2)]], shape_of(**types))
    rows = table.to_pylist()
    assert (rows[0]["key"], rows[0]["caption"]) == ("007", "a ☕")
    assert [rows[0][f"meta_{name}"] for name in ("width", "score", "ok", "tag")] == [2**60, 0.5, True, "x"]
    assert {rows[1][f"meta_{name}"] for name in ("width", "score", "ok", "tag")} == {None}
    assert rows[1]["key"] is None
    assert table.schema.field("meta_width").type == pa.int64()
    assert "meta_key" not in table.column_names


def test_dataset_column_of_another_type_than_planned_is_refused_by_name() -> None:
    with pytest.raises(IntegrityError, match="the column width is not of type int64"):
        write([[done(0, width="wide")]], shape_of(width="int64"))


def test_dataset_where_nothing_succeeded_is_still_a_table() -> None:
    shape = DatasetShape(sides=(), columns={}, fingerprint=FINGERPRINT)
    assert [row["embedding"] for row in write([[failed(0), failed(1)]], shape).to_pylist()] == [None, None]


def test_dataset_vectors_have_neither_dictionary_nor_statistics() -> None:
    store = MemoryStore()
    shape = shape_of()
    write_parquet(store, KEY, dataset_tables(tables([[done(row) for row in range(9)]]), shape), shape.schema)
    group = pq.ParquetFile(io.BytesIO(store.get(KEY).data)).metadata.row_group(0)
    columns = {group.column(at).path_in_schema: group.column(at) for at in range(group.num_columns)}
    vector = next(column for name, column in columns.items() if name.startswith("embedding"))
    assert vector.statistics is None
    assert not vector.has_dictionary_page
    assert vector.compression == "ZSTD"


def test_dataset_of_the_same_rows_is_the_same_bytes() -> None:
    stores = [MemoryStore(), MemoryStore()]
    for store in stores:
        shards = tables([[done(0), failed(1)], [done(2)]])
        write_parquet(store, KEY, dataset_tables(shards, shape_of()), shape_of().schema)
    assert stores[0].get(KEY).data == stores[1].get(KEY).data


@pytest.mark.parametrize(
    ("rows", "want"),
    [
        ({"visual": np.zeros((1, 4), np.float32)}, "all zero"),
        ({"visual": np.full((1, 4), np.nan, np.float32)}, "not finite"),
        ({"visual": 3 * unit(0)}, "length 1"),
        ({"visual": unit(0, 5)}, "its visual row is"),
        ({"visual": unit(0).astype(np.float16)}, "its visual row is"),
        ({"text": unit(0)}, "its visual row is"),
        ({"visual": unit(0), "text": unit(1)}, "rows of text, visual"),
        ({"visual": np.concatenate([unit(0), unit(1)])}, "its visual row is"),
    ],
    ids=["zero", "nan", "long", "dim", "dtype", "side", "more-sides", "two-rows"],
)
def test_dataset_refuses_rows_that_are_no_success(rows: Any, want: str) -> None:
    with pytest.raises(IntegrityError, match=want):
        write([[done(0), done(1, rows)]], shape_of())


def test_dataset_refuses_bytes_that_are_not_the_rows() -> None:
    good = done(1)
    cut = ItemResult(good.item, "succeeded", good.payload, data=(good.data or b"")[:-1])
    with pytest.raises(IntegrityError, match="15 bytes do not hold"):
        write([[done(0), cut]], shape_of())


# -- books -------------------------------------------------------------------------------------------------------------


def make_book(row: int, pages: int, bad: int | None = None, book: str = "Crème #7/a") -> ItemResult:
    names: list[dict[str, Any]] = []
    for number in range(pages):
        page = {"name": f"{number}.png", "row": len([one for one in names if one["row"] is not None])}
        page |= {"status": "succeeded", "ocr": "text", "tokens": 3, "truncated": number == 0}
        if number == bad:
            page |= {"status": "failed", "row": None, "errorClass": "ImageTruncated", "errorMessage": "cut"}
        names.append(page)
    good = pages - (bad is not None)
    rows = {"visual": np.arange(1, good * 4 + 1, dtype=np.float32).reshape(good, 4), "text": np.ones((good, 2), "f4")}
    facts, data = pack(rows)
    item = PlannedItem(row, book, f"s3://b/books/{book}")
    return ItemResult(item, "succeeded", {"rows": facts, "pages": names}, data=data)


BOOKS = shape_of(SideFacts("visual", 4, "float32"), TEXT, has_books=True)


def test_dataset_of_books_has_a_row_a_page_and_one_for_a_book_that_failed() -> None:
    missing = ItemResult(
        PlannedItem(1, "gone", "s3://b/books/gone"), "failed", failure=ItemFailure("BookMissing", "no")
    )
    rows = write([[make_book(0, 3, bad=1), missing], [make_book(2, 1, book="z")]], BOOKS).to_pylist()
    assert [(row["row"], row["id"], row["book"], row["page"], row["status"]) for row in rows] == [
        (0, "Crème #7/a/0.png", "Crème #7/a", 0, "succeeded"),
        (0, "Crème #7/a/1.png", "Crème #7/a", 1, "failed"),
        (0, "Crème #7/a/2.png", "Crème #7/a", 2, "succeeded"),
        (1, "gone", "gone", None, "failed"),
        (2, "z/0.png", "z", 0, "succeeded"),
    ]
    assert rows[1]["embedding"] is None
    assert rows[1]["error_class"] == "ImageTruncated"
    assert rows[2]["embedding"] == [5, 6, 7, 8], "the row after a bad page is its own"
    assert rows[2]["source_uri"] == "s3://b/books/Crème #7/a/2.png"
    assert rows[4]["text_embedding"] == [1, 1]
    assert (rows[0]["tokens"], rows[0]["truncated"]) == (3, True)


def test_dataset_of_books_whose_pages_and_rows_disagree_is_refused() -> None:
    book = make_book(0, 3)
    assert book.payload is not None
    book.payload["pages"][1]["row"], book.payload["pages"][2]["row"] = 2, 1
    with pytest.raises(IntegrityError, match="do not stand in the order"):
        write([[book]], BOOKS)


def test_side_facts_are_those_of_the_first_row_that_has_any() -> None:
    (table,) = tables([[failed(0), done(1, {"visual": unit(1), "text": unit(1, 2)})]])
    found = side_facts(table.column("payload").to_pylist(), ["visual"])
    assert found == (VISUAL, TEXT)
    assert side_facts([None], []) == ()


def test_dataset_of_books_too_large_for_memory_at_once_is_cut_between_books(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write([[make_book(row, 3, book=f"b{row}") for row in range(5)]], BOOKS).to_pylist()
    monkeypatch.setattr(embedding_dataset, "GROUP_BYTES", 2 * 3 * 6 * 4)
    shards = tables([[make_book(row, 3, book=f"b{row}") for row in range(5)]])
    pieces = list(dataset_tables(shards, BOOKS))
    assert [len(piece) for piece in pieces] == [6, 6, 3]
    assert [row for piece in pieces for row in piece.to_pylist()] == whole
