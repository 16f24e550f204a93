"""The child-side runners of EmbeddingJobs, over encoders whose rows can be told by looking at the input."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pagemill_core.errors import BookEmpty, EncoderFailed, RowUnusable, SourceChanged, TextTooLong
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.storage.store import ObjectStore
from pagemill_worker.embed.book_runner import BookRunner
from pagemill_worker.embed.books import list_book
from pagemill_worker.embed.encoder import EncodedText, EncoderFacts
from pagemill_worker.embed.rows import unpack
from pagemill_worker.embed.runner import Encoders, RowRunner
from pagemill_worker.embed.setup import EmbedSetup
from pagemill_worker.images.limits import ImageLimits
from pagemill_worker.images.page import PageImage
from pagemill_worker.items import PlannedItem
from pagemill_worker.work.runner import Processed

POISON = 13


class Means:
    """A picture's row is its mean colour; the colour 13 cannot be encoded."""

    facts = EncoderFacts(dim=3, batch_size=2, device="cpu", precision="float32")

    def __init__(self) -> None:
        self.batches: list[int] = []

    def prepare(self, page: PageImage) -> NDArray[np.uint8]:
        return page.pixels

    def encode(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        self.batches.append(len(pictures))
        rows = np.stack([picture.reshape(-1, 3).mean(axis=0) for picture in pictures]).astype(np.float32)
        if (rows == POISON).all(axis=1).any():
            raise EncoderFailed("a row is not finite")
        return rows

    def close(self) -> None:
        pass


class Lengths:
    """A text's row is its length; a text of more than ten characters is too long."""

    facts = EncoderFacts(dim=1, batch_size=2, device="cpu", precision="float32", max_tokens=10)

    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[EncodedText]]:
        if any(len(text) > 10 and not text.startswith("{") for text in texts):
            raise TextTooLong("more than 10 tokens")
        self.seen += texts
        return np.array([[len(text)] for text in texts], np.float32), [EncodedText(len(text)) for text in texts]

    def close(self) -> None:
        pass


def setup(*, is_books: bool = False, bad_pages: str = "Fail") -> EmbedSetup:
    found = EmbedSetup.of(None, None, ImageLimits(), S3Settings())
    wanted = {"is_books": is_books, "bad_pages": bad_pages, "text_format": "referenceJson"}
    return found.model_copy(update=wanted)


def picture(path: Path, grey: int) -> Path:
    Image.new("RGB", (40, 30), (grey, grey, grey)).save(path)
    return path


def rows_of(done: Processed) -> dict[str, list[list[float]]]:
    assert done.payload is not None
    return {side: rows.tolist() for side, rows in unpack(done.payload["rows"], done.data).items()}


def test_row_runner_gives_each_picture_its_own_row(tmp_path: Path) -> None:
    runner = RowRunner(setup(), Encoders(Means(), None))
    items = [PlannedItem(row, f"p{row}", str(picture(tmp_path / f"{row}.png", 10 * row))) for row in range(3)]

    done = runner.process([runner.prepare(item) for item in items])

    assert [rows_of(one) for one in done] == [{"visual": [[10.0 * row] * 3]} for row in range(3)]
    assert {key: done[0].payload[key] for key in ("width", "height")} == {"width": 40, "height": 30}  # type: ignore[index]


def test_row_runner_fails_the_picture_that_cannot_be_encoded_and_no_other(tmp_path: Path) -> None:
    encoder = Means()
    runner = RowRunner(setup(), Encoders(encoder, None))
    greys = [1, POISON, 2]
    items = [PlannedItem(row, f"p{row}", str(picture(tmp_path / f"{row}.png", grey))) for row, grey in enumerate(greys)]

    done = runner.process([runner.prepare(item) for item in items])

    assert [one.status for one in done] == ["succeeded", "failed", "succeeded"]
    assert done[1].failure is not None
    assert done[1].failure.error_class == "EncoderFailed"
    assert rows_of(done[2]) == {"visual": [[2.0] * 3]}
    assert encoder.batches == [3, 1, 1, 1], "together first, alone only after that failed"


def test_row_runner_encodes_texts_and_refuses_an_item_without_one() -> None:
    runner = RowRunner(setup(), Encoders(None, Lengths()))
    with pytest.raises(RowUnusable):
        runner.prepare(PlannedItem(0, "t", "texts.jsonl"))
    items = [PlannedItem(1, "a", "t", input={"text": ""}), PlannedItem(2, "b", "t", input={"text": "x" * 11})]

    done = runner.process([runner.prepare(item) for item in items])

    assert (rows_of(done[0]), done[0].payload and done[0].payload["tokens"]) == ({"text": [[0.0]]}, 0)
    assert done[1].failure is not None
    assert done[1].failure.error_class == "TextTooLong"


def _no_store(uri: str) -> ObjectStore:
    raise AssertionError(f"{uri} is a folder")


def book(folder: Path, greys: Sequence[int | None]) -> PlannedItem:
    """A planned book of pages in these greys; None is a page that is no picture."""
    folder.mkdir()
    for number, grey in enumerate(greys):
        path = folder / f"page_{number:03}.png"
        if grey is None:
            path.write_bytes(b"no picture at all, but long enough to be sniffed")
        else:
            picture(path, grey)
        path.with_suffix(".json").write_text(json.dumps({"OCRResult": {"n": number}}), encoding="utf-8")
    found = list_book(str(folder), order="codePoint", open_store=_no_store)
    return PlannedItem(0, "Book #1", str(folder), version=found.digest, input={"order": "codePoint", "ocr": ""})


def test_book_runner_keeps_both_sides_in_page_order(tmp_path: Path) -> None:
    texts = Lengths()
    runner = BookRunner(setup(is_books=True), Encoders(Means(), texts))
    alive: list[int] = []
    runner.listen(lambda: alive.append(1))

    (done,) = runner.process([runner.prepare(book(tmp_path / "b", [5, 7, 9, 11, 15]))])

    assert done.status == "succeeded"
    sides = rows_of(done)
    assert sides["visual"] == [[float(grey)] * 3 for grey in (5, 7, 9, 11, 15)]
    assert texts.seen == [f'{{"n": {number}}}' for number in range(5)]
    assert len(sides["text"]) == 5
    assert done.payload is not None
    assert [(page["name"], page["row"]) for page in done.payload["pages"]][:2] == [
        ("page_000.png", 0),
        ("page_001.png", 1),
    ]
    assert len(alive) == 3, "after each batch of two pages"


def test_book_runner_fails_a_book_with_a_bad_page_and_names_the_page(tmp_path: Path) -> None:
    runner = BookRunner(setup(is_books=True), Encoders(Means(), Lengths()))

    (done,) = runner.process([runner.prepare(book(tmp_path / "b", [5, None, 9]))])

    assert (done.status, done.data) == ("failed", None)
    assert done.failure is not None
    assert done.failure.error_class == "BookPagesFailed"
    assert "page_001.png (NotAnImage)" in done.failure.message
    assert done.payload is not None
    assert [page["status"] for page in done.payload["pages"]] == ["succeeded", "failed", "succeeded"]


def test_book_runner_drops_bad_pages_where_the_job_says_so(tmp_path: Path) -> None:
    runner = BookRunner(setup(is_books=True, bad_pages="Drop"), Encoders(Means(), Lengths()))

    (done,) = runner.process([runner.prepare(book(tmp_path / "b", [5, None, 9]))])

    assert rows_of(done)["visual"] == [[5.0] * 3, [9.0] * 3]
    assert done.payload is not None
    assert [page["row"] for page in done.payload["pages"]] == [0, None, 1]


def test_book_runner_with_no_good_page_fails_the_book(tmp_path: Path) -> None:
    runner = BookRunner(setup(is_books=True, bad_pages="Drop"), Encoders(Means(), None))

    (done,) = runner.process([runner.prepare(book(tmp_path / "b", [None, None]))])

    assert done.status == "failed"


def test_book_runner_refuses_a_book_that_changed_since_it_was_planned(tmp_path: Path) -> None:
    runner = BookRunner(setup(is_books=True), Encoders(Means(), None))
    item = book(tmp_path / "b", [5, 7])
    picture(tmp_path / "b" / "page_009.png", 3)
    with pytest.raises(SourceChanged):
        runner.prepare(item)


def test_book_runner_refuses_a_folder_that_lost_its_pages(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    item = PlannedItem(0, "b", str(tmp_path / "b"), input={"order": "codePoint", "ocr": ""})
    with pytest.raises(BookEmpty):
        BookRunner(setup(is_books=True), Encoders(Means(), None)).prepare(item)


def test_setup_travels_as_json_and_comes_back_equal() -> None:
    from pagemill_worker.embed.encoder import EncoderSettings, ModelSettings

    wanted = EncoderSettings(side="text", model=ModelSettings(name="m", cache=Path("/models")), prompt="query: ")
    sent = EmbedSetup.of(None, wanted, ImageLimits(), S3Settings()).model_dump_json()

    visual, text = EmbedSetup.model_validate_json(sent).encoders

    assert (visual, text) == (None, wanted)
    assert dataclasses.asdict(wanted)["model"]["cache"] == Path("/models")
