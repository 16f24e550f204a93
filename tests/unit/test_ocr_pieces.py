"""Pages that a stage cut: their text is one again, with boxes where they lie on the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pagemill_core.errors import EngineFailed
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_worker.images.limits import ImageLimits
from pagemill_worker.images.page import PageImage
from pagemill_worker.items import PlannedItem
from pagemill_worker.ocr.engine import Engine, EngineSettings, EngineStatus, PageText, Region, Usage
from pagemill_worker.ocr.pieces import joined, size_of
from pagemill_worker.ocr.runner import OcrRunner, OcrSetup
from pagemill_worker.stages.contract import Stage, StageItem
from pagemill_worker.stages.setup import ChainSetup, OwnStage
from pagemill_worker.views.row import from_payload

CORNERS = ((1.0, 2.0), (5.0, 2.0), (5.0, 6.0), (1.0, 6.0))


def piece(width: int, offset_px: tuple[int, int] = (0, 0)) -> StageItem:
    return StageItem(id="p", value=PageImage(np.zeros((10, width, 3), np.uint8)), offset_px=offset_px)


def test_pieces_are_joined_in_order_with_boxes_moved() -> None:
    left = PageText((Region("left", 1.0, (1, 2, 4, 4), CORNERS),), usage=Usage(1, 2, 1, 0.5))
    right = PageText((Region("right", 1.0, (1, 2, 4, 4), CORNERS), Region("no box")), usage=Usage(1, 2, 1))

    found = joined([piece(20), piece(20, (20, 5))], [left, right])

    assert [region.text for region in found.regions] == ["left", "right", "no box"]
    assert [region.bbox for region in found.regions] == [(1, 2, 4, 4), (21, 7, 4, 4), None]
    assert found.regions[1].polygon is not None
    assert found.regions[1].polygon[0] == (21.0, 7.0)
    assert found.usage == Usage(2, 4, 2, 0.5)


def test_size_is_the_pages_own_once_it_was_cut() -> None:
    page = PageImage(np.zeros((10, 40, 3), np.uint8))
    assert size_of([piece(20), piece(20, (20, 0))], page) == (40, 10)
    assert size_of([piece(80)], page) == (80, 10), "a stage that scaled the page: boxes lie in what it gave"


class Reader:
    """Reads the width of what it is shown; fails as often as it is told to."""

    name = "reader"
    recipe_version = 1
    failures = 0

    def check(self, settings: EngineSettings) -> None: ...

    def fingerprint(self, settings: EngineSettings) -> dict[str, Any]:
        return {}

    def load(self, settings: EngineSettings) -> Engine:
        return self

    def status(self) -> EngineStatus:
        return EngineStatus("reader", True, "1", (), (), ())

    def recognise(self, page: PageImage) -> PageText:
        if self.failures:
            self.failures -= 1
            raise EngineFailed("once more")
        return PageText((Region(f"{page.width_px} wide", 1.0, (0, 0, 5, 5)),))

    def close(self) -> None: ...


class Halves(Stage):
    takes = PageImage
    gives = PageImage

    def process(self, items: Sequence[StageItem]) -> list[StageItem]:
        out = []
        for item in items:
            middle = item.value.width_px // 2
            for at, part in ((0, item.value.pixels[:, :middle]), (middle, item.value.pixels[:, middle:])):
                given = item.with_value(PageImage(np.ascontiguousarray(part)))
                out.append(StageItem(id=given.id, value=given.value, offset_px=(at, 0)))
        return out


class Words(Stage):
    takes = PageText
    gives = PageText

    def process(self, items: Sequence[StageItem]) -> list[StageItem]:
        return [item.with_notes(regions=len(item.value.regions)) for item in items]


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    found = Reader()
    monkeypatch.setattr("pagemill_worker.ocr.runner.adapter", lambda _: found)
    return found


@pytest.fixture
def item(tmp_path: Path) -> PlannedItem:
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    return PlannedItem(0, "a", str(tmp_path / "a.png"))


def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stages: Sequence[Stage] = (), **fields: Any) -> OcrRunner:
    by_use = {f"x.y:{type(stage).__name__}": stage for stage in stages}
    monkeypatch.setattr("pagemill_worker.stages.setup.make_stage", lambda use, *_: by_use[use])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    told = tuple(
        OwnStage(
            name=use[4:].lower(),
            use=use,
            options={},
            batch_size=1,
            attempts=1,
            is_behind=type(stage).takes is PageText,
        )
        for use, stage in by_use.items()
    )
    setup = OcrSetup.of(EngineSettings("reader"), ImageLimits(), S3Settings(), (), 1)
    return OcrRunner(setup.model_copy(update={"stages": ChainSetup(stages=told), **fields}))


def test_page_goes_through_the_stages_and_comes_out_whole(
    reader: Reader, item: PlannedItem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = runner(monkeypatch, tmp_path, [Halves(), Words()])

    (done,) = made.process([made.prepare(item)])

    assert done.payload is not None
    row = from_payload(done.payload)
    assert [(region.text, region.bbox) for region in row.regions] == [
        ("30 wide", (0, 0, 5, 5)),
        ("30 wide", (30, 0, 5, 5)),
    ]
    assert (row.width_px, row.height_px) == (60, 40)
    assert row.metadata == {"stages": {"words": {"regions": 2}}}
    assert {"fetch", "decode", "halves", "recognise", "words"} == set(row.seconds)


def test_recognise_is_tried_as_often_as_its_stage_says(
    reader: Reader, item: PlannedItem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for attempts, want in ((1, "failed"), (2, "succeeded")):
        reader.failures = 1
        made = runner(monkeypatch, tmp_path, attempts=attempts)
        assert [done.status for done in made.process([made.prepare(item)])] == [want]
