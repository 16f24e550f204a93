"""docs/reference/embeddings.md names what the code writes: columns, fields of the record, of the metadata."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import pagemill
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_worker.finalize.embedding_dataset import META_PREFIX, DatasetShape
from pagemill_worker.finalize.embedding_table import SINGLE_BYTES
from pagemill_worker.finalize.embedding_vectors import SideFacts
from pagemill_worker.items import ItemResult, PlannedItem
from pagemill_worker.testing.made_embeddings import MadeEmbeddings
from pagemill_worker.views.book_record import book_record

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "reference/embeddings.md").read_text(encoding="utf-8")
NAME = re.compile(r"`([a-z_]+)`")


def first_cells(text: str) -> set[str]:
    """The names in the first column of every table of `text`."""
    return {name for line in text.splitlines() if line.startswith("| `") for name in NAME.findall(line.split("|")[1])}


def test_page_names_every_column_of_the_dataset() -> None:
    sides = (SideFacts("visual", 2, "float32"), SideFacts("text", 2, "float32"))
    shape = DatasetShape(sides=sides, columns={}, fingerprint="f", has_books=True, has_urls=True)
    section = PAGE.partition("<!-- columns -->")[2].partition("<!-- end -->")[0]
    assert first_cells(section) == set(shape.schema.names)
    assert f"`{META_PREFIX}<column>`" in section


def test_page_names_every_field_of_the_record() -> None:
    result = ItemResult(PlannedItem(0, "book", "x"), "succeeded", {"pages": []})
    record = book_record(result, {"visual": [1, 2], "text": [1, 2]}, "codePoint")
    section = PAGE.partition("## Books")[2].partition("## The summary")[0]
    assert set(record) <= first_cells(section)
    assert set(record["pagemill"]) <= set(NAME.findall(section))


def test_page_names_every_field_of_the_metadata() -> None:
    output = MadeEmbeddings(MemoryStore(), FakeClock())
    output.finish([PlannedItem(0, "a", "a.jpg")])
    fields = set(json.loads(output.store.get("metadata.json").data))
    assert fields <= set(NAME.findall(PAGE)), fields - set(NAME.findall(PAGE))


def test_page_tells_the_size_at_which_the_table_becomes_a_folder() -> None:
    assert f"{SINGLE_BYTES >> 30} GiB" in PAGE


@pytest.mark.parametrize("name", pagemill.__all__)
def test_guide_shows_every_name_of_the_python_package(name: str) -> None:
    guide = (DOCS / "guide/python.md").read_text(encoding="utf-8")
    assert name in ("Output", "Sample") or f"pagemill.{name}(" in guide
