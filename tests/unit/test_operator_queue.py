"""The work queue: each key once, people first, delays, and growing pauses after failures."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pagemill_operator.queue import LAST_RETRY_S, Urgency, WorkQueue


def drain(queue: WorkQueue[str], now_s: float = 0.0) -> list[str]:
    found = []
    while (taken := queue.take(now_s)) is not None:
        found.append(taken.key)
        queue.done(taken.key, now_s)
    return found


def test_key_added_many_times_is_taken_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("a", "b", "a", "a"):
        queue.add(key, Urgency.CHANGE, 0.0)

    assert drain(queue) == ["a", "b"]


def test_what_a_person_did_comes_before_what_machines_report() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for number in range(1000):
        queue.add(f"progress {number}", Urgency.PROGRESS, 0.0)
    queue.add("change", Urgency.CHANGE, 1.0)
    queue.add("person", Urgency.USER, 2.0)
    queue.add("progress 999", Urgency.USER, 3.0)

    assert drain(queue)[:4] == ["person", "progress 999", "change", "progress 0"]


def test_key_added_while_busy_waits_again_after_it() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", Urgency.PROGRESS, 0.0)
    taken = queue.take(0.0)
    assert taken is not None
    queue.add("a", Urgency.PROGRESS, 1.0)
    queue.add("a", Urgency.USER, 1.0)

    assert queue.take(1.0) is None
    queue.done("a", 2.0)
    again = queue.take(5.0)

    assert again is not None
    assert (again.key, again.urgency, again.waited_s) == ("a", Urgency.USER, 3.0)


def test_of_several_delays_the_earliest_counts() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", Urgency.PROGRESS, 10.0, 0.0)
    queue.add_after("a", Urgency.PROGRESS, 3.0, 0.0)
    queue.add_after("a", Urgency.PROGRESS, 5.0, 0.0)

    assert queue.next_due_s() == 3.0
    assert queue.take(2.9) is None
    assert drain(queue, 3.0) == ["a"]
    assert queue.next_due_s() is None
    assert drain(queue, 99.0) == []


def test_failures_in_a_row_wait_longer_and_longer() -> None:
    queue: WorkQueue[str] = WorkQueue()

    pauses = [queue.retry("a", 0.0) for _ in range(10)]
    queue.succeed("a")

    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert pauses[-1] == LAST_RETRY_S
    assert queue.retry("a", 0.0) == 1.0


def test_forgotten_key_comes_no_more() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", Urgency.PROGRESS, 3.0, 0.0)
    queue.forget("a")

    assert drain(queue, 10.0) == []


def test_depth_and_oldest_wait_tell_how_far_behind_it_is() -> None:
    queue: WorkQueue[str] = WorkQueue()
    assert (queue.depth, queue.oldest_wait_s(5.0)) == (0, 0.0)
    queue.add("a", Urgency.PROGRESS, 1.0)
    queue.add("b", Urgency.USER, 4.0)

    assert (queue.depth, queue.oldest_wait_s(5.0)) == (2, 4.0)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.sampled_from("abc"), st.sampled_from(list(Urgency))),
            st.tuples(st.just("after"), st.sampled_from("abc"), st.sampled_from([1.0, 5.0])),
            st.tuples(st.just("take"), st.just(""), st.just(0)),
            st.tuples(st.just("done"), st.sampled_from("abc"), st.just(0)),
        ),
        max_size=60,
    )
)
def test_no_key_is_handed_out_twice_and_none_is_lost(story: list[tuple[str, str, object]]) -> None:
    queue: WorkQueue[str] = WorkQueue()
    busy: set[str] = set()
    owed: set[str] = set()
    now_s = 0.0
    for act, key, detail in story:
        now_s += 1.0
        if act == "add":
            queue.add(key, Urgency(detail), now_s)
            owed.add(key)
        elif act == "after":
            queue.add_after(key, Urgency.PROGRESS, float(str(detail)), now_s)
            owed.add(key)
        elif act == "take" and (taken := queue.take(now_s)) is not None:
            assert taken.key not in busy
            busy.add(taken.key)
            owed.discard(taken.key)
        elif act == "done" and key in busy:
            busy.discard(key)
            queue.done(key, now_s)
    for key in sorted(busy):
        queue.done(key, now_s)

    assert owed <= set(drain(queue, now_s + 10))
