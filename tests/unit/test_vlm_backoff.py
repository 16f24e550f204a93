"""How long a busy endpoint is waited for."""

from __future__ import annotations

import datetime as dt
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagemill_worker.ocr.vlm_backoff import most_waits, retry_after_s, wait_s

NOW = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("header", "want_s"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("inf", None),
        ("nan", None),
        ("30", 30.0),
        (" 2.5 ", 2.5),
        ("-4", 0.0),
        ("Sun, 01 Mar 2026 12:01:30 GMT", 90.0),
        ("Sun, 01 Mar 2026 14:00:30 +0200", 30.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("Sun, 99 Mar 2026 11:00:00 GMT", None),
    ],
    ids=str,
)
def test_retry_after_is_seconds_or_a_date(header: str | None, want_s: float | None) -> None:
    assert retry_after_s(header, NOW) == want_s


@given(st.integers(0, 40), st.integers(0, 1000))
def test_wait_without_a_wish_is_jitter_over_doubling_steps(waits_before: int, seed: int) -> None:
    step_s = min(120.0, 10.0 * 2**waits_before)

    assert step_s / 10 <= wait_s(waits_before, asked_s=None, dice=random.Random(seed)) <= step_s


@given(st.integers(0, 40), st.floats(0, 1e6), st.integers(0, 1000))
def test_wait_with_a_wish_is_never_shorter_than_it(waits_before: int, asked_s: float, seed: int) -> None:
    waited_s = wait_s(waits_before, asked_s=asked_s, dice=random.Random(seed))

    assert asked_s <= waited_s <= max(asked_s, 12.0) + 12.0
    assert waited_s >= 1.0


def test_waits_are_the_same_for_the_same_dice() -> None:
    rows = [[wait_s(count, asked_s=None, dice=random.Random(3)) for count in range(5)] for _ in range(2)]

    assert rows[0] == rows[1]


@pytest.mark.parametrize(("patience_s", "want_count"), [(0, 0), (1, 1), (15, 4), (600, 53)])
def test_patience_bounds_the_number_of_waits(patience_s: float, want_count: int) -> None:
    assert most_waits(patience_s) == want_count
