"""Failure limits, money and quantities: exact arithmetic behind strings."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagemill_core.api.quantities import FailureLimit, parse_money, parse_quantity, quantity_bytes
from pagemill_core.api.v1alpha1 import Budget, Retries


@pytest.mark.parametrize(
    ("text", "item_count", "want_allowed"),
    [
        ("25", 1000, 25),
        ("0", 1000, 0),
        ("1%", 100, 1),
        ("1%", 99, 0),
        ("0%", 10_000, 0),
        ("100%", 7, 7),
        ("0.1%", 1000, 1),
        ("33.333333%", 3, 0),
        ("50%", 3, 1),
    ],
)
def test_failure_limit_allows_the_count_or_the_share_rounded_down(
    text: str, item_count: int, want_allowed: int
) -> None:
    limit = FailureLimit.parse(text)
    assert limit.allowed(item_count) == want_allowed
    assert not limit.is_exceeded(failed_count=want_allowed, item_count=item_count)
    assert limit.is_exceeded(failed_count=want_allowed + 1, item_count=item_count)
    assert str(limit) == text


@pytest.mark.parametrize("text", ["", "-1", "1.5", "101%", "1 %", "%", "1%%", "NaN%", "١%", "1\n"])
def test_failure_limit_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        FailureLimit.parse(text)


@given(st.integers(0, 10_000), st.integers(0, 100))
def test_failure_limit_share_never_allows_more_than_its_part(item_count: int, percent: int) -> None:
    allowed = FailureLimit.parse(f"{percent}%").allowed(item_count)
    assert allowed * 100 <= percent * item_count < (allowed + 1) * 100


def test_failure_limit_comes_typed_out_of_the_spec() -> None:
    assert Retries().failure_limit == FailureLimit(percent=Decimal(1))
    assert Retries(max_failed_items="25").failure_limit == FailureLimit(count=25)


def test_money_is_exact() -> None:
    assert parse_money("0.1") + parse_money("0.2") == Decimal("0.3")
    assert Budget(max_cost="25.00").max_cost_amount == Decimal(25)


@pytest.mark.parametrize("text", ["", "x", "-1", "NaN", "Infinity", "1,5"])
def test_money_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="money"):
        parse_money(text)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("2", Decimal(2)),
        ("500m", Decimal("0.5")),
        (".5", Decimal("0.5")),
        ("1k", Decimal(1000)),
        ("1Ki", Decimal(1024)),
        ("8Gi", Decimal(8 * 1024**3)),
        ("1.5G", Decimal(1_500_000_000)),
        ("2E", Decimal(2 * 10**18)),
    ],
)
def test_quantity_is_read_as_kubernetes_reads_it(text: str, want: Decimal) -> None:
    assert parse_quantity(text) == want


@pytest.mark.parametrize("text", ["", "8GB", "-1", "1e3", "8 Gi", "Gi", "ki"])
def test_quantity_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no quantity"):
        parse_quantity(text)


def test_quantity_bytes_part_of_a_byte_is_rounded_up() -> None:
    assert quantity_bytes("1500m") == 2
    assert quantity_bytes("512Mi") == 512 * 1024**2
