"""Texts as items: which files, which ids, what null, empty, long and wrong values become."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pagemill_core.errors import SourceError
from pagemill_core.storage.memory import MemoryStore
from pagemill_worker.items import PlannedItem
from pagemill_worker.plan.planner import PlanResult, PlanTools, plan_source
from pagemill_worker.plan.reader import ShardReader
from pagemill_worker.plan.request import KeyRules, PlanRequest, TextsRequest

JSON_LINES = """{"text": "a", "id": "http://x//1", "n": 1}

{"text": "", "id": 2, "n": null}
{"text": null, "id": "3", "n": 0.5}
"""


def planned(request: TextsRequest, scratch: Path, store: MemoryStore) -> tuple[PlanResult, list[PlannedItem]]:
    scratch.mkdir(exist_ok=True)
    tools = PlanTools(
        open_store=lambda _: store,
        count_pages=lambda uri: pytest.fail(f"counts the pages of {uri}"),
        store=store,
        prefix="plan/x/",
        scratch=scratch,
    )
    result = plan_source(PlanRequest(source=request, keys=KeyRules(are_keys=False)), tools)
    return result, [item for _, item in ShardReader(store, result.parts).all_items()]


def parquet(columns: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def test_texts_of_json_lines_keep_ids_nulls_and_types(tmp_path: Path) -> None:
    store = MemoryStore("lib")
    store.put("t/quotes.jsonl", JSON_LINES.encode())
    result, items = planned(TextsRequest(uri="memory://lib/t/quotes.jsonl", id_column="id"), tmp_path, store)
    assert [item.id for item in items] == ["http://x//1", "2", "3"]
    assert [item.input.get("text") for item in items] == ["a", "", None]
    assert [item.failure and item.failure.error_class for item in items] == [None, None, "RowUnusable"]
    assert [item.columns["n"] for item in items] == [1, None, 0.5]
    assert result.columns == {"n": "double"}
    assert items[0].version and items[0].version != items[1].version


@pytest.mark.parametrize("name", ["q.csv", "q.csv.gz", "q.parquet", "q.jsonl"])
def test_texts_without_id_column_are_named_by_file_and_row(tmp_path: Path, name: str) -> None:
    store = MemoryStore("lib")
    forms = {
        "q.csv": b'text,n\n"a, b",1\n"",2\n',
        "q.csv.gz": gzip.compress(b'text,n\n"a, b",1\n"",2\n'),
        "q.parquet": parquet({"n": [1, 2], "text": ["a, b", ""]}),
        "q.jsonl": b'{"text": "a, b", "n": 1}\n{"text": "", "n": 2}\n',
    }
    store.put(f"t/{name}", forms[name])
    _, items = planned(TextsRequest(uri=f"memory://lib/t/{name}"), tmp_path, store)
    assert [(item.id, item.input["text"], str(item.columns["n"])) for item in items] == [
        (f"{name}#000000000", "a, b", "1"),
        (f"{name}#000000001", "", "2"),
    ]


def test_texts_of_a_folder_are_read_in_name_order_and_a_damaged_file_is_told(tmp_path: Path) -> None:
    root = tmp_path / "t"
    (root / "sub").mkdir(parents=True)
    (root / "b.parquet").write_bytes(parquet({"text": ["b"]}))
    (root / "a.jsonl").write_text('{"text": "a"}\n{"text"\n')
    (root / "sub" / "c.csv").write_text("text\nc\n")
    (root / "notes.txt").write_text("x")
    _, items = planned(TextsRequest(uri=str(root)), tmp_path / "scratch", MemoryStore("out"))
    assert [(item.id, item.failure and item.failure.error_class) for item in items] == [
        ("a.jsonl#000000000", None),
        ("a.jsonl", "PartUnreadable"),
        ("b.parquet#000000000", None),
        ("sub/c.csv#000000000", None),
    ]
    assert items[1].failure and "line 2" in items[1].failure.message


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl"])
def test_texts_missing_column_is_refused_with_those_present(tmp_path: Path, name: str) -> None:
    data = {"a.parquet": parquet({"body": ["x"]}), "a.csv": b"body\nx\n", "a.jsonl": b'{"body": "x"}\n'}[name]
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / name).write_bytes(data)
    (tmp_path / "t" / "z.csv").write_text("text\nx\n")
    with pytest.raises(SourceError, match="there is no column 'text'; the columns are 'body'") as caught:
        planned(TextsRequest(uri=str(tmp_path / "t")), tmp_path / "scratch", MemoryStore("out"))
    assert "spec.source.texts.column" in caught.value.advice


def test_texts_damaged_file_named_by_itself_ends_the_planning(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(SourceError):
        planned(TextsRequest(uri=str(tmp_path / "a.parquet")), tmp_path / "scratch", MemoryStore("out"))
    with pytest.raises(SourceError):
        planned(TextsRequest(uri=str(tmp_path / "gone.csv")), tmp_path / "scratch", MemoryStore("out"))


def test_texts_too_long_for_a_plan_are_read_where_they_lie(tmp_path: Path) -> None:
    store = MemoryStore("lib")
    store.put("t.parquet", parquet({"text": ["x" * 65_536, "y" * 65_537], "id": ["1", "2"]}))
    _, items = planned(TextsRequest(uri="memory://lib/t.parquet", id_column="id"), tmp_path, store)
    info = store.head("t.parquet")
    assert len(str(items[0].input["text"])) == 65_536
    assert dict(items[1].input) == {"column": "text", "row": 1}
    assert info and items[1].version == info.token


def test_texts_same_id_twice_is_a_repeat_only_with_the_same_text(tmp_path: Path) -> None:
    rows = [{"id": "a", "text": "x"}, {"id": "a", "text": "x"}, {"id": "a", "text": "y"}, {"id": "", "text": "z"}]
    (tmp_path / "t.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    request = TextsRequest(uri=str(tmp_path / "t.jsonl"), id_column="id")
    result, items = planned(request, tmp_path / "scratch", MemoryStore("out"))
    assert result.repeats == 1
    assert [item.failure and item.failure.error_class for item in items] == [None, "DuplicateId", "UnsafeId"]


def test_texts_of_wrong_types_and_half_surrogates(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": 7}\n{"text": ["a"]}\n{"text": "a\\ud800"}\n')
    _, items = planned(TextsRequest(uri=str(tmp_path / "t.jsonl")), tmp_path / "scratch", MemoryStore("out"))
    assert [item.failure and item.failure.error_class for item in items] == ["RowUnusable", "RowUnusable", None]
    assert items[2].input["text"] == "a\ufffd"


def test_texts_long_ones_do_not_fill_memory(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": "x" * 60_000}) + "\n" for _ in range(300)))
    result, items = planned(TextsRequest(uri=str(tmp_path / "t.jsonl")), tmp_path / "scratch", MemoryStore("out"))
    assert result.items == len(items) == 300
