"""Boxes clipped to the page, and lines made into regions in reading order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagemill_worker.images.page import PageImage
from pagemill_worker.ocr.options import EngineOptions
from pagemill_worker.ocr.page_text import RawLine, page_text
from pagemill_worker.ocr.regions import polygon_region, rectangle, unit_confidence, word_region

PAGE = PageImage(np.zeros((175, 124, 3), np.uint8))
ANYWHERE = st.floats(-500, 500)


@given(st.lists(st.tuples(ANYWHERE, ANYWHERE), min_size=4, max_size=8))
def test_polygon_region_any_polygon_lies_inside_the_page_exactly(points: list[tuple[float, float]]) -> None:
    region = polygon_region("x", 0.5, points, PAGE)
    assert (region.bbox is None) == (region.polygon is None)
    if region.bbox is not None and region.polygon is not None:
        x, y, width, height = region.bbox
        assert x >= 0 and y >= 0 and width > 0 and height > 0
        assert x + width <= PAGE.width_px and y + height <= PAGE.height_px
        assert all(0 <= px <= PAGE.width_px and 0 <= py <= PAGE.height_px for px, py in region.polygon)


def test_polygon_region_outside_the_page_keeps_the_text_without_a_box() -> None:
    region = polygon_region("margin", 0.5, rectangle(200, 10, 300, 30), PAGE)
    assert (region.text, region.bbox, region.polygon) == ("margin", None, None)


def test_word_region_box_becomes_x_y_width_height() -> None:
    region = word_region("word", 0.87654321, (10.1, 20.0, 50.0, 40.9), PAGE, {"line": 1})
    assert region.bbox == (10.0, 20.0, 40.0, 21.0)
    assert (region.level, region.confidence, dict(region.metadata)) == ("word", 0.8765, {"line": 1})


@pytest.mark.parametrize(("value", "want"), [(-0.01, 0.0), (0.123456, 0.1235), (1.0000001, 1.0)])
def test_unit_confidence_is_clipped_and_rounded(value: float, want: float) -> None:
    assert unit_confidence(value) == want


def test_page_text_blank_and_doubtful_lines_are_left_out_and_the_rest_is_ordered() -> None:
    lines = [
        RawLine("second ", 0.9, rectangle(10, 50, 90, 60)),
        RawLine("   ", 0.9, rectangle(10, 90, 90, 100)),
        RawLine("doubtful", 0.2, rectangle(10, 70, 90, 80)),
        RawLine("outside", 0.9, rectangle(500, 5, 600, 15)),
        RawLine("first", 0.9, rectangle(10, 20, 90, 30)),
    ]
    text = page_text(lines, PAGE, EngineOptions.model_validate({"minConfidence": 0.5}))
    assert [region.text for region in text.regions] == ["first", "second", "outside"]
