"""What RapidOCR's adapter gives the package to read."""

from __future__ import annotations

import numpy as np
import pytest

from pagemill_worker.ocr.rapidocr import within_aspect


@pytest.mark.parametrize(
    ("width", "height", "want_width", "want_height"),
    [(1240, 1754, 1240, 1754), (8, 500, 100, 500), (2000, 12, 2000, 400), (100, 501, 101, 501), (100, 500, 100, 500)],
)
def test_within_aspect_strip_is_widened_with_white_and_a_page_is_left(
    width: int, height: int, want_width: int, want_height: int
) -> None:
    padded = within_aspect(np.zeros((height, width, 3), np.uint8))
    assert padded.shape == (want_height, want_width, 3)
    assert not padded[:height, :width].any()
    assert (padded[height:] == 255).all() and (padded[:, width:] == 255).all()
