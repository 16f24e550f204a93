"""How the number of calls at once follows what the endpoint bears."""

from __future__ import annotations

import threading

from pagemill_core.testing.fake_clock import FakeClock
from pagemill_worker.ocr.vlm_limiter import ConcurrencyLimiter, Window


def test_window_grows_by_one_for_as_many_answers_as_it_is_wide() -> None:
    window = Window(limit=4.0, ceiling=8)
    for _ in range(5):
        window = window.grown()

    assert int(window.limit) == 5


def test_window_never_passes_its_ceiling_nor_falls_below_one() -> None:
    wide = Window(limit=8.0, ceiling=8).grown()
    narrow = Window(limit=1.0, ceiling=8).shrunk(asked_in_epoch=0)

    assert (wide.limit, narrow.limit) == (8.0, 1.0)


def test_window_counts_a_burst_of_complaints_once() -> None:
    window = Window(limit=16.0, ceiling=16)
    for _ in range(16):
        window = window.shrunk(asked_in_epoch=0)
    assert window.limit == 8.0

    assert window.shrunk(asked_in_epoch=1).limit == 4.0


def test_slot_is_waited_for_until_one_is_free() -> None:
    limiter = ConcurrencyLimiter(ceiling=2, clock=FakeClock())
    peak, inside, lock = 0, 0, threading.Lock()

    def call() -> None:
        nonlocal peak, inside
        for _ in range(50):
            with limiter.slot():
                with lock:
                    inside += 1
                    peak = max(peak, inside)
                with lock:
                    inside -= 1

    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert not any(thread.is_alive() for thread in threads)
    assert peak <= 2


def test_slot_is_given_back_after_an_error() -> None:
    limiter = ConcurrencyLimiter(ceiling=1, clock=FakeClock())
    for _ in range(3):
        try:
            with limiter.slot():
                raise ValueError
        except ValueError:
            continue

    with limiter.slot():
        assert limiter.limit == 1


def test_hold_ends_when_its_time_has_passed_and_the_longest_counts() -> None:
    clock = FakeClock()
    limiter = ConcurrencyLimiter(ceiling=4, clock=clock)
    limiter.complained(asked_in_epoch=0, hold_s=30)
    limiter.complained(asked_in_epoch=0, hold_s=10)

    assert limiter.hold_left_s() == 30
    clock.advance(29)
    assert limiter.hold_left_s() == 1
    clock.advance(2)
    assert limiter.hold_left_s() == 0


def test_answers_are_counted() -> None:
    limiter = ConcurrencyLimiter(ceiling=4, clock=FakeClock())
    limiter.answered()
    limiter.answered()

    assert limiter.answered_count == 2
