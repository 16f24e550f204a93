"""Views only move upwards in seq, show committed data, and can be written again at any time."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from pagemill_core.errors import ThrottledError
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.testing.scripted_store import Answer, ScriptedStore
from pagemill_core.work.commit import crc32
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.publish import META_CRC32, META_SEQ, View, publish_shard, publish_view, read_published

KEY = "ocr_results/page_ocr.json"


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore(MemoryStore())


@pytest.fixture
def writer(store: ScriptedStore) -> Writer:
    return Writer(store, FakeClock(), random.Random(1))


def there(store: ScriptedStore) -> tuple[bytes, str]:
    blob = store.inner.get(KEY)
    return blob.data, blob.meta.get(META_SEQ, "")


@pytest.mark.parametrize(
    ("before", "want_kept", "want"),
    [
        (None, True, (b"new", "2")),
        ((b"old", {META_SEQ: "1"}), True, (b"new", "2")),
        ((b"new", {META_SEQ: "2", META_CRC32: crc32(b"new")}), True, (b"new", "2")),
        ((b"bad", {META_SEQ: "2", META_CRC32: crc32(b"new")}), True, (b"bad", "2")),
        ((b"half", {META_SEQ: "2", META_CRC32: crc32(b"new")}), True, (b"new", "2")),
        ((b"other", {META_SEQ: "2", META_CRC32: crc32(b"other")}), True, (b"new", "2")),
        ((b"newer", {META_SEQ: "3"}), False, (b"newer", "3")),
        ((b"users", {}), True, (b"new", "2")),
        ((b"users", {META_SEQ: "two"}), True, (b"new", "2")),
        ((b"old", {META_SEQ: "1"}), True, (b"new", "2")),
    ],
    ids=[
        "absent",
        "older",
        "same",
        "same-by-meta",
        "same-seq-other-size",
        "same-seq-other-bytes",
        "newer",
        "foreign",
        "foreign-with-odd-meta",
        "older-again",
    ],
)
def test_publish_view_over_what_is_there(
    writer: Writer,
    store: ScriptedStore,
    before: tuple[bytes, dict[str, str]] | None,
    want_kept: bool,
    want: tuple[bytes, str],
) -> None:
    if before is not None:
        store.inner.put(KEY, before[0], meta=before[1])

    assert publish_view(writer, View(KEY, b"new"), 2) is want_kept
    assert there(store) == want


@pytest.mark.parametrize("answer", [Answer.LOST, Answer.TOLD_EXISTS, Answer.REFUSED, Answer.THROTTLED])
@pytest.mark.parametrize("operation", ["put_if_absent", "put_if_match"])
def test_publish_view_whatever_the_answer_is_written(
    writer: Writer, store: ScriptedStore, operation: str, answer: Answer
) -> None:
    if operation == "put_if_match":
        store.inner.put(KEY, b"old", meta={META_SEQ: "1"})
    store.script(operation, answer)

    assert publish_view(writer, View(KEY, b"new"), 2)
    assert there(store) == (b"new", "2")


def at(operation: str, store: ScriptedStore, act: Callable[[], object]) -> None:
    """Let somebody else act once, right before our next `operation`."""

    def before(called: str, _key: str) -> None:
        if called == operation:
            store.before = None
            act()

    store.before = before


@pytest.mark.parametrize("operation", ["put_if_absent", "head", "put_if_match"])
def test_publish_view_newer_run_comes_between_any_two_steps_and_stays(
    writer: Writer, store: ScriptedStore, operation: str
) -> None:
    store.inner.put(KEY, b"old", meta={META_SEQ: "1"})
    at(operation, store, lambda: store.inner.put(KEY, b"newer", meta={META_SEQ: "3"}))

    assert not publish_view(writer, View(KEY, b"new"), 2)
    assert there(store) == (b"newer", "3")


def test_publish_view_older_run_comes_between_is_replaced(writer: Writer, store: ScriptedStore) -> None:
    at("put_if_absent", store, lambda: store.inner.put(KEY, b"old", meta={META_SEQ: "1"}))

    assert publish_view(writer, View(KEY, b"new"), 2)
    assert there(store) == (b"new", "2")


def test_publish_view_deleted_between_steps_is_written_again(writer: Writer, store: ScriptedStore) -> None:
    store.inner.put(KEY, b"old", meta={META_SEQ: "1"})
    at("head", store, lambda: store.inner.delete(KEY))

    assert publish_view(writer, View(KEY, b"new"), 2)
    assert there(store) == (b"new", "2")


def test_publish_view_without_an_answer_until_the_deadline_raises(writer: Writer, store: ScriptedStore) -> None:
    store.script("put_if_absent", *[Answer.THROTTLED] * 1000)

    with pytest.raises(ThrottledError):
        publish_view(writer, View(KEY, b"new"), 2)


def test_publish_shard_writes_views_first_and_then_the_record(writer: Writer, store: ScriptedStore) -> None:
    layout = RunLayout("00000002-aaaaaaaa")
    views = [View("a.json", b"a"), View("b.json", b"bb")]

    record = publish_shard(writer, layout, 7, views)

    written = [key for operation, key in store.calls if operation.startswith("put")]
    assert written == ["a.json", "b.json", layout.published(7)]
    assert read_published(writer, layout, 7) == record
    assert [(view.key, view.size, view.crc32) for view in record.views] == [
        ("a.json", 1, crc32(b"a")),
        ("b.json", 2, crc32(b"bb")),
    ]


def test_publish_shard_twice_writes_the_same_bytes(writer: Writer, store: ScriptedStore) -> None:
    layout = RunLayout("00000002-aaaaaaaa")
    publish_shard(writer, layout, 7, [View(KEY, b"a")])
    before = {info.key: store.inner.get(info.key).data for info in store.inner.list("")}
    publish_shard(writer, layout, 7, [View(KEY, b"a")])

    assert {info.key: store.inner.get(info.key).data for info in store.inner.list("")} == before


def test_read_published_of_a_shard_without_views_is_none(writer: Writer) -> None:
    assert read_published(writer, RunLayout("00000002-aaaaaaaa"), 7) is None
