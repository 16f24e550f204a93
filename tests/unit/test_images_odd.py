"""Every odd file is decoded right or refused by its own class: the table lives in core.testing.odd_images."""

from __future__ import annotations

import numpy as np
import pytest

from pagemill_core.errors import ImageTooSmall
from pagemill_core.testing.odd_images import READABLE, REFUSED, OddImage, Readable
from pagemill_worker.images.limits import ImageLimits
from pagemill_worker.images.load import load_page

LIMITS = ImageLimits()


@pytest.mark.parametrize("odd", READABLE, ids=lambda odd: odd.name)
def test_load_page_odd_but_whole_gives_the_pictures_own_pixels(odd: OddImage) -> None:
    want = odd.want
    assert isinstance(want, Readable)
    page = load_page(odd.make(), page=odd.page, limits=LIMITS, origin="x")
    pixels = page.pixels
    assert (page.width_px, page.height_px) == (want.width_px, want.height_px)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    assert page.frames == want.frames
    rows, columns = (want.height_px // 4, want.height_px * 3 // 4), (want.width_px // 4, want.width_px * 3 // 4)
    found = [pixels[row, column].astype(int) for row in rows for column in columns]
    for got, quarter in zip(found, want.quarters, strict=True):
        assert np.abs(got - quarter).max() <= want.tolerance, (found, want.quarters)


@pytest.mark.parametrize("odd", REFUSED, ids=lambda odd: odd.name)
def test_load_page_bad_file_fails_with_its_own_class_and_names_the_file(odd: OddImage) -> None:
    assert isinstance(odd.want, type)
    with pytest.raises(odd.want) as caught:
        load_page(odd.make(), page=odd.page, limits=LIMITS, origin="s3://library/p.png")
    assert type(caught.value) is odd.want
    assert caught.value.message.startswith("s3://library/p.png: ")
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("odd", READABLE, ids=lambda odd: odd.name)
def test_load_page_repeated_gives_the_same_pixels(odd: OddImage) -> None:
    first, second = (load_page(odd.make(), page=odd.page, limits=LIMITS, origin="x") for _ in range(2))
    assert np.array_equal(first.pixels, second.pixels)


def test_load_page_below_the_callers_minimum_is_too_small() -> None:
    one_pixel = next(odd for odd in READABLE if odd.name == "jpeg-1x1").make()
    with pytest.raises(ImageTooSmall):
        load_page(one_pixel, page=None, limits=ImageLimits(min_side_px=2), origin="x")
