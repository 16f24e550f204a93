"""The reading order of boxes: rows, columns, skew, tables, comics, manga."""

from __future__ import annotations

import itertools
import math
import random
import time

import pytest

from pagemill_worker.ocr.reading_order import reading_order, text_angle
from pagemill_worker.ocr.regions import Polygon, rectangle

LINE = 20.0  # pixels


def line(left: float, top: float, width: float, height: float = LINE) -> Polygon:
    return rectangle(left, top, left + width, top + height)


def turned(polygon: Polygon, degrees: float) -> Polygon:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return tuple((x * cos - y * sin, x * sin + y * cos) for x, y in polygon)


def paragraph(left: float, top: float, width: float, line_count: int, pitch: float = 30.0) -> list[Polygon]:
    return [line(left, top + pitch * index, width) for index in range(line_count)]


def test_reading_order_no_boxes_is_empty() -> None:
    assert reading_order([]) == []


def test_reading_order_one_column_reads_downwards_whatever_the_order_found() -> None:
    lines = paragraph(50, 100, 600, 12)
    shuffled = list(range(12))
    random.Random(7).shuffle(shuffled)
    order = reading_order([lines[index] for index in shuffled])
    assert [shuffled[index] for index in order] == list(range(12))


def test_reading_order_two_columns_read_one_after_the_other() -> None:
    left, right = paragraph(50, 100, 300, 8), paragraph(400, 100, 300, 8)
    found = list(itertools.chain.from_iterable(zip(left, right, strict=True)))
    assert [found[index] for index in reading_order(found)] == left + right


def test_reading_order_headline_over_columns_comes_first_and_footer_last() -> None:
    headline, footer = line(50, 60, 650), line(50, 350, 650)
    left, right = paragraph(50, 100, 300, 8), paragraph(400, 110, 300, 8)
    found = [footer, *right, *left, headline]
    assert [found[index] for index in reading_order(found)] == [headline, *left, *right, footer]


def test_reading_order_two_degrees_of_skew_do_not_mix_lines() -> None:
    straight = [*paragraph(50, 100, 500, 10), *paragraph(650, 100, 500, 10)]
    skewed = [turned(polygon, 2) for polygon in straight]
    assert math.degrees(text_angle(skewed)) == pytest.approx(2)
    assert reading_order(skewed) == list(range(20))


def test_reading_order_table_reads_row_by_row() -> None:
    cells = [line(left, top, 60) for top in (100, 130, 160, 190) for left in (50, 250, 450)]
    assert reading_order(cells) == list(range(12))


def test_reading_order_line_in_pieces_reads_along_the_line() -> None:
    pieces = [line(50, 100, 200), line(258, 103, 200), line(466, 99, 200)]
    rows = [*pieces, *paragraph(50, 130, 616, 3)]
    assert reading_order(rows) == list(range(6))


def test_reading_order_comic_panels_read_row_by_row_then_balloon_by_balloon() -> None:
    # Two panels above two panels; the balloons' lines do not stand on common baselines.
    balloons = [
        paragraph(60, 60, 120, 3, 24),
        paragraph(420, 70, 130, 2, 24),
        paragraph(70, 400, 110, 2, 24),
        paragraph(430, 409, 120, 3, 24),
    ]
    want_order = list(itertools.chain.from_iterable(balloons))
    found = sorted(want_order, key=lambda polygon: (polygon[0][1], polygon[0][0]))
    assert [found[index] for index in reading_order(found)] == want_order


def test_reading_order_right_to_left_reads_the_right_balloon_and_column_first() -> None:
    left, right = paragraph(60, 60, 120, 3, 24), paragraph(420, 70, 130, 3, 24)
    found = left + right
    assert [found[index] for index in reading_order(found, "right-to-left")] == right + left


def test_reading_order_vertical_lines_of_manga_read_from_the_right() -> None:
    columns = [line(left, 100, 24, 200) for left in (100, 130, 160)]
    assert reading_order(columns, "right-to-left") == [2, 1, 0]


@pytest.mark.parametrize("seed", range(5))
def test_reading_order_scattered_boxes_gives_each_once_and_independent_of_their_order(seed: int) -> None:
    chance = random.Random(seed)
    boxes = [line(chance.uniform(0, 900), chance.uniform(0, 1200), chance.uniform(20, 300)) for _ in range(60)]
    order = reading_order(boxes)
    assert sorted(order) == list(range(60))
    shuffled = list(range(60))
    chance.shuffle(shuffled)
    again = reading_order([boxes[index] for index in shuffled])
    assert [shuffled[index] for index in again] == order


def test_reading_order_boxes_without_extent_are_kept() -> None:
    assert sorted(reading_order([line(5, 5, 0, 0), line(5, 5, 0, 0)])) == [0, 1]


def test_reading_order_column_that_starts_higher_than_its_neighbour_is_read_first() -> None:
    left, right = [line(50, 46, 150), line(50, 80, 150)], [line(400, 66, 100), line(400, 100, 100)]
    found = sorted(left + right, key=lambda polygon: polygon[0][1])
    assert [found[index] for index in reading_order(found)] == left + right


def test_reading_order_five_hundred_lines_take_no_time_to_speak_of() -> None:
    chance = random.Random(1)
    lines = [line(50 + chance.uniform(0, 30), 25.0 * row, chance.uniform(200, 900)) for row in range(500)]
    started_s = time.process_time()
    assert reading_order(lines) == list(range(500))
    assert time.process_time() - started_s < 2
