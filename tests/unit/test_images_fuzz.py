"""Whatever bytes come in, the loader answers with a page or with one item error, within bounded memory."""

from __future__ import annotations

import resource

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pagemill_core.errors import ItemError
from pagemill_core.testing.odd_images import ODD_IMAGES
from pagemill_worker.images.count import page_count
from pagemill_worker.images.limits import ImageLimits
from pagemill_worker.images.load import load_page
from pagemill_worker.images.page import PageImage

SEEDS = [(odd.name, odd.make(), odd.page) for odd in ODD_IMAGES]
SMALL = [(name, data, page) for name, data, page in SEEDS if 0 < len(data) < 50_000]
LIMITS = ImageLimits(max_pixels=4_000_000)
GROWTH_LIMIT_KIB = 400 * 1024

edits = st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=12)


def damage(data: bytes, changes: list[tuple[int, int]], keep: float) -> bytes:
    damaged = bytearray(data[: max(1, int(len(data) * keep))])
    for position, value in changes:
        # Half of the changes go into the first 64 bytes, where the structure of most formats lies.
        place = position // 2 % min(64, len(damaged)) if position % 2 else position // 2 % len(damaged)
        damaged[place] = value
    return bytes(damaged)


def load_or_refuse(data: bytes, page: int | None) -> None:
    try:
        loaded = load_page(data, page=page, limits=LIMITS, origin="x")
    except ItemError as error:
        assert error.message.startswith("x: ")
    else:
        assert isinstance(loaded, PageImage)
        assert loaded.pixels.shape == (loaded.height_px, loaded.width_px, 3)


@settings(max_examples=1500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seed=st.sampled_from(SMALL), changes=edits, keep=st.one_of(st.just(1.0), st.floats(0.01, 1.0)))
def test_load_page_damaged_anywhere_gives_a_page_or_an_item_error(
    seed: tuple[str, bytes, int | None], changes: list[tuple[int, int]], keep: float
) -> None:
    _, data, page = seed
    load_or_refuse(damage(data, changes, keep), page)


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=200), page=st.sampled_from([None, 0, 7]))
def test_load_page_any_bytes_gives_a_page_or_an_item_error(data: bytes, page: int | None) -> None:
    load_or_refuse(data, page)


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    seed=st.sampled_from([seed for seed in SMALL if seed[0].startswith(("tiff", "pdf"))]),
    changes=edits,
    keep=st.floats(0.01, 1.0),
)
def test_page_count_damaged_anywhere_gives_a_number_or_an_item_error(
    seed: tuple[str, bytes, int | None], changes: list[tuple[int, int]], keep: float
) -> None:
    try:
        assert page_count(damage(seed[1], changes, keep), origin="x") >= 1
    except ItemError as error:
        assert error.message.startswith("x: ")


@pytest.mark.parametrize("name", [name for name, _, _ in SEEDS if "bomb" in name or "square" in name or "900" in name])
def test_load_page_bomb_is_refused_without_growing(name: str) -> None:
    data = next(data for seed, data, _ in SEEDS if seed == name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    load_or_refuse(data, None)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024


def test_load_page_every_single_byte_changed_gives_a_page_or_an_item_error() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _, data, page in SMALL:
        for position in range(0, min(len(data), 120)):
            load_or_refuse(data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :], page)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH_LIMIT_KIB
