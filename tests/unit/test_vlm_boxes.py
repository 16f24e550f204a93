"""Boxes of every convention, on the page; and the pictures they were counted on."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pagemill_worker.images.page import PageImage
from pagemill_worker.ocr.vlm_boxes import page_bbox
from pagemill_worker.ocr.vlm_image import SentImage, encode_page, fitted_size
from pagemill_worker.ocr.vlm_presets import Boxes, Dialect, family_of
from pagemill_worker.ocr.vlm_prompt import prompt_for

# A page of 2000 x 1000 pixels, sent at half its size.
HALF = SentImage(data_uri="", width_px=1000, height_px=500, page_width_px=2000, page_height_px=1000)


@pytest.mark.parametrize(
    ("boxes", "corners", "want"),
    [
        (Boxes.PIXELS, (100, 50, 300, 100), (200.0, 100.0, 400.0, 100.0)),
        (Boxes.THOUSANDTHS, (100, 50, 300, 100), (200.0, 50.0, 400.0, 50.0)),
        (Boxes.THOUSANDTHS_YX, (50, 100, 100, 300), (200.0, 50.0, 400.0, 50.0)),
        (Boxes.THOUSANDTHS, (0, 0, 1000, 1000), (0.0, 0.0, 2000.0, 1000.0)),
        (Boxes.THOUSANDTHS, (-5, 990, 1010, 1015), (0.0, 990.0, 2000.0, 10.0)),
        (Boxes.NONE, (100, 50, 300, 100), None),
        (Boxes.THOUSANDTHS, (300, 50, 100, 100), None),
        (Boxes.THOUSANDTHS, (100, 50, 100, 50), None),
        (Boxes.THOUSANDTHS, (0, 0, 1500, 900), None),
        (Boxes.THOUSANDTHS, (-200, 0, 500, 900), None),
        (Boxes.THOUSANDTHS, (float("nan"), 0, 500, 900), None),
        (Boxes.THOUSANDTHS, (0, 0, float("inf"), 900), None),
        (Boxes.PIXELS, (0, 0, 10), None),
    ],
    ids=["pixels", "thousandths", "yx", "whole", "overshoot", "none", "backwards"]
    + ["point", "outside", "negative", "nan", "inf", "three"],
)
def test_box_becomes_page_pixels_or_none(
    boxes: Boxes, corners: tuple[float, ...], want: tuple[float, ...] | None
) -> None:
    assert page_bbox(corners, boxes=boxes, image=HALF) == want


@given(st.lists(st.floats(-50, 1100), min_size=4, max_size=4), st.sampled_from(list(Boxes)), st.integers(1, 5000))
def test_box_of_any_numbers_lies_inside_the_page(corners: list[float], boxes: Boxes, width_px: int) -> None:
    image = SentImage(data_uri="", width_px=700, height_px=900, page_width_px=width_px, page_height_px=333)

    box = page_bbox(corners, boxes=boxes, image=image)

    if box is not None:
        x, y, width, height = box
        assert x >= 0 and y >= 0 and width > 0 and height > 0
        assert x + width <= width_px
        assert y + height <= 333


@pytest.mark.parametrize(
    ("size", "longest", "grid", "want"),
    [
        ((400, 200), 2048, 1, (400, 200)),
        ((4000, 2000), 2048, 1, (2048, 1024)),
        ((1000, 3000), 600, 1, (200, 600)),
        ((1000, 1000), 2048, 28, (1008, 1008)),
        ((10, 5000), 1000, 1, (2, 1000)),
        ((1, 5000), 1000, 28, (28, 1008)),
    ],
    ids=["small", "wide", "tall", "grid", "thin", "thin-grid"],
)
def test_page_is_fitted_into_the_longest_side(
    size: tuple[int, int], longest: int, grid: int, want: tuple[int, int]
) -> None:
    assert fitted_size(*size, longest_side_px=longest, grid_px=grid) == want


@pytest.mark.parametrize("image_format", ["png", "jpeg"])
def test_encoded_page_is_labelled_as_what_it_is(image_format: str) -> None:
    page = PageImage(np.full((30, 60, 3), 200, dtype=np.uint8))

    sent = encode_page(
        page,
        longest_side_px=30,
        grid_px=1,
        image_format="png" if image_format == "png" else "jpeg",
        jpeg_quality=90,
    )

    label, _, data = sent.data_uri.partition(";base64,")
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert (f"data:image/{picture.format}".lower(), picture.size) == (label, (30, 15))
        assert picture.convert("RGB").getpixel((5, 5)) == (200, 200, 200)
    assert (sent.width_px, sent.height_px, sent.page_width_px, sent.page_height_px) == (30, 15, 60, 30)


@pytest.mark.parametrize(
    ("model", "want_boxes", "want_dialect", "want_grid"),
    [
        ("qwen/qwen2.5-vl-72b-instruct", Boxes.PIXELS, Dialect.JSON, 28),
        ("Qwen/Qwen2-VL-7B-Instruct", Boxes.THOUSANDTHS, Dialect.JSON, 1),
        ("qwen/qwen3-vl-235b-a22b-instruct", Boxes.THOUSANDTHS, Dialect.JSON, 1),
        ("google/gemma-3-27b-it", Boxes.NONE, Dialect.JSON, 1),
        ("google/gemma-4-31b-it", Boxes.THOUSANDTHS_YX, Dialect.JSON, 1),
        ("deepseek-ai/DeepSeek-OCR-2", Boxes.THOUSANDTHS, Dialect.GROUNDING, 1),
        ("acme/unheard-of", Boxes.NONE, Dialect.JSON, 1),
    ],
    ids=str,
)
def test_family_is_known_by_the_model_id(model: str, want_boxes: Boxes, want_dialect: Dialect, want_grid: int) -> None:
    family = family_of(model)

    assert (family.boxes, family.dialect, family.grid_px) == (want_boxes, want_dialect, want_grid)


def test_prompt_asks_for_boxes_only_where_they_mean_something() -> None:
    with_boxes = prompt_for(dialect=Dialect.JSON, boxes=Boxes.THOUSANDTHS_YX, languages=("ja", "en"))
    without = prompt_for(dialect=Dialect.JSON, boxes=Boxes.NONE, languages=())

    assert '"bbox": [0, 0, 0, 0]' in with_boxes
    assert "[y1, x1, y2, x2]" in with_boxes
    assert "ja, en" in with_boxes
    assert "bbox" not in without
    assert "probably in" not in without
    assert '{"text_regions": []}' in without
