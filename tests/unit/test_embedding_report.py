"""The report and the summary of an EmbeddingJob: what a person sees of a run, and what a program does."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pagemill_core.errors import ImageMissing
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_worker.embed.rows import pack
from pagemill_worker.items import ItemFailure, ItemResult, PlannedItem
from pagemill_worker.testing.made_embeddings import MadeEmbeddings, encoded, lost, make_job
from pagemill_worker.views.embedding_report import MAX_PICTURES


def picture(_: PlannedItem) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (640, 480), (200, 30, 30)).save(out, "JPEG")
    return out.getvalue()


def make_items(count: int, **columns: Any) -> list[PlannedItem]:
    return [PlannedItem(row, f"p<{row}>", f"/pictures/{row}.jpg", columns=columns) for row in range(count)]


def finished(count: int, outcome: Any = encoded, fetch: Any = picture, **spec: Any) -> MadeEmbeddings:
    output = MadeEmbeddings(MemoryStore(), FakeClock(), make_job(**spec), shard_items=20, fetch=fetch)
    output.finish(make_items(count, caption="a <b>cup</b>"), outcome, {"caption": "string"})
    return output


def report_of(output: MadeEmbeddings) -> str:
    return output.store.get("report.html").data.decode()


def summary_of(output: MadeEmbeddings) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output.store.get("summary/run=00000001.json").data)
    return found


class Checker(HTMLParser):
    """Notes what is open and whatever could reach out or run."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.suspicious: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)
        if tag in ("script", "iframe", "object", "b") and self.open[-2:-1] != ["li"]:
            self.suspicious.append(tag)
        self.suspicious += [name for name, value in attributes if (value or "").startswith(("http", "//"))]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_report_shows_counts_models_and_pictures_and_nothing_of_strangers_runs() -> None:
    output = finished(60, lambda item: lost(item) if item.row < 3 else encoded(item))
    html = report_of(output)
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    assert checker.suspicious == []
    assert "Complete, 3 failed" in html
    assert "made-up" in html
    assert "8 × float32, length 1" in html
    assert re.search(r"ImageMissing <b>3</b>", html)
    assert html.count("<img ") == MAX_PICTURES
    assert "a &lt;b&gt;cup&lt;/b&gt;" in html
    (first,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)[:1]
    with Image.open(io.BytesIO(base64.b64decode(first))) as shown:
        assert shown.size == (240, 180)


def test_report_goes_on_when_the_source_is_gone() -> None:
    def gone(_: PlannedItem) -> bytes:
        raise ImageMissing("Image file not found")

    html = report_of(finished(3, fetch=gone))
    assert "<img " not in html
    assert "Complete" in html


def test_report_of_texts_has_no_pictures() -> None:
    def text(item: PlannedItem) -> ItemResult:
        facts, data = pack({"text": np.ones((1, 4), np.float32) / 2})
        return ItemResult(item, "succeeded", {"rows": facts}, data=data)

    spec = {"source": {"texts": {"uri": "t.csv"}}, "text": {"model": {"name": "made-up"}}, "visual": None}
    assert "<img " not in report_of(finished(3, text, **spec))


def test_summary_counts_and_names_what_failed() -> None:
    summary = summary_of(finished(5, lambda item: lost(item) if item.row == 2 else encoded(item)))
    assert summary["items"] == {"total": 5, "succeeded": 4, "failed": 1, "skipped": 0, "already_done": 0}
    assert summary["failed_by_class"] == {"ImageMissing": 1}
    assert [(one["id"], one["status"], one["error_class"]) for one in summary["results"]] == [
        ("p<2>", "failed", "ImageMissing")
    ]
    assert summary["table"] == {"num_samples": 4, "failed": 1, "files": ["embeddings.parquet"]}
    assert summary["models"]["visual"]["model"] == "made-up"


@pytest.mark.parametrize(
    ("error_class", "want"),
    [("BookMissing", "missing_directory"), ("BookEmpty", "no_images"), ("BookPagesFailed", "error")],
)
def test_summary_of_books_has_every_book_with_the_status_that_readers_know(error_class: str, want: str) -> None:
    def book(item: PlannedItem) -> ItemResult:
        if item.row == 0:
            return ItemResult(item, "failed", failure=ItemFailure(error_class, "why"))
        facts, data = pack({"visual": np.ones((2, 4), np.float32), "text": np.ones((2, 3), np.float32)})
        pages = [{"name": f"{row}.png", "row": row, "status": "succeeded"} for row in range(2)]
        return ItemResult(item, "succeeded", {"rows": facts, "pages": pages}, data=data)

    books = {"uri": "books", "annotations": "books.json"}
    text = {"model": {"name": "made-up"}, "normalize": "none"}
    results = summary_of(finished(2, book, source={"books": books}, text=text))["results"]
    assert [(one["book_id"], one["status"], one["pages"]) for one in results] == [
        ("p<0>", want, 0),
        ("p<1>", "success", 2),
    ]
