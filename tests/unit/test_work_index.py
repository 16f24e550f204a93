"""The item index is shown by one pointer that only moves to newer runs."""

from __future__ import annotations

import random

import pytest

from pagemill_core.errors import StoreUnavailableError
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.testing.scripted_store import Answer, ScriptedStore
from pagemill_core.work.conditional import Writer
from pagemill_core.work.index import read_index, show_index
from pagemill_core.work.layout import INDEX_POINTER
from pagemill_core.work.records import IndexPart, IndexPointer


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore(MemoryStore())


@pytest.fixture
def writer(store: ScriptedStore) -> Writer:
    return Writer(store, FakeClock(), random.Random(1))


def pointer(seq: int, attempt: str = "a") -> IndexPointer:
    return IndexPointer(seq=seq, run=f"{seq:08d}-aaaaaaaa", parts=[IndexPart(key=attempt, size=1, rows=1)])


@pytest.mark.parametrize("answer", [Answer.OK, Answer.LOST, Answer.TOLD_EXISTS, Answer.REFUSED, Answer.THROTTLED])
@pytest.mark.parametrize("operation", ["put_if_absent", "put_if_match"])
def test_show_index_whatever_the_answer_is_shown(
    writer: Writer, store: ScriptedStore, operation: str, answer: Answer
) -> None:
    if operation == "put_if_match":
        show_index(writer, pointer(1))
    store.script(operation, answer)

    assert show_index(writer, pointer(2))
    assert read_index(writer) == pointer(2)


def test_show_index_of_an_older_run_changes_nothing(writer: Writer) -> None:
    show_index(writer, pointer(3))

    assert not show_index(writer, pointer(2))
    assert read_index(writer) == pointer(3)


def test_show_index_second_finalizer_of_a_run_leaves_the_first_ones(writer: Writer) -> None:
    show_index(writer, pointer(2, "first"))

    assert not show_index(writer, pointer(2, "second"))
    assert show_index(writer, pointer(2, "first"))
    assert read_index(writer) == pointer(2, "first")


def test_show_index_newer_run_comes_between_and_stays(writer: Writer, store: ScriptedStore) -> None:
    show_index(writer, pointer(1))

    def newer_first(operation: str, key: str) -> None:
        if operation == "put_if_match":
            store.before = None
            store.inner.put(key, pointer(3).to_bytes())

    store.before = newer_first

    assert not show_index(writer, pointer(2))
    assert read_index(writer) == pointer(3)


def test_show_index_on_a_store_that_contradicts_itself_gives_up(writer: Writer, store: ScriptedStore) -> None:
    """It exists, and it is not there, for ever: waits in between, and ends."""
    store.inner.put(INDEX_POINTER, pointer(1).to_bytes())
    store.script("get", *[Answer.NOT_FOUND] * 1000)

    with pytest.raises(StoreUnavailableError):
        show_index(writer, pointer(2))


def test_read_index_before_the_first_is_none(writer: Writer) -> None:
    assert read_index(writer) is None
