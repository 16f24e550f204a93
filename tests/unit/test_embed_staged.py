"""EmbeddingJobs with stages of their own: pieces become one row, filtered items keep what was noted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.storage.store import ObjectStore
from pagemill_worker.embed.book_runner import BookRunner
from pagemill_worker.embed.books import list_book
from pagemill_worker.embed.encoder import EncodedText, EncoderFacts, EncoderSettings, ModelSettings
from pagemill_worker.embed.rows import unpack
from pagemill_worker.embed.runner import Encoders
from pagemill_worker.embed.setup import EmbedSetup
from pagemill_worker.embed.staged_runner import StagedRowRunner
from pagemill_worker.images.limits import ImageLimits
from pagemill_worker.images.page import PageImage
from pagemill_worker.items import PlannedItem
from pagemill_worker.stages.chain import Chain, Chains, LoadedStage
from pagemill_worker.stages.contract import Stage, StageItem, Vector
from pagemill_worker.work.runner import Processed


class Means:
    """A picture's row is its mean colour, scaled to length 1."""

    facts = EncoderFacts(dim=3, batch_size=4, device="cpu", precision="float32")

    def __init__(self) -> None:
        self.batches: list[int] = []

    def prepare(self, page: PageImage) -> NDArray[np.uint8]:
        return page.pixels

    def encode(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        self.batches.append(len(pictures))
        rows = np.stack([picture.reshape(-1, 3).mean(axis=0) for picture in pictures]).astype(np.float32)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    def close(self) -> None:
        pass


class Halves(Stage):
    """Cuts a picture into its left and its right half."""

    takes = PageImage
    gives = PageImage

    def process(self, items: Sequence[StageItem]) -> list[StageItem]:
        out = []
        for item in items:
            middle = item.value.width_px // 2
            for part in (item.value.pixels[:, :middle], item.value.pixels[:, middle:]):
                out.append(item.with_value(PageImage(np.ascontiguousarray(part)), width=part.shape[1]))
        return out


class NoBlack(Stage):
    takes = PageImage
    gives = PageImage

    def process(self, items: Sequence[StageItem]) -> list[StageItem]:
        return [item if item.value.pixels.any() else item.drop("it is black") for item in items]


@dataclass
class Reddish(Stage):
    """Keeps rows that are more red than `least`."""

    takes = Vector
    gives = Vector
    least: float = 0.5
    seen: list[bool] = field(default_factory=list)

    def process(self, items: Sequence[StageItem]) -> list[StageItem]:
        self.seen += [item.value.values.flags.writeable for item in items]
        red = [round(float(item.value.values[0]), 3) for item in items]
        return [
            item.with_notes(red=value) if value >= self.least else item.drop("not red", red=value)
            for item, value in zip(items, red, strict=True)
        ]


def setup(*, is_books: bool = False, bad_pages: str = "Fail") -> EmbedSetup:
    settings = EncoderSettings(side="visual", model=ModelSettings(name="m"), normalize=True)
    found = EmbedSetup.of(settings, None, ImageLimits(), S3Settings())
    return found.model_copy(update={"is_books": is_books, "bad_pages": bad_pages})


def chain(stage: Stage, name: str, **how: Any) -> Chain:
    return Chain((LoadedStage(name, stage, **how),))


def picture(path: Path, left: tuple[int, int, int], right: tuple[int, int, int]) -> PlannedItem:
    image = Image.new("RGB", (40, 20), left)
    image.paste(right, (20, 0, 40, 20))
    image.save(path)
    return PlannedItem(int(path.stem), path.stem, str(path))


RED, BLUE, BLACK = (255, 0, 0), (0, 0, 255), (0, 0, 0)


def visual(done: Processed) -> list[float]:
    assert done.payload is not None
    return [round(float(number), 4) for number in unpack(done.payload["rows"], done.data)["visual"][0]]


@pytest.mark.parametrize("place", ["ahead", "before"], ids=["beside-the-model", "with-the-model"])
def test_pieces_of_a_picture_become_one_row_of_length_one(tmp_path: Path, place: str) -> None:
    encoder = Means()
    runner = StagedRowRunner(setup(), Encoders(encoder, None), Chains(**{place: chain(Halves(), "halves")}))
    items = [picture(tmp_path / "0.png", RED, BLUE), picture(tmp_path / "1.png", RED, RED)]

    done = runner.process([runner.prepare(item) for item in items])

    assert [visual(one) for one in done] == [[0.7071, 0.0, 0.7071], [1.0, 0.0, 0.0]]
    assert encoder.batches == [4], "all pieces together"
    assert done[0].payload is not None
    assert {name: done[0].payload[name] for name in ("pieces", "width", "height")} == {
        "pieces": 2,
        "width": 40,
        "height": 20,
    }
    assert done[0].payload["notes"] == {"halves": [{"width": 20}, {"width": 20}]}
    assert {"halves", "encode"} <= set(done[0].seconds or {})


def test_filtered_picture_is_not_encoded(tmp_path: Path) -> None:
    encoder = Means()
    runner = StagedRowRunner(setup(), Encoders(encoder, None), Chains(ahead=chain(NoBlack(), "no-black")))
    items = [picture(tmp_path / "0.png", BLACK, BLACK), picture(tmp_path / "1.png", RED, BLUE)]

    done = runner.process([runner.prepare(item) for item in items])

    assert done[0].failure is not None
    assert (done[0].status, done[0].failure.error_class) == ("failed", "FilteredByStage")
    assert done[0].failure.message == "no-black: it is black"
    assert (done[1].status, encoder.batches) == ("succeeded", [1])


def test_stage_behind_the_encoder_filters_and_keeps_the_score(tmp_path: Path) -> None:
    stage = Reddish()
    behind = chain(stage, "reddish", batch_size=8, keeps_one=True)
    runner = StagedRowRunner(setup(), Encoders(Means(), None), Chains(behind=behind))
    items = [picture(tmp_path / "0.png", RED, RED), picture(tmp_path / "1.png", BLUE, BLUE)]

    done = runner.process([runner.prepare(item) for item in items])

    assert [one.status for one in done] == ["succeeded", "failed"]
    assert [one.payload and one.payload["notes"] for one in done] == [
        {"reddish": {"red": 1.0}},
        {"reddish": {"red": 0.0}},
    ]
    assert stage.seen == [False, False], "rows are the encoder's"


def test_picture_that_cannot_be_read_fails_as_without_stages(tmp_path: Path) -> None:
    runner = StagedRowRunner(setup(), Encoders(Means(), None), Chains(behind=chain(Reddish(), "reddish")))
    item = picture(tmp_path / "0.png", RED, RED)
    assert runner.process([runner.prepare(item)])[0].status == "succeeded"


class Lengths:
    """A text's row is its length."""

    facts = EncoderFacts(dim=1, batch_size=2, device="cpu", precision="float32")

    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[EncodedText]]:
        self.seen += texts
        return np.array([[len(text)] for text in texts], np.float32), [EncodedText(len(text)) for text in texts]

    def close(self) -> None:
        pass


class Sentences(Stage):
    takes = str
    gives = str

    def process(self, items: Sequence[StageItem]) -> list[StageItem]:
        return [item.with_value(part) for item in items for part in item.value.split(". ")]


def test_text_that_a_stage_cuts_becomes_one_row_of_the_mean() -> None:
    encoder = Lengths()
    settings = EncoderSettings(side="text", model=ModelSettings(name="m"), normalize=False)
    made = EmbedSetup.of(None, settings, ImageLimits(), S3Settings())
    runner = StagedRowRunner(made, Encoders(None, encoder), Chains(ahead=chain(Sentences(), "sentences")))
    items = [PlannedItem(0, "a", "t", input={"text": "ab. cdef"}), PlannedItem(1, "b", "t", input={"text": ""})]

    done = runner.process([runner.prepare(item) for item in items])

    found = [unpack(one.payload["rows"], one.data)["text"].tolist() for one in done if one.payload is not None]
    assert found == [[[3.0]], [[0.0]]]
    assert [one.payload and one.payload["tokens"] for one in done] == [6, 0]
    assert encoder.seen == ["ab", "cdef", ""]


def _no_store(uri: str) -> ObjectStore:
    raise AssertionError(f"{uri} is a folder")


@pytest.mark.parametrize(("bad_pages", "want"), [("Drop", "succeeded"), ("Fail", "failed")])
def test_pages_of_a_book_go_through_the_stages(tmp_path: Path, bad_pages: str, want: str) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    for number, colour in enumerate((RED, BLACK, RED)):
        picture(folder / f"{number}.png", colour, colour)
    found = list_book(str(folder), order="codePoint", open_store=_no_store)
    item = PlannedItem(0, "b", str(folder), version=found.digest, input={"order": "codePoint", "ocr": ""})
    chains = Chains(ahead=chain(NoBlack(), "no-black"), behind=chain(Reddish(), "reddish"))
    runner = BookRunner(setup(is_books=True, bad_pages=bad_pages), Encoders(Means(), None), None, chains)

    (done,) = runner.process([runner.prepare(item)])

    assert done.status == want
    assert done.payload is not None
    assert [page.get("errorClass") for page in done.payload["pages"]] == [None, "FilteredByStage", None]
    assert done.payload["pages"][0]["notes"] == {"reddish": {"red": 1.0}}
    assert {"no-black", "reddish", "encode"} <= set(done.seconds or {})
