"""Manifests in every form that the contract names: rows come back as written, or the first bad line is named."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from pagemill_core.errors import PreconditionFailedError, SourceError
from pagemill_core.storage.memory import MemoryStore
from pagemill_worker.plan import csv_rows, source_bytes, text_lines
from pagemill_worker.plan.manifest import Manifest
from pagemill_worker.plan.request import ManifestRequest
from pagemill_worker.plan.rows import ManifestRow
from pagemill_worker.plan.source_bytes import open_source

HEADER = b"canonical_id,absolute_image_path\n"


def read(data: bytes, name: str = "m.csv", **options: str) -> tuple[list[ManifestRow], dict[str, str]]:
    store = MemoryStore("lib")
    store.put(name, data)
    request = ManifestRequest(uri=f"memory://lib/{name}", **options)  # type: ignore[arg-type]
    with open_source(request.uri, lambda _: store) as source:
        manifest = Manifest(request, source)
        return [row for batch in manifest.batches() for row in batch.rows()], manifest.columns


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"canonical_id,absolute_image_path\na,1.png\nb,2.png\n", id="plain"),
        pytest.param(b"\xef\xbb\xbfcanonical_id,absolute_image_path\na,1.png\nb,2.png\n", id="bom"),
        pytest.param(b"canonical_id,absolute_image_path\r\na,1.png\r\nb,2.png\r\n", id="crlf"),
        pytest.param(b"canonical_id,absolute_image_path\ra,1.png\rb,2.png\r", id="cr"),
        pytest.param(b"canonical_id,absolute_image_path\na,1.png\nb,2.png", id="no-last-line-end"),
        pytest.param(b"absolute_image_path,canonical_id\n1.png,a\n2.png,b\n", id="reordered"),
        pytest.param(b'"canonical_id","absolute_image_path"\n"a","1.png"\n"b","2.png"\n', id="all-quoted"),
        pytest.param(b"\n\ncanonical_id,absolute_image_path\n\na,1.png\n\r\nb,2.png\n\n", id="blank-lines"),
    ],
)
def test_manifest_csv_written_differently_gives_the_same_rows(data: bytes) -> None:
    rows, columns = read(data)
    assert [(row.id, row.path, dict(row.columns)) for row in rows] == [("a", "1.png", {}), ("b", "2.png", {})]
    assert columns == {}


def test_manifest_csv_quoted_line_ends_keep_cells_and_line_numbers() -> None:
    rows, _ = read(b'canonical_id,absolute_image_path,note\na,1.png,"two\r\nlines, ""so"""\nb,2.png,\n')
    assert rows[0].columns == {"note": 'two\r\nlines, "so"'}
    assert [(row.line, row.id) for row in rows] == [(2, "a"), (4, "b")]


def test_manifest_csv_extra_columns_come_along_verbatim() -> None:
    data = "canonical_id,100 %,absolute_image_path,né\n0001,%s,é.png,日本\n".encode()
    rows, columns = read(data)
    assert rows == [ManifestRow(2, "0001", "é.png", {"100 %": "%s", "né": "日本"})]
    assert columns == {"100 %": "string", "né": "string"}


def test_manifest_csv_columns_without_a_name_are_called_by_their_place() -> None:
    rows, _ = read(b"canonical_id,absolute_image_path,,\na,1.png,x,y\n")
    assert rows[0].columns == {"column_3": "x", "column_4": "y"}


@pytest.mark.parametrize(
    ("data", "want"),
    [
        pytest.param(b"", r"line 1: the manifest is empty", id="no-bytes"),
        pytest.param(b"\xef\xbb\xbf\n\n", r"line 1: the manifest is empty", id="blank"),
        pytest.param(
            b"id,path\n", r"line 1: there is no column 'canonical_id'; the columns are 'id', 'path'", id="no-id-column"
        ),
        pytest.param(b"canonical_id,p\n", r"no column 'absolute_image_path'; .* 'canonical_id', 'p'", id="no-path"),
        pytest.param(
            b"canonical_id;absolute_image_path\n",
            r"the columns are 'canonical_id;absolute_image_path'",
            id="semicolons",
        ),
        pytest.param(
            b"canonical_id,x,absolute_image_path,x\n", r"line 1: the column 'x' .* more than once", id="twice"
        ),
        pytest.param(HEADER + b"a,1\nb\nc,3\n", r"line 3 has 1 cells, the header has 2", id="too-few"),
        pytest.param(HEADER + b'a,"1\n2"\nb,2,3\n', r"line 4 has 3 cells, the header has 2", id="too-many"),
        pytest.param(HEADER + b"a,1\nb,\xff\n", r"line 3 is not UTF-8 \(byte 0xff\)", id="latin-1"),
        pytest.param(HEADER + b"a,1\nb,\xe3\x81", r"line 3 is not UTF-8", id="cut-character"),
        pytest.param(HEADER + b"a,1\nb\n\n\xff", r"line 3 has 1 cells", id="ragged-before-bad-byte"),
        pytest.param("canonical_id,x\n".encode("utf-16"), r"line 1 is UTF-16", id="utf-16"),
        pytest.param(HEADER + b"a,1\0\n", r"line 2 holds a NUL byte", id="nul"),
        pytest.param(HEADER + b'a,1\nb,"2\nc,3\n', r"line 3: a double quote is opened here", id="open-quote"),
        pytest.param(HEADER + b'a,"1"2\n', r"line 2: ", id="text-after-quote"),
        pytest.param(
            HEADER + b'a,"' + b"x" * 140_000 + b'"\n', r"line 2: a cell is longer than 131,072", id="huge-cell"
        ),
    ],
)
def test_manifest_csv_malformed_names_the_first_bad_line(data: bytes, want: str) -> None:
    with pytest.raises(SourceError, match=want):
        read(data)


def test_manifest_csv_with_header_alone_has_no_rows() -> None:
    assert read(HEADER) == ([], {})


def test_manifest_csv_endless_line_is_refused_without_holding_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_lines, "MAX_LINE_CHARS", 50)
    lines = text_lines.read_lines(iter([b"ok\n", *[b"x" * 20] * 100]), "m.csv")
    with pytest.raises(SourceError, match="line 2 is longer than 50 characters"):
        list(lines)


def test_manifest_csv_endless_row_is_refused_without_holding_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_rows, "MAX_ROW_CHARS", 100)

    def endless() -> Iterator[list[str]]:
        yield ["canonical_id,absolute_image_path\n"]
        yield ['"a\n']
        for _ in range(1000):
            yield ['b","a\n']

    table = csv_rows.CsvTable(endless(), ManifestRequest(uri="m.csv"))
    with pytest.raises(SourceError, match="line 2: the row from here on is longer than 100 characters"):
        list(table.batches())


def test_manifest_json_lines_keep_types_and_nested_values() -> None:
    lines = [
        {"absolute_image_path": "1.png", "canonical_id": "a", "n": 12345678901234567890, "f": 0.1, "t": True},
        {"canonical_id": 7, "absolute_image_path": None, "tags": ["x", {"y": None}]},
    ]
    data = "".join(f"{json.dumps(line)}\r\n" for line in lines) + "\n  \n"
    rows, columns = read(data.encode(), "m.jsonl")
    assert rows == [
        ManifestRow(1, "a", "1.png", {"n": 12345678901234567890, "f": 0.1, "t": True}),
        ManifestRow(2, "7", "", {"tags": '["x",{"y":null}]'}),
    ]
    assert set(columns) == {"n", "f", "t", "tags"}


@pytest.mark.parametrize(
    ("data", "want"),
    [
        pytest.param(b'{"canonical_id": "a"}\n', r"line 1: there is no column 'absolute_image_path'", id="missing"),
        pytest.param(b"\n[1]\n", r"line 2 is not a JSON object", id="array"),
        pytest.param(b'{"a":1,"a":2}\n', r"line 1 is not a JSON object: a name stands in one object twice", id="twice"),
        pytest.param(b'{"canonical_id": NaN}\n', r"line 1 is not a JSON object: NaN is not JSON", id="nan"),
        pytest.param(b"{" * 100_000, r"line 1 is not a JSON object", id="deep"),
        pytest.param(b'{"x":' * 100_000, r"line 1 is not a JSON object", id="deeper"),
        pytest.param(
            b'{"canonical_id": 1.5, "absolute_image_path": "x"}\n', r"line 1: 'canonical_id' is a float", id="float-id"
        ),
        pytest.param(
            b'{"canonical_id": "a", "absolute_image_path": "x", "n": 1e999}\n', r"line 1: a number", id="infinite"
        ),
        pytest.param(b'{"canonical_id": "a", "absolute_image_path": "x"}\n\xff', r"line 2 is not UTF-8", id="bytes"),
    ],
)
def test_manifest_json_lines_malformed_names_the_first_bad_line(data: bytes, want: str) -> None:
    with pytest.raises(SourceError, match=want):
        read(data, "m.jsonl")


def test_manifest_json_lines_empty_has_no_rows() -> None:
    assert read(b"", "m.jsonl") == ([], {})


def test_manifest_parquet_keeps_values_and_types() -> None:
    table = pa.table(
        {
            "n": pa.array([1, None], pa.int64()),
            "absolute_image_path": pa.array(["1.png", "2.png"], pa.large_string()),
            "canonical_id": pa.array(["a", None]).dictionary_encode(),
            "at": pa.array([datetime(2026, 1, 2, 3, 4, 5, 6, UTC), None], pa.timestamp("ns", "UTC")),
            "day": pa.array([date(2026, 1, 2), None]),
            "price": pa.array([Decimal("1.50"), None]),
            "raw": pa.array([b"\xff\0", None]),
            "box": pa.array([[1, 2], None]),
        }
    )
    rows, columns = read(parquet(table), "m.parquet")
    assert rows[0] == ManifestRow(
        1,
        "a",
        "1.png",
        {
            "n": 1,
            "at": "2026-01-02 03:04:05.000006000Z",
            "day": "2026-01-02",
            "price": "1.50",
            "raw": "/wA=",
            "box": "[1,2]",
        },
    )
    assert (rows[1].line, rows[1].id, set(rows[1].columns.values())) == (2, "", {None})
    assert columns["n"] == "int64"
    assert columns["at"] == "string"


def test_manifest_parquet_by_its_first_bytes_is_recognised() -> None:
    table = pa.table({"canonical_id": ["a"], "absolute_image_path": ["1.png"]})
    assert [row.id for row in read(parquet(table), "manifest")[0]] == ["a"]


def test_manifest_parquet_larger_than_a_batch_keeps_order() -> None:
    ids = [f"p{number}" for number in range(40_000)]
    table = pa.table({"canonical_id": ids, "absolute_image_path": ids})
    rows, _ = read(parquet(table), "m.parquet")
    assert [row.id for row in rows] == ids
    assert [row.line for row in rows] == list(range(1, 40_001))


def test_manifest_parquet_damaged_is_refused() -> None:
    data = parquet(pa.table({"canonical_id": ["a"] * 999, "absolute_image_path": [str(n) for n in range(999)]}))
    with pytest.raises(SourceError, match="not a readable Parquet file"):
        read(data[:-20], "m.parquet")
    with pytest.raises(SourceError, match="not a readable Parquet file"):
        read(data[:4] + b"\xff" * 200 + data[204:], "m.parquet")


def test_manifest_parquet_without_the_column_names_those_present() -> None:
    with pytest.raises(SourceError, match="no column 'canonical_id'; the columns are 'x'"):
        read(parquet(pa.table({"x": ["a"]})), "m.parquet")


@pytest.mark.parametrize("name", ["m.csv.gz", "m.csv.zst", "m.csv"])
def test_manifest_compressed_in_several_frames_is_unpacked(name: str) -> None:
    pack = zstandard.ZstdCompressor().compress if name.endswith("zst") else gzip.compress
    rows, _ = read(pack(HEADER + b"a,1\n") + pack(b"b,2\n"), name)
    assert [row.id for row in rows] == ["a", "b"]


@pytest.mark.parametrize("name", ["m.csv.gz", "m.csv.zst"])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_manifest_compressed_and_damaged_is_refused(name: str, damage: str) -> None:
    pack = zstandard.ZstdCompressor(write_checksum=True).compress if name.endswith("zst") else gzip.compress
    packed = pack(HEADER + b"".join(b"%d,%d\n" % (n, n) for n in range(5000)))
    middle = len(packed) // 2
    flipped = packed[:middle] + bytes([packed[middle] ^ 0x55]) + packed[middle + 1 :]
    with pytest.raises(SourceError):
        read(packed[:middle] if damage == "cut" else flipped, name)


def test_manifest_compressed_parquet_is_refused() -> None:
    with pytest.raises(SourceError, match="must not be compressed again"):
        read(b"\x1f\x8b", "m.parquet.gz")


def test_manifest_format_asked_for_beats_the_name() -> None:
    rows, _ = read(b'{"canonical_id": "a", "absolute_image_path": "x"}\n', "m.csv", format="jsonLines")
    assert rows[0].id == "a"


def test_manifest_missing_object_says_so() -> None:
    with (
        pytest.raises(SourceError, match="memory://lib/m.csv does not exist"),
        open_source("memory://lib/m.csv", lambda _: MemoryStore("lib")),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "want"),
    [("none.csv", "No such file"), (".", "is not a file"), ("a\0b", "null byte"), ("gs://b/m.csv", "neither a local")],
)
def test_manifest_local_path_that_is_no_file_says_so(
    name: str, want: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=want), open_source(name, lambda _: MemoryStore("lib")):
        pass


class ChangingStore(MemoryStore):
    """Replaced by other content after the first range was read."""

    def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None) -> bytes:
        data = super().get_range(key, start, length, if_match=if_match)
        self.put(key, b"x" * 1000)
        return data


def test_manifest_object_that_changes_while_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_bytes, "BLOCK_BYTES", 64)
    store = ChangingStore("lib")
    store.put("m.csv", HEADER + b"a,1\n" * 100)
    request = ManifestRequest(uri="memory://lib/m.csv")
    with (
        pytest.raises(SourceError, match="changed while being read") as caught,
        open_source(request.uri, lambda _: store) as source,
    ):
        list(Manifest(request, source).batches())
    assert isinstance(caught.value.__cause__, PreconditionFailedError)


@pytest.mark.parametrize("change", ["append", "replace", "remove"])
def test_manifest_local_file_that_changes_while_read_is_refused(change: str, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + b"a,1\n")
    with (
        pytest.raises(SourceError, match="changed while being read"),
        open_source(path.as_uri(), lambda _: MemoryStore("lib")) as source,
    ):
        assert list(Manifest(ManifestRequest(uri=str(path)), source).batches())
        if change == "append":
            path.write_bytes(path.read_bytes() + b"b,2\n")
        elif change == "replace":
            (tmp_path / "new").write_bytes(HEADER + b"a,2\n")
            (tmp_path / "new").replace(path)
        else:
            path.unlink()
