"""What keeps the operator small and quick with a thousand jobs: nothing done twice, nothing asked of every job."""

from __future__ import annotations

import threading
from typing import Any

import kopf
import pytest

from pagemill_core.api.v1alpha1 import JobStatus
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.storage.s3 import S3Store
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_operator.assembly import Surroundings
from pagemill_operator.cache import Cache
from pagemill_operator.cluster import Address
from pagemill_operator.objects import Key
from pagemill_operator.queue import Urgency
from pagemill_operator.reconcile.plan import Adopt, WorkRequest
from pagemill_operator.settings import Config, OperatorSettings, parse_config
from pagemill_operator.status import DRIFT_EVERY_S, PROGRESS_EVERY_S, SHED_EVERY_S, SHED_WAIT_S, StatusWriter
from pagemill_operator.store_poller import PollerParts, StorePoller
from pagemill_operator.store_view import StoreSight
from pagemill_operator.testing.fake_kube import FakeKube
from pagemill_operator.testing.fake_pods import FakePods, Habits
from pagemill_operator.testing.world import World, WorldParts
from pagemill_operator.watch import watch_settings

CONFIG = parse_config({"images": {"default": "worker:1"}, "outputs": {"*": ["s3://library"]}})


def make_body(name: str, *waits_for: str, **metadata: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "source": {"manifest": {"uri": "s3://library/m.csv"}},
        "output": {"uri": f"s3://library/{name}"},
    }
    if waits_for:
        spec["dependsOn"] = [{"kind": "OcrJob", "name": other} for other in waits_for]
    given = {"name": name, "namespace": "books", "uid": f"uid-{name}", "generation": 1, "resourceVersion": "1"}
    return {
        "apiVersion": "pagemill.dev/v1alpha1",
        "kind": "OcrJob",
        "metadata": {**given, **metadata},
        "spec": spec,
    }


def key_of(name: str) -> Key:
    return Key("OcrJob", "books", name)


def make_child(version: str, **status: Any) -> dict[str, Any]:
    labels = {"pagemill.dev/step": "work", "pagemill.dev/kind": "OcrJob", "pagemill.dev/uid": "uid-comics"}
    owner = {"kind": "OcrJob", "name": "comics", "uid": "uid-comics", "controller": True}
    return {
        "metadata": {
            "name": "comics-w1",
            "namespace": "books",
            "uid": "job-1",
            "resourceVersion": version,
            "labels": labels,
            "ownerReferences": [owner],
        },
        "spec": {},
        "status": status,
    }


def make_world(habits: Habits | None = None) -> World:
    clock, memory = FakeClock(), MemoryStore("out")
    pods = FakePods(lambda _: memory, clock, habits or Habits())
    world = World(WorldParts(clock=clock, config=CONFIG, pods=pods, open_store=lambda _: memory))
    world.boot()
    return world


# -- the cache --------------------------------------------------------------------------------------------------------


def test_dependents_are_known_by_what_they_wait_for_and_follow_edits() -> None:
    cache = Cache()
    cache.put_custom(make_body("one"))
    cache.put_custom(make_body("two", "one"))
    cache.put_custom(make_body("three", "one", "two"))

    assert set(cache.dependents(key_of("one"))) == {key_of("two"), key_of("three")}
    cache.put_custom(make_body("three", "two", generation=2, resourceVersion="2"))
    assert cache.dependents(key_of("one")) == (key_of("two"),)
    cache.drop_custom(key_of("two"))
    assert cache.dependents(key_of("one")) == ()
    assert cache.dependents(key_of("two")) == (key_of("three"),)


def test_child_that_did_not_change_is_not_news() -> None:
    cache = Cache()

    assert cache.put_child(make_child("7", active=1), 0.0) == (key_of("comics"), Urgency.CHANGE)
    assert cache.put_child(make_child("7", active=1), 1.0) == (key_of("comics"), None)
    assert cache.put_child(make_child("6", active=9), 2.0) == (key_of("comics"), None)
    assert cache.put_child(make_child("8", active=2), 3.0) == (key_of("comics"), Urgency.PROGRESS)


# -- statuses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wait_s", "want"),
    [(0.0, PROGRESS_EVERY_S), (SHED_WAIT_S, 2 * PROGRESS_EVERY_S), (1000.0, SHED_EVERY_S)],
    ids=["idle", "behind", "far-behind"],
)
def test_progress_gives_way_by_as_much_as_the_queue_is_behind(wait_s: float, want: float) -> None:
    world = make_world()
    custom, writer = seen_custom(world), StatusWriter(FakeKube(world.clock), world.clock)
    writer._written_s[custom.uid] = world.clock.monotonic_s()

    assert writer.delay_s(custom, JobStatus(done="2/9"), wait_s, StoreSight()) == want
    assert writer.delay_s(custom, JobStatus(eta="3m"), 0.0, StoreSight()) == DRIFT_EVERY_S
    assert writer.delay_s(custom, JobStatus(eta="3m"), 1000.0, StoreSight()) == SHED_EVERY_S


def seen_custom(world: World) -> Any:
    key, _, _ = world.operator.cache.put_custom(make_body("comics"))
    custom = world.operator.cache.custom(key)
    assert custom is not None
    return custom


def test_no_commit_is_hidden_for_longer_than_promised() -> None:
    world = make_world(Habits(items=2000))
    world.kube.user_apply(make_body("comics", namespace="default"))
    world.run_until(lambda: world.status("comics").phase == "Running" and world.status("comics").done is not None)
    committed, writes = [len(world.pods.commits)], []

    def note(verb: str, address: Address) -> None:
        if (verb, address.subresource) == ("apply", "status"):
            writes.append(address)

    world.kube.before = note
    for second in range(120):
        world.tick(1.0)
        committed.append(len(world.pods.commits))
        shards = world.status("comics").shards
        assert shards is not None
        assert shards.succeeded >= committed[max(0, second - 15)]

    assert committed[-1] > committed[0] + 100
    assert len(writes) <= 120 / PROGRESS_EVERY_S


# -- the store --------------------------------------------------------------------------------------------------------


class Threads:
    """A TaskRunner whose tasks all begin at once."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def start(self, call: Any, then: Any) -> None:
        self.threads.append(threading.Thread(target=call))


def test_a_bucket_is_probed_once_however_many_jobs_begin_at_once() -> None:
    probes, runner, cache = [], Threads(), Cache()
    settings = OperatorSettings()
    poller = StorePoller(
        PollerParts(
            config=CONFIG,
            clock=FakeClock(),
            runner=runner,
            metrics=make_world().operator.metrics,
            open_store=lambda uri, _: MemoryStore(uri),
            probe=probes.append,
            is_alive=lambda _: True,
            cluster_id="c",
            namespaces=settings.served_namespaces,
        ),
        lambda _: None,
    )
    for number in range(20):
        key, _, _ = cache.put_custom(make_body(f"job-{number}"))
        custom = cache.custom(key)
        assert custom is not None
        request = WorkRequest(work_key=custom.work_key, kind="OcrJob", incremental=False, replace=False)
        poller.submit(custom, Adopt(request))
    for thread in runner.threads:
        thread.start()
    for thread in runner.threads:
        thread.join()

    assert len(runner.threads) == 20
    assert len(probes) == 1


def test_operators_stores_share_connections() -> None:
    world = make_world()
    given = Surroundings(
        settings=OperatorSettings(),
        config=Config(),
        cluster=world.kube,
        cluster_id="c",
        clock=world.clock,
        metrics=world.operator.metrics,
        runner=Threads(),
    )
    settings = S3Settings(endpoint="http://127.0.0.1:1", access_key="me", region="eu-1")
    one, two = (given.open_store(f"s3://library/{name}", settings) for name in ("a", "b"))

    assert isinstance(one, S3Store) and isinstance(two, S3Store)
    assert one._client is two._client


# -- the watch --------------------------------------------------------------------------------------------------------


def test_watch_compares_nothing_and_remembers_nothing() -> None:
    storage = watch_settings().persistence.diffbase_storage
    body = kopf.Body(make_body("comics"))

    assert storage.build(body=body) == {}
    assert storage.fetch(body=body) is None
    storage.store(body=body, patch=kopf.Patch(), essence=kopf.BodyEssence())
