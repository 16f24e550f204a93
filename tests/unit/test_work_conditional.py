"""Every answer a store can give to a conditional write ends in won or lost, by the table of core.work.conditional."""

from __future__ import annotations

import random

import pytest

from pagemill_core.errors import AccessDeniedError, StoreUnavailableError, ThrottledError
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.testing.scripted_store import Answer, ScriptedStore
from pagemill_core.work.conditional import DENIED_PATIENCE_S, Backoff, Proof, Writer, create_once, swap_once

KEY = "commit/00000000"


class FirstMiddle(random.Random):
    """Draws the middle of every range, so that waits are exact."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def make_writer(*, proven: bool = False) -> tuple[Writer, ScriptedStore, FakeClock]:
    store, clock = ScriptedStore(MemoryStore()), FakeClock()
    return Writer(store, clock, FirstMiddle(), proof=Proof(proven)), store, clock


@pytest.mark.parametrize(
    ("creates", "gets", "want_creates"),
    [
        ((Answer.OK,), (), 1),
        ((Answer.TOLD_EXISTS,), (), 1),
        ((Answer.LOST,), (), 2),
        ((Answer.REFUSED,), (), 2),
        ((Answer.THROTTLED,), (), 2),
        ((Answer.REFUSED, Answer.LOST, Answer.THROTTLED), (), 4),
        ((Answer.TOLD_EXISTS,), (Answer.REFUSED,), 2),
        ((Answer.TOLD_EXISTS,), (Answer.NOT_FOUND,), 2),
    ],
    ids=["token", "exists-ours", "reply-lost", "503", "429", "many", "exists-read-fails", "exists-then-not-found"],
)
def test_create_once_alone_wins_whatever_the_answers(
    creates: tuple[Answer, ...], gets: tuple[Answer, ...], want_creates: int
) -> None:
    writer, store, _ = make_writer()
    store.script("put_if_absent", *creates)
    store.script("get", *gets)

    created = create_once(writer, KEY, b"mine", lambda data: data == b"mine")

    assert (created.won, created.data) == (True, b"mine")
    assert created.token == store.inner.get(KEY).token
    assert store.count("put_if_absent") == want_creates


@pytest.mark.parametrize("answer", [Answer.OK, Answer.REFUSED, Answer.LOST, Answer.THROTTLED])
def test_create_once_against_another_loses_and_shows_its_bytes(answer: Answer) -> None:
    writer, store, _ = make_writer()
    token = store.inner.put(KEY, b"theirs")
    store.script("put_if_absent", answer)

    created = create_once(writer, KEY, b"mine", lambda data: data == b"mine")

    assert (created.won, created.data, created.token) == (False, b"theirs", token)


def test_create_once_another_creates_between_refusal_and_retry_loses() -> None:
    writer, store, clock = make_writer()
    store.script("put_if_absent", Answer.REFUSED)

    def create_first(_operation: str, key: str) -> None:
        if clock.sleeps:
            store.inner.put(key, b"theirs")

    store.before = create_first

    assert not create_once(writer, KEY, b"mine", lambda data: data == b"mine").won


def test_create_once_exists_then_gone_writes_the_same_again() -> None:
    writer, store, _ = make_writer()
    store.inner.put(KEY, b"theirs")

    def vanish(operation: str, key: str) -> None:
        if operation == "get":
            store.inner.delete(key)

    store.before = vanish

    assert create_once(writer, KEY, b"mine", lambda data: data == b"mine").won
    assert store.inner.get(KEY).data == b"mine"


def test_create_once_no_answer_until_the_deadline_raises_the_last_error() -> None:
    writer, store, clock = make_writer()
    store.script("put_if_absent", *[Answer.REFUSED] * 1000)

    with pytest.raises(StoreUnavailableError, match="503"):
        create_once(writer, KEY, b"mine", lambda _: True)

    assert writer.deadline_s - 10 <= clock.monotonic_s() <= writer.deadline_s


def test_create_once_denied_at_first_raises_at_once() -> None:
    writer, store, clock = make_writer()
    store.script("put_if_absent", Answer.DENIED)

    with pytest.raises(AccessDeniedError):
        create_once(writer, KEY, b"mine", lambda _: True)

    assert clock.sleeps == ()


def test_create_once_denied_after_earlier_writes_waits_for_fresh_credentials() -> None:
    writer, store, _ = make_writer(proven=True)
    store.script("put_if_absent", *[Answer.DENIED] * 5)

    assert create_once(writer, KEY, b"mine", lambda data: data == b"mine").won


def test_create_once_denied_for_good_raises_after_five_minutes() -> None:
    writer, store, clock = make_writer(proven=True)
    store.script("put_if_absent", *[Answer.DENIED] * 1000)

    with pytest.raises(AccessDeniedError):
        create_once(writer, KEY, b"mine", lambda _: True)

    assert DENIED_PATIENCE_S - 10 <= clock.monotonic_s() <= DENIED_PATIENCE_S


@pytest.mark.parametrize(
    ("answers", "want_swaps"),
    [
        ((Answer.OK,), 1),
        ((Answer.TOLD_EXISTS,), 1),
        ((Answer.LOST,), 2),
        ((Answer.REFUSED,), 2),
        ((Answer.THROTTLED, Answer.LOST), 3),
    ],
    ids=["token", "changed-by-us", "reply-lost", "503", "429-then-lost"],
)
def test_swap_once_alone_wins_whatever_the_answers(answers: tuple[Answer, ...], want_swaps: int) -> None:
    writer, store, _ = make_writer()
    token = store.inner.put(KEY, b"old")
    store.script("put_if_match", *answers)

    swapped = swap_once(writer, KEY, b"new", token, lambda data: data == b"new")

    assert swapped.won
    assert swapped.token == store.inner.get(KEY).token
    assert store.count("put_if_match") == want_swaps


def test_swap_once_with_an_old_token_loses_and_changes_nothing() -> None:
    writer, store, _ = make_writer()
    token = store.inner.put(KEY, b"old")
    store.inner.put(KEY, b"theirs")

    assert not swap_once(writer, KEY, b"mine", token, lambda data: data == b"mine").won
    assert store.inner.get(KEY).data == b"theirs"


def test_swap_once_of_a_missing_object_loses() -> None:
    writer, _, _ = make_writer()

    assert not swap_once(writer, KEY, b"mine", "token", lambda _: True).won


def test_swap_once_no_answer_until_the_deadline_raises() -> None:
    writer, store, _ = make_writer()
    token = store.inner.put(KEY, b"old")
    store.script("put_if_match", *[Answer.THROTTLED] * 1000)

    with pytest.raises(ThrottledError):
        swap_once(writer, KEY, b"new", token, lambda _: True)


def test_swap_once_denied_waits_only_when_proven() -> None:
    for proven in (False, True):
        writer, store, _ = make_writer(proven=proven)
        token = store.inner.put(KEY, b"old")
        store.script("put_if_match", Answer.DENIED)
        if proven:
            assert swap_once(writer, KEY, b"new", token, lambda data: data == b"new").won
        else:
            with pytest.raises(AccessDeniedError):
                swap_once(writer, KEY, b"new", token, lambda _: True)


def test_create_once_denied_after_a_long_outage_still_has_its_own_patience() -> None:
    """Credentials rotate while the store is away: the outage must not use up the denial's five minutes."""
    writer, store, clock = make_writer(proven=True)
    store.script("put_if_absent", *[Answer.REFUSED] * 70, *[Answer.DENIED] * 5)

    assert create_once(writer, KEY, b"mine", lambda data: data == b"mine").won
    assert clock.monotonic_s() > DENIED_PATIENCE_S


@pytest.mark.parametrize("first", ["put", "create", "swap"])
def test_writer_that_wrote_once_waits_at_later_denials(first: str) -> None:
    writer, store, _ = make_writer()
    if first == "put":
        writer.put("a", b"x")
    elif first == "create":
        create_once(writer, "a", b"x", lambda _: True)
    else:
        swap_once(writer, "a", b"y", store.inner.put("a", b"x"), lambda _: True)
    store.script("put", *[Answer.DENIED] * 3)
    store.script("get", Answer.DENIED)

    writer.put("b", b"x")
    assert writer.get("b") is not None


def test_writer_that_never_wrote_raises_denials_at_once() -> None:
    writer, store, clock = make_writer()
    store.inner.put("a", b"x")
    store.script("get", Answer.DENIED)

    with pytest.raises(AccessDeniedError):
        writer.get("a")
    assert clock.sleeps == ()


def test_backoff_grows_to_its_cap_and_honours_the_stores_wish() -> None:
    clock = FakeClock()
    backoff = Backoff(clock, FirstMiddle(), base_s=0.1, cap_s=1.0)

    for _ in range(6):
        backoff.wait(StoreUnavailableError("503"))
    backoff.wait(ThrottledError("429", retry_after_s=7.0))

    assert clock.sleeps == (0.05, 0.1, 0.2, 0.4, 0.5, 0.5, 7.0)


def test_writer_reads_retry_and_missing_is_none() -> None:
    writer, store, _ = make_writer()
    store.inner.put("a/1", b"x")
    store.script("get", Answer.REFUSED, Answer.THROTTLED)
    store.script("list", Answer.REFUSED)
    store.script("put", Answer.LOST)

    blob = writer.get("a/1")

    assert blob is not None
    assert blob.data == b"x"
    assert writer.get("a/2") is None
    assert [info.key for info in writer.listing("a/")] == ["a/1"]
    writer.put("a/3", b"y")
    assert store.inner.get("a/3").data == b"y"
