"""One marker per shard, created once; whoever wrote it knows, and it never says what does not add up."""

from __future__ import annotations

import random

import pytest

from pagemill_core.errors import IntegrityError
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.testing.scripted_store import Answer, ScriptedStore
from pagemill_core.work.commit import MAX_MARKER_BYTES, commit, crc32, put_output, read_marker, read_output
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.records import Counts, FailureSample, Marker

LAYOUT = RunLayout("00000001-aaaaaaaa")
GOOD = Counts(planned=3, succeeded=1, failed=1, skipped=1)


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore(MemoryStore())


@pytest.fixture
def writer(store: ScriptedStore) -> Writer:
    return Writer(store, FakeClock(), random.Random(1))


def make_marker(attempt: str = "mine", *, items: Counts = GOOD, message: str = "") -> Marker:
    return Marker(
        shard=7,
        attempt=attempt,
        plan="p",
        fingerprint="f",
        items=items,
        failures=[FailureSample(item="page", error_class="NotAnImage", message=message)],
        started="2026-01-01T00:00:00.000Z",
        finished="2026-01-01T00:00:01.000Z",
    )


@pytest.mark.parametrize("answer", [Answer.OK, Answer.LOST, Answer.TOLD_EXISTS, Answer.REFUSED, Answer.THROTTLED])
def test_commit_first_whatever_the_answer_wins_and_knows_it(
    writer: Writer, store: ScriptedStore, answer: Answer
) -> None:
    store.script("put_if_absent", answer)

    committed = commit(writer, LAYOUT, make_marker())

    assert committed.won
    assert committed.marker == make_marker()
    assert read_marker(writer, LAYOUT, 7) == make_marker()


@pytest.mark.parametrize("answer", [Answer.OK, Answer.LOST, Answer.REFUSED])
def test_commit_second_loses_and_is_shown_the_marker_that_counts(
    writer: Writer, store: ScriptedStore, answer: Answer
) -> None:
    commit(writer, LAYOUT, make_marker("first"))
    store.script("put_if_absent", answer)

    committed = commit(writer, LAYOUT, make_marker("second"))

    assert (committed.won, committed.marker.attempt) == (False, "first")


def test_commit_repeated_by_the_winner_still_won(writer: Writer) -> None:
    assert commit(writer, LAYOUT, make_marker()).won
    assert commit(writer, LAYOUT, make_marker()).won


@pytest.mark.parametrize(
    "items",
    [
        Counts(planned=4, succeeded=1, failed=1, skipped=1),
        Counts(planned=2, succeeded=1, failed=1, skipped=1),
        Counts(planned=1),
        Counts(succeeded=1),
    ],
    ids=["lost-one", "one-too-many", "none-ended", "unplanned"],
)
def test_commit_counts_that_do_not_add_up_are_refused_before_writing(
    writer: Writer, store: ScriptedStore, items: Counts
) -> None:
    with pytest.raises(IntegrityError, match="shard 7"):
        commit(writer, LAYOUT, make_marker(items=items))

    assert store.calls == []


def test_commit_marker_over_four_kilobytes_is_refused_before_writing(writer: Writer, store: ScriptedStore) -> None:
    with pytest.raises(IntegrityError, match=str(MAX_MARKER_BYTES)):
        commit(writer, LAYOUT, make_marker(message="x" * MAX_MARKER_BYTES))

    assert store.calls == []


def test_commit_damaged_marker_there_says_which(writer: Writer, store: ScriptedStore) -> None:
    store.inner.put(LAYOUT.marker(7), b'{"v": 9}')

    with pytest.raises(IntegrityError, match="commit/00000/00000007"):
        commit(writer, LAYOUT, make_marker())


def test_read_marker_of_an_unfinished_shard_is_none(writer: Writer) -> None:
    assert read_marker(writer, LAYOUT, 7) is None


def test_put_output_lies_under_its_own_attempt_and_reads_back(writer: Writer) -> None:
    mine = put_output(writer, LAYOUT, (7, "mine", "rows.parquet"), b"rows", 2)
    theirs = put_output(writer, LAYOUT, (7, "theirs", "rows.parquet"), b"other", 2)

    assert mine.key != theirs.key
    assert "/00000007/mine/" in mine.key
    assert (mine.size, mine.rows, mine.crc32) == (4, 2, crc32(b"rows"))
    assert read_output(writer, mine) == b"rows"


def test_read_output_damaged_or_gone_is_an_integrity_error(writer: Writer, store: ScriptedStore) -> None:
    output = put_output(writer, LAYOUT, (7, "mine", "rows.parquet"), b"rows", 2)

    store.inner.put(output.key, b"r0ws")
    with pytest.raises(IntegrityError, match="does not match"):
        read_output(writer, output)
    store.inner.delete(output.key)
    with pytest.raises(IntegrityError, match="gone"):
        read_output(writer, output)


def test_crc32_is_eight_hexadecimal_digits() -> None:
    assert crc32(b"") == "00000000"
    assert crc32(b"123456789") == "cbf43926"  # the check value of CRC-32/ISO-HDLC
