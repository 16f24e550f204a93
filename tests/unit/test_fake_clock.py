"""The clock that tests move by hand."""

from __future__ import annotations

import datetime as dt
import threading

import pytest

from pagemill_core.clock import Clock
from pagemill_core.testing.fake_clock import START_AT, FakeClock


def test_sleep_moves_both_times_at_once_and_is_remembered() -> None:
    clock: Clock = (fake := FakeClock())

    clock.sleep(90)
    clock.sleep(0)

    assert clock.monotonic_s() == 90
    assert clock.now() == START_AT + dt.timedelta(seconds=90)
    assert fake.sleeps == (90, 0)


def test_advance_moves_time_without_a_sleep() -> None:
    clock = FakeClock()

    clock.advance(5)

    assert (clock.monotonic_s(), clock.sleeps) == (5, ())


def test_wall_clock_jumps_apart_from_monotonic_time() -> None:
    clock = FakeClock()

    clock.jump_wall(-3600)
    clock.sleep(1)

    assert clock.monotonic_s() == 1
    assert clock.now() == START_AT - dt.timedelta(seconds=3599)


def test_time_going_back_is_refused() -> None:
    clock = FakeClock()

    for move in (clock.sleep, clock.advance):
        with pytest.raises(ValueError, match="-1"):
            move(-1)


def test_start_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        FakeClock(dt.datetime(2026, 1, 1))


def test_sleeps_of_many_threads_are_all_counted() -> None:
    clock = FakeClock()

    def sleep_often() -> None:
        for _ in range(200):
            clock.sleep(0.5)

    threads = [threading.Thread(target=sleep_often) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert clock.monotonic_s() == 800
    assert len(clock.sleeps) == 1600
