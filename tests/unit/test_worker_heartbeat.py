"""Holding a run: renewals, what others write into the entry, and hearing that it was taken over."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pagemill_cli.local import heartbeat
from pagemill_cli.local.heartbeat import Heartbeat
from pagemill_core.errors import OutputBusyError
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.work.conditional import Writer
from pagemill_core.work.ledger import RENEW_EVERY_S, Held, Ledger, Owner, WorkRequest

REQUEST = WorkRequest(work_key="a" * 64, kind="OcrJob")
PATIENCE_S = 10.0


class Place:
    """An output with our ledger and another's; the heartbeat beats as fast as it can."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore()
        self.ledger = Ledger(Writer(self.store, self.clock), Owner("me", "me"))
        self.other = Ledger(Writer(self.store, self.clock), Owner("other", "the other"), lambda _: True)
        self.held: Held = self.ledger.adopt(REQUEST).held

    def entry(self) -> Held:
        return self.other.read(self.held.entry.seq)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(heartbeat, "LOOK_EVERY_S", 0.001)
    yield Place()


def until(condition: threading.Event) -> None:
    assert condition.wait(PATIENCE_S)


def watched(heart: Heartbeat, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set after the next whole look."""
    looked = threading.Event()
    look = heart._look  # there is no other way to wait without sleeping

    def noting_look() -> None:
        look()
        looked.set()

    monkeypatch.setattr(heart, "_look", noting_look)
    return looked


def test_heartbeat_renews_when_it_is_time_and_counts_the_time_at_work(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    heart = Heartbeat(place.ledger, place.held, place.clock)
    looked = watched(heart, monkeypatch)
    with heart:
        until(looked)
        assert place.entry().entry.beat == place.held.entry.beat, "renewed too early"
        place.clock.advance(RENEW_EVERY_S)
        looked.clear()
        until(looked)
        looked.clear()
        until(looked)
        assert place.entry().entry.beat == place.held.entry.beat + 1
        assert place.entry().entry.active_seconds == RENEW_EVERY_S
        place.clock.advance(7.0)
        assert heart.active_s == RENEW_EVERY_S + 7.0


def test_heartbeat_hears_a_wish_to_stop(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    heart = Heartbeat(place.ledger, place.held, place.clock)
    place.other.request(place.held.entry.seq, desired="Stop")
    looked = watched(heart, monkeypatch)
    with heart:
        until(looked)
        assert heart.entry.desired == "Stop"
        assert not heart.lost


def test_heartbeat_taken_over_says_by_whom(place: Place) -> None:
    heart = Heartbeat(place.ledger, place.held, place.clock)
    place.other.adopt(REQUEST)
    heart._beat()  # ends by itself once the run is lost
    assert heart.lost
    with pytest.raises(OutputBusyError, match="taken over by the other"):
        heart.check()


def test_heartbeat_of_a_run_that_was_given_up_is_lost(place: Place) -> None:
    heart = Heartbeat(place.ledger, place.held, place.clock)
    place.other.change(place.entry(), state="GivenUp", reason="Superseded")
    heart._beat()
    assert heart.lost


def test_heartbeat_update_keeps_what_others_wrote(place: Place) -> None:
    heart = Heartbeat(place.ledger, place.held, place.clock)
    place.other.request(place.held.entry.seq, desired="Pause")
    heart.update(fingerprint="f" * 64)
    entry = place.entry().entry
    assert (entry.desired, entry.fingerprint) == ("Pause", "f" * 64)


def test_heartbeat_update_of_a_lost_run_is_refused(place: Place) -> None:
    heart = Heartbeat(place.ledger, place.held, place.clock)
    place.other.adopt(REQUEST)
    with pytest.raises(OutputBusyError):
        heart.update(state="Finished")
    assert place.entry().entry.state == "Open"
