"""Committed and partial rows: what goes in comes out, the same rows are the same bytes, damage is noticed."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagemill_core.errors import IntegrityError
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_worker.items import ItemFailure, ItemResult, PlannedItem
from pagemill_worker.work import shard_data
from pagemill_worker.work.partials import verified_partials

FINGERPRINT = "f" * 64
LAYOUT = RunLayout("00000001-0123abcd")
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts


@st.composite
def results(draw: st.DrawFn) -> list[ItemResult]:
    rows = draw(st.lists(st.integers(0, 10**12), unique=True, max_size=6))
    return [draw(result_of_row(row)) for row in rows]


@st.composite
def result_of_row(draw: st.DrawFn, row: int) -> ItemResult:
    status = draw(st.sampled_from(("succeeded", "failed", "skipped")))
    failure = ItemFailure("ImageMissing", draw(texts)) if status == "failed" else None
    item = PlannedItem(
        row=row,
        id=draw(texts.filter(bool)),
        uri=draw(texts),
        page=draw(st.none() | st.integers(0, 999)),
        size_bytes=draw(st.none() | st.integers(0, 2**40)),
        version=draw(st.none() | texts),
        columns=draw(st.dictionaries(texts, scalars, max_size=3)),
        failure=failure,
    )
    payload: dict[str, Any] | None = (
        draw(st.dictionaries(texts, scalars, max_size=3)) if status == "succeeded" else None
    )
    return ItemResult(item, status, payload, failure, {"fetch": 0.25}, draw(st.none() | texts))


@given(rows=results())
@settings(max_examples=60)
def test_rows_come_back_as_they_were_in_row_order(rows: list[ItemResult]) -> None:
    data = shard_data.encode(rows, FINGERPRINT)
    want = sorted(rows, key=lambda result: result.item.row)
    got = shard_data.decode(data, FINGERPRINT, "key")
    assert [without_what_is_not_kept(row) for row in got] == [without_what_is_not_kept(row) for row in want]


def without_what_is_not_kept(result: ItemResult) -> ItemResult:
    return replace(result, item=replace(result.item, earlier_version=None))


@given(rows=results(), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_rows_in_any_order_are_the_same_bytes(rows: list[ItemResult], seed: int) -> None:
    shuffled = random.Random(seed).sample(rows, len(rows))
    assert shard_data.encode(rows, FINGERPRINT) == shard_data.encode(shuffled, FINGERPRINT)


def make_result(row: int, status: Any = "succeeded", message: str = "") -> ItemResult:
    failure = ItemFailure("EngineFailed", message) if status == "failed" else None
    payload = {"v": 1} if status == "succeeded" else None
    return ItemResult(PlannedItem(row=row, id=f"i{row}", uri=f"x/{row}"), status, payload, failure)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "stranger"])
def test_rows_damaged_are_refused_by_name(damage: str) -> None:
    whole = shard_data.encode([make_result(0), make_result(1)], FINGERPRINT)
    damaged = {"cut": whole[: len(whole) // 2], "flipped": b"X" + whole[1:-1] + b"X", "empty": b"", "stranger": b"{}"}
    with pytest.raises(IntegrityError, match=r"some/key"):
        shard_data.decode(damaged[damage], FINGERPRINT, "some/key")


def test_rows_of_another_fingerprint_are_refused() -> None:
    data = shard_data.encode([make_result(0)], "e" * 64)
    with pytest.raises(IntegrityError, match="made with fingerprint eeeeeeeeeeee, not ffffffffffff"):
        shard_data.decode(data, FINGERPRINT, "key")


def test_rows_with_half_a_surrogate_pair_in_a_message_are_kept_without_it() -> None:
    data = shard_data.encode([make_result(0, "failed", "bad \ud800 text")], FINGERPRINT)
    (row,) = shard_data.decode(data, FINGERPRINT, "key")
    assert row.failure is not None
    assert row.failure.message == "bad ? text"


def test_failure_classes_show_one_bug_as_one_class() -> None:
    same = [make_result(n, "failed", f"x raised ValueError: page {n} (traceback 0123456789ab)") for n in range(3)]
    other = [make_result(9, "failed", "x raised KeyError (traceback ba9876543210)")]
    plain = [make_result(8, "failed", "no traceback here")]
    assert shard_data.failure_classes([*same, *other, *plain]) == {
        "EngineFailed#0123456789ab": 3,
        "EngineFailed#ba9876543210": 1,
        "EngineFailed": 1,
    }


def test_failure_classes_and_samples_stay_small_however_many_there_are() -> None:
    rows = [make_result(n, "failed", f"raised (traceback {n:012x})" + " " * 5000) for n in range(100)]
    rows = [
        replace(row, failure=ItemFailure("EngineFailed", f"{'long ' * 200}(traceback {n:012x})"))
        for n, row in enumerate(rows)
    ]
    classes = shard_data.failure_classes(rows)
    assert sum(classes.values()) == 100
    assert len(classes) <= shard_data.MAX_CLASSES_IN_MARKER + 1
    samples = shard_data.failure_samples(rows)
    assert len(samples) == shard_data.MAX_FAILURES_IN_MARKER
    assert all(len(sample.message) <= shard_data.MAX_SAMPLE_CHARS for sample in samples)


def test_counts_by_state_add_up() -> None:
    counts = shard_data.count([make_result(0), make_result(1, "failed"), make_result(2, "skipped"), make_result(3)])
    assert (counts.planned, counts.succeeded, counts.failed, counts.skipped) == (4, 2, 1, 1)
    assert counts.add_up()


def put_partial(writer: Writer, attempt: str, rows: list[ItemResult], fingerprint: str = FINGERPRINT) -> str:
    key = LAYOUT.partial(0, attempt)
    writer.put(key, shard_data.encode(rows, fingerprint))
    return key


def test_partials_of_several_attempts_are_taken_together_and_the_newest_row_counts() -> None:
    writer = Writer(MemoryStore(), FakeClock())
    older = replace(make_result(1), payload={"from": "older"})
    newer = replace(make_result(1), payload={"from": "newer"})
    written = [put_partial(writer, "01B", [newer]), put_partial(writer, "01A", [make_result(0), older])]
    items = [make_result(row).item for row in range(3)]
    found = verified_partials(writer, written, items, FINGERPRINT)
    assert sorted(found) == [0, 1]
    assert found[1].payload == {"from": "newer"}


def test_partials_that_are_gone_damaged_failed_or_of_others_are_passed_over() -> None:
    writer = Writer(MemoryStore(), FakeClock())
    writer.put(LAYOUT.partial(0, "01C"), b"half a fi")
    stranger = replace(make_result(2), item=PlannedItem(row=2, id="other", uri="x"))
    written = [
        LAYOUT.partial(0, "01A"),
        LAYOUT.partial(0, "01C"),
        put_partial(writer, "01D", [make_result(0)], "e" * 64),
        put_partial(writer, "01E", [make_result(1, "failed"), stranger, make_result(7)]),
    ]
    items = [make_result(row).item for row in range(3)]
    assert verified_partials(writer, written, items, FINGERPRINT) == {}
