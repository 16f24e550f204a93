"""The probe finds each way in which a store can be unfit; that fit ones pass stands in the conformance suite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from pagemill_core.errors import AccessDeniedError, StoreUnsuitableError
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.storage.probe import probe
from pagemill_core.storage.store import ObjectInfo
from pagemill_core.testing.fault_store import FaultRates, FaultRule, FaultStore

Meta = Mapping[str, str] | None


class EveryCreateWins(MemoryStore):
    """As old servers that ignore If-None-Match."""

    def put_if_absent(self, key: str, data: bytes, *, meta: Meta = None) -> str | None:
        return self.put(key, data, meta=meta)


class EverySwapWins(MemoryStore):
    """As servers that ignore If-Match."""

    def put_if_match(self, key: str, data: bytes, token: str, *, meta: Meta = None) -> str | None:
        return self.put(key, data, meta=meta)


class NoSwapWins(MemoryStore):
    def put_if_match(self, key: str, data: bytes, token: str, *, meta: Meta = None) -> str | None:
        return None


class TokensOfSizes(MemoryStore):
    """As a gateway that makes ETags of sizes."""

    def put(self, key: str, data: bytes, *, meta: Meta = None) -> str:
        super().put(key, data, meta=meta)
        return "same"

    def get(self, key: str):  # type: ignore[no-untyped-def]  # noqa: ANN201
        blob = super().get(key)
        return type(blob)(blob.data, "same")


class ListsLate(MemoryStore):
    """As stores whose listings catch up some time after."""

    def list(self, prefix: str, *, limit: int | None = None) -> Iterator[ObjectInfo]:
        return iter(())


class KeepsDeleted(MemoryStore):
    def delete(self, key: str) -> None:
        pass


@pytest.mark.parametrize(
    ("store", "want_part"),
    [
        (EveryCreateWins(), "8 of 8 parallel creates"),
        (EverySwapWins(), "stale compare-and-swap was accepted"),
        (NoSwapWins(), "correct compare-and-swap was refused"),
        (TokensOfSizes(), "the same token"),
        (ListsLate(), "listing does not show"),
        (KeepsDeleted(), "after it was deleted"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_unfit_store_is_refused_with_what_is_missing(store: MemoryStore, want_part: str) -> None:
    with pytest.raises(StoreUnsuitableError, match=want_part) as caught:
        probe(store)
    assert caught.value.advice
    assert type(store) is KeepsDeleted or store.head(".pagemill/probe") is None


def test_fit_store_passes_and_is_left_as_it_was() -> None:
    store = MemoryStore("fit")
    store.put("mine", b"")

    report = probe(store)

    assert (report.uri, report.racers) == ("memory://fit", 8)
    assert [found.key for found in store.list("")] == ["mine"]


def test_missing_right_is_told_as_such() -> None:
    store = FaultStore(MemoryStore(), [FaultRule(FaultRates(denied=1.0), frozenset(("put_if_absent",)))])

    with pytest.raises(AccessDeniedError):
        probe(store)


def test_lost_replies_are_no_reason_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pagemill_core.storage.probe.time.sleep", lambda _: None)
    for seed in range(20):
        rule = FaultRule(FaultRates(lost_reply=0.2, conflict=0.1), frozenset(("put_if_absent", "put_if_match")))

        probe(FaultStore(MemoryStore(), [rule], seed=seed))
