"""What the operator counts of its calls to stores."""

from __future__ import annotations

import pytest

from pagemill_core.errors import AccessDeniedError, ObjectNotFoundError
from pagemill_core.storage.memory import MemoryStore
from pagemill_operator.counted_store import CountedStore
from pagemill_operator.metrics import Metrics


class Denied(MemoryStore):
    """A store that lists nothing to nobody."""

    def head(self, key: str) -> None:
        raise AccessDeniedError("no")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def counted(metrics: Metrics) -> dict[str, int]:
    lines = [line for line in metrics.render().splitlines() if line.startswith("pagemill_operator_store_calls_total")]
    return {name[len("pagemill_operator_store_calls_total") :]: int(value) for name, value in map(str.split, lines)}


def test_store_calls_are_counted_by_operation_and_outcome(metrics: Metrics) -> None:
    store = CountedStore(MemoryStore("memory://a"), metrics)

    token = store.put_if_absent("key", b"1")
    store.put_if_absent("key", b"2")
    assert token is not None
    store.put_if_match("key", b"3", "other")
    store.head("none")
    with pytest.raises(ObjectNotFoundError):
        store.get("none")
    assert [entry.key for entry in store.list("")] == ["key"]
    next(iter(store.list("")))
    store.delete("key")

    assert counted(metrics) == {
        '{operation="delete",outcome="ok"}': 1,
        '{operation="get",outcome="absent"}': 1,
        '{operation="head",outcome="absent"}': 1,
        '{operation="list",outcome="ok"}': 2,
        '{operation="put",outcome="lost"}': 2,
        '{operation="put",outcome="ok"}': 1,
    }


def test_store_call_that_fails_is_counted_by_its_reason_and_raised(metrics: Metrics) -> None:
    store = CountedStore(Denied("memory://a"), metrics)

    with pytest.raises(AccessDeniedError):
        store.head("key")

    assert counted(metrics) == {'{operation="head",outcome="AccessDenied"}': 1}
