"""A book's files: tensors that torch itself reads, the record's contract, and what must never be called a success."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pagemill_core.errors import IntegrityError
from pagemill_worker.embed.rows import pack
from pagemill_worker.items import ItemFailure, ItemResult, PlannedItem
from pagemill_worker.views.book_record import book_views, record_key, tensor_key
from pagemill_worker.views.book_tensors import render_tensor
from pagemill_worker.views.vectors import check_rows

BOOK = "Crème #7 (50 %), vol. 1…/a"


def make_rows(rows: int, dim: int, dtype: Any = np.float32, seed: int = 7) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal((rows, dim)).astype(dtype)


def make_pages(count: int, bad: int | None = None) -> list[dict[str, Any]]:
    pages: list[dict[str, Any]] = []
    row = 0
    for number in range(count):
        page: dict[str, Any] = {"name": f"page_{number}.png", "status": "succeeded", "ocr": "text", "row": row}
        if number == bad:
            page |= {"status": "failed", "row": None, "ocr": None, "errorClass": "ImageTruncated"}
            page["errorMessage"] = "cut"
        else:
            row += 1
        pages.append(page)
    return pages


def make_book(book: str = BOOK, pages: int = 3, bad: int | None = None, **sides: Any) -> ItemResult:
    rows = pages - (bad is not None)
    facts, data = pack(sides or {"visual": make_rows(rows, 8), "text": make_rows(rows, 4, seed=8)})
    facts = json.loads(json.dumps(facts, sort_keys=True))  # as it comes out of a committed shard
    item = PlannedItem(0, book, f"s3://b/books/{book}", version="digest")
    return ItemResult(item, "succeeded", {"rows": facts, "pages": make_pages(pages, bad)}, data=data)


def failed_book(error_class: str, book: str = BOOK) -> ItemResult:
    return ItemResult(PlannedItem(0, book, "s3://b/books/x"), "failed", failure=ItemFailure(error_class, "why"))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (33, 1152), (0, 4)], ids=str)
def test_tensor_file_is_what_torch_load_gives_back(tmp_path: Path, dtype: Any, shape: tuple[int, int]) -> None:
    import torch

    rows = (make_rows(*shape) * 100).astype(dtype)
    path = tmp_path / "x.pt"
    path.write_bytes(render_tensor(rows))
    loaded = torch.load(path)
    assert type(loaded) is torch.Tensor
    assert (loaded.shape, loaded.device.type, loaded.is_contiguous()) == (shape, "cpu", True)
    assert torch.equal(loaded, torch.from_numpy(rows))
    assert torch.equal(torch.load(path, mmap=True, weights_only=True), loaded)
    torch.save(loaded, tmp_path / "theirs.pt")
    assert torch.equal(torch.load(tmp_path / "theirs.pt"), loaded)


def test_tensor_file_of_equal_rows_is_equal_bytes_without_a_clock() -> None:
    rows = make_rows(5, 7)
    data = render_tensor(rows)
    assert data == render_tensor(np.asfortranarray(rows)) == render_tensor(rows.astype(">f4").astype("<f4"))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        place = archive.getinfo("archive/data/0").header_offset
        assert (place + 30 + len("archive/data/0") + len(archive.getinfo("archive/data/0").extra)) % 64 == 0


def test_tensor_file_runs_nothing_but_the_rebuilding_of_a_tensor() -> None:
    with zipfile.ZipFile(io.BytesIO(render_tensor(make_rows(2, 2)))) as archive:
        pickled = archive.read("archive/data.pkl")
    named = {str(argument) for opcode, argument, _ in pickletools.genops(pickled) if opcode.name == "GLOBAL"}
    assert named == {"torch._utils _rebuild_tensor_v2", "torch FloatStorage", "collections OrderedDict"}


def test_tensor_file_of_more_numbers_than_32_bits_names_them_all() -> None:
    from pagemill_worker.views import book_tensors

    pickled = vars(book_tensors)["_pickle"]("FloatStorage", 1 << 21, 1 << 11)
    numbers = [argument for opcode, argument, _ in pickletools.genops(pickled) if opcode.name in ("BININT", "LONG1")]
    assert numbers == [1 << 32, 0, 1 << 21, 1 << 11, 1 << 11, 1]
    assert pickle.loads(b"\x80\x02" + vars(book_tensors)["_whole"](1 << 32) + b".") == 1 << 32  # noqa: S301


@pytest.mark.parametrize("rows", [np.zeros(3, np.float32), np.zeros((2, 2), np.uint8)], ids=["vector", "bytes"])
def test_tensor_file_of_anything_but_a_matrix_is_refused(rows: Any) -> None:
    with pytest.raises(ValueError, match="is no matrix"):
        render_tensor(rows)


def test_book_that_succeeded_has_both_sides_and_then_its_record() -> None:
    views = list(book_views(make_book(), "codePoint"))
    assert [view.key for view in views] == [f"visual/{BOOK}.pt", f"text/{BOOK}.pt", f"records/{BOOK}.json"]
    record = json.loads(views[2].data)
    assert {name: value for name, value in record.items() if name != "pagemill"} == {
        "book_id": BOOK,
        "status": "success",
        "pages": 3,
        "visual_shape": [3, 8],
        "text_shape": [3, 4],
        "visual_key": f"visual/{BOOK}.pt",
        "text_key": f"text/{BOOK}.pt",
    }
    assert record["pagemill"]["rows"] == ["page_0.png", "page_1.png", "page_2.png"]
    assert record["pagemill"]["ocr"] == {"text": 3}
    assert (record["pagemill"]["order"], record["pagemill"]["version"]) == ("codePoint", "digest")


def test_book_with_a_dropped_page_names_it_and_keeps_the_page_of_each_row() -> None:
    views = list(book_views(make_book(pages=4, bad=1), "codePoint"))
    record = json.loads(views[2].data)
    assert (record["pages"], record["visual_shape"]) == (4, [3, 8])
    assert record["pagemill"]["page_index"] == [0, 2, 3]
    want = {"page": 1, "name": "page_1.png", "error_class": "ImageTruncated", "error_message": "cut"}
    assert record["pagemill"]["bad_pages"] == [want]


@pytest.mark.parametrize(
    ("error_class", "want"),
    [("BookMissing", "missing_directory"), ("BookEmpty", "no_images"), ("BookPagesFailed", "error")],
)
def test_book_that_failed_has_a_record_and_no_tensor(error_class: str, want: str) -> None:
    (view,) = book_views(failed_book(error_class), "codePoint")
    assert view.key == record_key(BOOK)
    record = json.loads(view.data)
    assert (record["book_id"], record["status"], record["pages"]) == (BOOK, want, 0)
    assert "visual_key" not in record
    assert record["pagemill"]["error_class"] == error_class


def test_book_whose_id_can_be_no_key_writes_nothing() -> None:
    assert list(book_views(failed_book("UnsafeId", "../outside"), "codePoint")) == []


def test_book_that_was_skipped_writes_nothing() -> None:
    assert list(book_views(ItemResult(PlannedItem(0, BOOK, "x"), "skipped"), "codePoint")) == []


def test_book_with_one_encoder_has_one_side() -> None:
    views = list(book_views(make_book(pages=2, visual=make_rows(2, 3)), "codePoint"))
    assert [view.key for view in views] == [tensor_key("visual", BOOK), record_key(BOOK)]
    record = json.loads(views[1].data)
    assert (record["text_shape"], record["text_key"]) == (None, None)


def test_book_with_unequal_sides_is_no_success() -> None:
    book = make_book(visual=make_rows(3, 4), text=make_rows(2, 4))
    with pytest.raises(IntegrityError, match="different numbers of rows"):
        list(book_views(book, "codePoint"))


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf], ids=["zero", "nan", "infinite"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32], ids=["half", "single"])
def test_rows_that_are_zero_or_not_finite_are_no_success(bad: float, dtype: Any) -> None:
    rows = make_rows(5000, 4, dtype)
    rows[4500] = bad
    with pytest.raises(IntegrityError, match="book: row 4500 is all zero or not finite"):
        check_rows(rows, "book")


def test_rows_of_another_length_where_the_job_asks_for_one_are_no_success() -> None:
    rows = make_rows(8, 64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    check_rows(rows, "x", is_unit=True)
    check_rows(rows.astype(np.float16), "x", is_unit=True)
    rows[3] *= 1.01
    with pytest.raises(IntegrityError, match=r"x: row 3 does not have length 1 \(length 1\.01\)"):
        check_rows(rows, "x", is_unit=True)
