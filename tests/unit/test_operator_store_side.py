"""The operator's border to object stores: who it is there, how it waits, and what it never asks twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pagemill_core.errors import StoreUnavailableError
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.testing.scripted_store import ScriptedStore
from pagemill_core.work.conditional import Writer
from pagemill_core.work.ledger import Ledger, Owner
from pagemill_core.work.records import Holder
from pagemill_operator.breaker import REST_S, TRIP_AFTER, Breaker
from pagemill_operator.objects import Custom, read_custom
from pagemill_operator.reconcile.plan import Adopt, ChangeEntry, Look, WorkRequest
from pagemill_operator.settings import parse_config
from pagemill_operator.store_desk import DeskParts, StoreDesk
from pagemill_operator.store_poller import access
from pagemill_operator.testing.fake_pods import FakePods, Habits
from pagemill_operator.testing.world import World, WorldParts


def make_custom(name: str = "comics", **spec: Any) -> Custom:
    return read_custom(
        {
            "apiVersion": "pagemill.dev/v1alpha1",
            "kind": "OcrJob",
            "metadata": {"name": name, "namespace": "books", "uid": f"uid-{name}", "generation": 1},
            "spec": {
                "source": {"manifest": {"uri": "s3://library/m.csv"}},
                "output": {"uri": "s3://library/out"},
                **spec,
            },
        }
    )


CONFIG = parse_config(
    {
        "stores": [
            {"prefix": "s3://library/private", "secretPath": "/secrets/private"},
            {"prefix": "s3://library", "secretPath": "/secrets/library", "region": "eu-1"},
            {"prefix": "s3://", "endpoint": "https://minio", "secretPath": "/secrets/minio", "caPath": "/ca/minio.crt"},
        ],
    }
)


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        ({}, "/secrets/library"),
        ({"output": {"uri": "s3://library/private/out"}}, "/secrets/private"),
        ({"output": {"uri": "s3://elsewhere/out"}}, None),
        ({"storage": {"endpoint": "https://minio"}}, "/secrets/minio"),
        ({"storage": {"endpoint": "https://other"}}, None),
    ],
    ids=["by-prefix", "longer-prefix-first", "own-identity", "by-endpoint", "credentials-stay-at-their-endpoint"],
)
def test_operator_goes_to_a_store_with_that_stores_credentials(spec: dict[str, Any], want: str | None) -> None:
    found = access(make_custom(**spec), CONFIG)

    assert found.secret_path == (None if want is None else Path(want))


def test_jobs_secret_replaces_the_operators_own_way() -> None:
    secret = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "mine", "other": "x"}

    found = access(make_custom(), CONFIG, secret)

    assert (found.access_key, found.secret_key.get_secret_value(), found.secret_path) == ("me", "mine", None)


def test_breaker_lets_one_through_after_a_rest() -> None:
    breaker = Breaker()
    for second in range(TRIP_AFTER):
        assert breaker.may_ask(float(second))
        breaker.failed(float(second))
    last_s = float(TRIP_AFTER - 1)

    assert breaker.is_open
    assert not breaker.may_ask(last_s + 1)
    assert breaker.may_ask(last_s + REST_S)
    assert not breaker.may_ask(last_s + REST_S + 1)
    breaker.answered()
    assert breaker.may_ask(last_s + REST_S + 1)


def test_dead_endpoint_is_not_asked_by_every_job() -> None:
    clock = FakeClock()
    store = ScriptedStore(MemoryStore("out"))
    config = parse_config({"images": {"default": "w:1"}, "outputs": {"*": ["s3://library"]}})
    pods = FakePods(lambda _: store.inner, clock, Habits())
    world = World(WorldParts(clock=clock, config=config, pods=pods, open_store=lambda _: store))
    world.boot()

    def dead(*_: str) -> None:
        raise StoreUnavailableError("connection refused")

    store.before = dead
    for number in range(50):
        spec = {"source": {"manifest": {"uri": "s3://library/m.csv"}}, "output": {"uri": f"s3://library/{number}"}}
        metadata = {"name": f"job-{number}"}
        world.kube.user_apply(
            {"apiVersion": "pagemill.dev/v1alpha1", "kind": "OcrJob", "metadata": metadata, "spec": spec}
        )
    for _ in range(120):
        world.tick(1.0)

    tasks = [line for line in world.operator.metrics.render().splitlines() if "store_tasks_total{" in line]
    # 50 jobs asking every 15 s would be 400; the breaker leaves the first few and one each rest.
    asked = sum(int(line.rsplit(" ", 1)[1]) for line in tasks)
    assert asked <= 70
    assert world.condition("job-49", "Accepted") == ("False", "StoreUnavailable")
    assert world.operator.poller.open_breakers == 1


def make_desk(store: ScriptedStore, clock: FakeClock, uid: str = "uid-1", gone: tuple[str, ...] = ()) -> StoreDesk:
    return StoreDesk(
        DeskParts(
            writer=Writer(store, clock),
            owner=Owner(uid, f"job {uid}", Holder(host="cluster", started=uid)),
            is_gone=lambda holder: holder.started in gone,
            probe=lambda _: None,
        )
    )


REQUEST = WorkRequest("a" * 64, "OcrJob")


def test_change_told_twice_is_made_once() -> None:
    clock, store = FakeClock(), ScriptedStore(MemoryStore("out"))
    desk = make_desk(store, clock)
    run = desk.do(Adopt(REQUEST)).run

    first = desk.do(ChangeEntry(run, {"state": "Sealing", "reason": "ShardsAbandoned"}))
    second = desk.do(ChangeEntry(run, {"state": "Sealing", "reason": "ShardsAbandoned"}))

    assert first.entry.state == "Sealing"
    assert second.entry.write == first.entry.write


def test_run_of_a_job_that_is_gone_is_taken_over_at_once() -> None:
    clock, store = FakeClock(), ScriptedStore(MemoryStore("out"))
    make_desk(store, clock, "uid-old").do(Adopt(REQUEST))

    view = make_desk(store, clock, "uid-new", gone=("uid-old",)).do(Adopt(REQUEST))

    assert view.is_mine
    assert view.entry.epoch == 2


def test_time_at_work_is_counted_and_kept_over_a_restart() -> None:
    clock, store = FakeClock(), ScriptedStore(MemoryStore("out"))
    desk = make_desk(store, clock)
    run = desk.do(Adopt(REQUEST)).run
    for _ in range(40):
        desk.do(Look(run, is_active=True))
        clock.advance(10)
    desk.do(Look(run, is_active=False))
    clock.advance(5000)
    view = desk.do(Look(run, is_active=False))

    assert view.active_s == pytest.approx(400, abs=1)
    again = make_desk(store, clock).do(Look(run))
    assert 180 <= again.active_s <= 400


def test_entry_is_renewed_while_it_is_looked_at() -> None:
    clock, store = FakeClock(), ScriptedStore(MemoryStore("out"))
    desk = make_desk(store, clock)
    run = desk.do(Adopt(REQUEST)).run
    other = Ledger(Writer(store, clock), Owner("other"))
    for _ in range(20):
        clock.advance(120)
        desk.do(Look(run))
        held = other.read(1)

    assert held.entry.beat >= 9
    assert not other.is_unowned(held)


def test_look_at_rest_costs_one_read() -> None:
    clock, store = FakeClock(), ScriptedStore(MemoryStore("out"))
    desk = make_desk(store, clock)
    run = desk.do(Adopt(REQUEST)).run
    store.calls.clear()

    desk.do(Look(run))

    assert [operation for operation, _ in store.calls] == ["get", "get"]  # the entry, and whether there is a plan
