"""Whatever order things happen in, and wherever the operator dies: every shard once, and the job converges."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagemill_core.storage.memory import MemoryStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.testing.scripted_store import ScriptedStore
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.waves import newest_wave
from pagemill_operator.cluster import JOBS, Address
from pagemill_operator.settings import parse_config
from pagemill_operator.testing.fake_pods import FakePods, Habits
from pagemill_operator.testing.world import Killed, World, WorldParts

CONFIG = {"images": {"default": "worker:1"}, "outputs": {"*": ["s3://library/out"]}}
JOB: dict[str, Any] = {
    "apiVersion": "pagemill.dev/v1alpha1",
    "kind": "OcrJob",
    "metadata": {"name": "comics"},
    "spec": {
        "source": {"manifest": {"uri": "s3://library/manifest.csv"}},
        "output": {"uri": "s3://library/out"},
        "workers": {"parallelism": 2},
    },
}
MOST_S = 1500.0


def make_world(habits: Habits) -> tuple[World, ScriptedStore]:
    clock, memory = FakeClock(), MemoryStore("out")
    store = ScriptedStore(memory)
    pods = FakePods(lambda _: memory, clock, habits)
    world = World(WorldParts(clock=clock, config=parse_config(CONFIG), pods=pods, open_store=lambda _: store))
    world.boot()
    return world, store


def is_complete(world: World) -> bool:
    return world.condition("comics", "Complete")[0] == "True"


def check_end(world: World, store: ScriptedStore) -> None:
    """What must hold at the end of every story."""
    status = world.status("comics")
    shards = world.pods.habits.shards
    assert {shard for _, shard in world.pods.commits} == set(range(shards))
    assert set(world.pods.commits.values()) == {1}
    assert status.done == f"{world.pods.habits.items}/{world.pods.habits.items}"
    assert status.run == "00000001-" + str(status.work_key)[:8]
    assert store.inner.head(RunLayout(status.run).success) is not None
    assert world.pods.plans >= 1
    assert world.jobs.active_pods == 0


class Assassin:
    """Kills the operator ahead of its n-th call to the API server or to the store."""

    def __init__(self, world: World, store: ScriptedStore, at: int) -> None:
        self._left = at
        self.has_struck = False
        world.kube.before = lambda _verb, _address: self._count()
        store.before = lambda _operation, _key: self._count()

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0 and not self.has_struck:
            self.has_struck = True
            raise Killed


def tick_or_die(world: World, seconds: float = 1.0) -> None:
    try:
        world.tick(seconds)
    except Killed:
        world.boot()


@pytest.mark.parametrize("part", range(4))
def test_operator_killed_ahead_of_any_call_converges(part: int) -> None:
    at, ended = part, False
    while not ended:
        world, store = make_world(Habits(items=24, bad_shards={2: 1}))
        assassin = Assassin(world, store, at)
        world.kube.user_apply(JOB)
        started_s = world.clock.monotonic_s()
        while not is_complete(world):
            assert world.clock.monotonic_s() - started_s < 60, (at, world.summary())
            tick_or_die(world)
        check_end(world, store)
        assert newest_wave(Writer(store.inner, world.clock), RunLayout(str(world.status("comics").run))) == 2
        ended = not assassin.has_struck
        at += 4
    assert at > 60


def test_operator_killed_again_and_again_converges() -> None:
    for seed in range(3):
        world, store = make_world(Habits(items=80, bad_shards={2: 1}))
        rng = random.Random(seed)
        world.kube.user_apply(JOB)
        kills = 0
        while not is_complete(world):
            if kills < 15:
                kills += Assassin(world, store, rng.randrange(30)).has_struck
            tick_or_die(world)
            kills += 1
        check_end(world, store)


def _user(world: World, spec: dict[str, Any]) -> None:
    world.kube.user_patch("OcrJob", "comics", spec)


def _drop_event(world: World) -> None:
    if world.kube.events:
        world.kube.events.popleft()


def _repeat_event(world: World) -> None:
    if world.kube.events:
        world.kube.events.append(world.kube.events[0])


def _delete_a_job(world: World) -> None:
    names = [job["metadata"]["name"] for job in world.child_jobs()]
    if names:
        world.kube.remove(Address(JOBS, "default", names[0]))


def _apply_anew(world: World) -> None:
    world.delete("comics")
    world.kube.user_apply(JOB)


STEPS: dict[str, Callable[[World], object]] = {
    "deliver": lambda world: world.deliver(),
    "deliver more": lambda world: [world.deliver() for _ in range(5)],
    "pass": lambda world: world.make_pass(),
    "ask the store": lambda world: world.ask_store(),
    "cluster moves": lambda world: world.jobs.step(),
    "a second": lambda world: world.clock.advance(1.0),
    "a minute": lambda world: world.clock.advance(60.0),
    "event lost": _drop_event,
    "event told again, late": _repeat_event,
    "operator killed": lambda world: world.boot(),
    "resync": lambda world: world.resync(),
    "suspend": lambda world: _user(world, {"suspend": True}),
    "resume": lambda world: _user(world, {"suspend": False}),
    "scale to 5": lambda world: _user(world, {"workers": {"parallelism": 5}}),
    "scale to 1": lambda world: _user(world, {"workers": {"parallelism": 1}}),
    "drain": lambda world: world.jobs.drain(),
    "a Job deleted": _delete_a_job,
    "deleted and applied again": _apply_anew,
}


@pytest.fixture(scope="module")
def story_count(chaos_length: Literal["short", "long"]) -> int:
    return 25 if chaos_length == "short" else 2000


def test_many_stories_end_well(story_count: int) -> None:
    for seed in range(story_count):
        rng = random.Random(seed)
        tell([rng.choice(sorted(STEPS)) for _ in range(rng.randrange(5, 150))])


@settings(max_examples=20)
@given(story=st.lists(st.sampled_from(sorted(STEPS)), max_size=80))
def test_any_story_ends_well(story: list[str]) -> None:
    tell(story)


def test_news_of_an_earlier_object_that_comes_late_is_no_news() -> None:
    tell(["deliver", "pass", "deleted and applied again", "resync"])


def tell(story: list[str]) -> None:
    """Play a story, let the dust settle, and check the end."""
    world, store = make_world(Habits(items=32, bad_shards={3: 1}))
    world.kube.user_apply(JOB)

    for step in story:
        STEPS[step](world)

    _user(world, {"suspend": False})
    world.resync()  # as it happens every 30 s: it hears what the watch missed
    started_s = world.clock.monotonic_s()
    while not is_complete(world):
        assert world.clock.monotonic_s() - started_s < MOST_S, world.summary()
        world.tick()
    check_end(world, store)
