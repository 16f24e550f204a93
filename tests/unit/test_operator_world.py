"""The operator's loop in a world of fakes: from apply to Complete, and through everything that may come between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pagemill_core.errors import AccessDeniedError, PagemillError, SourceError, StoreUnavailableError
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.testing.scripted_store import ScriptedStore
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.ledger import Ledger, Owner, WorkRequest
from pagemill_core.work.waves import newest_wave
from pagemill_operator.settings import Config, parse_config
from pagemill_operator.testing.fake_pods import FakePods, Habits
from pagemill_operator.testing.world import World, WorldParts

OUTPUT = "s3://library/out"
CONFIG: dict[str, Any] = {
    "pools": [
        {"name": "cpu", "pricePerHour": "3600"},
        {"name": "gpu", "accelerator": {}, "pricePerHour": "7200", "nodeSelector": {"gpu": "yes"}},
    ],
    "images": {"engines": {"rapidocr": "worker@sha256:1", "tesseract": "tesseract@sha256:2"}},
    "outputs": {"*": ["s3://library/out"]},
    "stores": [{"prefix": "s3://library/out"}],
}


def make_job(name: str = "comics", **spec: Any) -> dict[str, Any]:
    given = {
        "source": {"manifest": {"uri": "s3://library/manifest.csv"}},
        "output": {"uri": OUTPUT},
        "workers": {"parallelism": 2},
        **spec,
    }
    return {"apiVersion": "pagemill.dev/v1alpha1", "kind": "OcrJob", "metadata": {"name": name}, "spec": given}


class Scene:
    """A world with one output, and the questions that tests ask."""

    def __init__(self, habits: Habits | None = None, config: Config | None = None) -> None:
        self.clock = FakeClock()
        self.memory = MemoryStore("out")
        self.store = ScriptedStore(self.memory)  # the operator's way to it; pods have their own
        pods = FakePods(lambda _: self.memory, self.clock, habits or Habits())
        self.world = World(
            WorldParts(
                clock=self.clock,
                config=config or parse_config(CONFIG),
                pods=pods,
                open_store=lambda _: self.store,
            )
        )
        self.world.boot()

    def apply(self, **spec: Any) -> None:
        self.world.kube.user_apply(make_job(**spec))

    def until(self, done: Callable[[], bool], most_s: float = 600.0) -> float:
        return self.world.run_until(done, most_s=most_s)

    def until_phase(self, phase: str, name: str = "comics", most_s: float = 900.0) -> float:
        return self.until(lambda: self.world.status(name).phase == phase, most_s)

    def pods_of(self, suffix: str) -> list[str]:
        return [name for job in self.world.child_jobs() if (name := job["metadata"]["name"]).endswith(suffix)]

    @property
    def status(self) -> Any:
        return self.world.status("comics")

    def every_shard_committed_once(self) -> bool:
        counts = self.world.pods.commits
        return len(counts) == self.world.pods.habits.shards and set(counts.values()) == {1}


def test_job_applied_goes_from_plan_over_a_wave_to_complete() -> None:
    scene = Scene()
    scene.apply()
    phases: list[str] = []

    def done() -> bool:
        phase = scene.status.phase
        if phase and (not phases or phases[-1] != phase):
            phases.append(phase)
        return bool(phase == "Succeeded")

    took_s = scene.until(done)

    assert phases == ["Planning", "Running", "Finalizing", "Succeeded"]
    assert scene.every_shard_committed_once()
    assert scene.status.done == "40/40"
    assert scene.status.items.succeeded == 40
    assert [condition.type for condition in scene.status.conditions] == [
        "Accepted",
        "Planned",
        "Progressing",
        "Complete",
        "Failed",
        "Suspended",
    ]
    assert scene.world.condition("comics", "Complete") == ("True", "Completed")
    assert scene.status.planned_at is not None
    assert scene.status.completion_time is not None
    assert scene.memory.head(RunLayout(scene.status.run).success) is not None
    assert took_s < 60


def test_job_finished_is_left_alone_for_hours() -> None:
    scene = Scene()
    scene.apply()
    scene.until_phase("Succeeded")
    scene.until(lambda: not scene.world.kube.events)
    writes, calls = scene.world.kube.writes, len(scene.store.calls)

    for _ in range(100):
        scene.world.tick(60.0)

    assert scene.world.kube.writes == writes
    assert len(scene.store.calls) == calls


def test_job_at_work_costs_few_writes() -> None:
    scene = Scene(Habits(items=4000, items_per_shard=4))
    scene.apply()
    scene.until_phase("Running")
    scene.until(lambda: scene.status.items is not None and scene.status.items.succeeded > 0)
    before = scene.world.kube.writes

    for _ in range(300):
        scene.world.tick(1.0)

    assert scene.status.phase == "Running"
    assert (scene.world.kube.writes - before) / 300 <= 0.2


def test_running_job_where_nothing_moves_is_not_written() -> None:
    scene = Scene()
    scene.apply()
    scene.until_phase("Running")
    scene.world.jobs.schedules = False
    for _ in range(60):
        scene.world.tick(1.0)
    before = scene.world.kube.writes

    for _ in range(300):
        scene.world.tick(1.0)

    assert (scene.world.kube.writes - before) / 300 <= 0.02


def test_suspend_stops_pods_and_resume_goes_on() -> None:
    scene = Scene(Habits(items=400))
    scene.apply()
    scene.until(lambda: sum(scene.world.pods.commits.values()) > 10)

    scene.world.kube.user_patch("OcrJob", "comics", {"suspend": True})
    scene.until_phase("Suspended")
    scene.until(lambda: scene.world.jobs.active_pods == 0)
    committed = sum(scene.world.pods.commits.values())
    for _ in range(400):
        scene.world.tick(5.0)

    assert sum(scene.world.pods.commits.values()) == committed
    assert scene.world.condition("comics", "Suspended") == ("True", "SuspendedByUser")
    scene.world.kube.user_patch("OcrJob", "comics", {"suspend": False})
    scene.until_phase("Succeeded")
    assert scene.every_shard_committed_once()
    assert newest_wave(Writer(scene.memory, scene.clock), RunLayout(scene.status.run)) == 1


def test_scale_changes_pods_of_the_running_wave() -> None:
    scene = Scene(Habits(items=4000))
    scene.apply(workers={"parallelism": 3})
    scene.until(lambda: scene.world.jobs.active_pods == 3)

    scene.world.kube.user_patch("OcrJob", "comics", {"workers": {"parallelism": 6}})
    scene.until(lambda: scene.world.jobs.active_pods == 6, 10)
    scene.world.kube.user_patch("OcrJob", "comics", {"workers": {"parallelism": 2}})
    scene.until(lambda: scene.world.jobs.active_pods == 2, 10)
    scene.world.kube.user_patch("OcrJob", "comics", {"workers": {"parallelism": 0}})
    scene.until_phase("Suspended", most_s=10)
    scene.world.kube.user_patch("OcrJob", "comics", {"workers": {"parallelism": 12}})

    scene.until_phase("Succeeded")
    assert scene.every_shard_committed_once()
    assert len(scene.pods_of("-w1")) == 1


def test_drained_pods_cost_no_retry() -> None:
    scene = Scene(Habits(items=400))
    scene.apply()
    scene.until_phase("Running")

    for _ in range(20):
        scene.world.tick(3.0)
        scene.world.jobs.drain()

    scene.until_phase("Succeeded")
    assert scene.every_shard_committed_once()
    assert len(scene.pods_of("-w1")) == 1


def test_wave_that_leaves_shards_is_followed_by_one_over_those() -> None:
    scene = Scene(Habits(bad_shards={3: 1, 7: 2}))
    scene.apply()

    scene.until_phase("Succeeded")

    assert scene.every_shard_committed_once()
    waves = {name[-2:]: job for job in scene.world.child_jobs() if (name := job["metadata"]["name"])[-2] == "w"}
    assert sorted(waves) == ["w1", "w2", "w3"]
    assert waves["w2"]["spec"]["completions"] == 2
    assert waves["w3"]["spec"]["completions"] == 1
    memory = [
        job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"]
        for _, job in sorted(waves.items())
    ]
    assert memory == ["2Gi", str(4 << 30), str(8 << 30)]


def test_shards_that_never_succeed_exhaust_the_waves_and_a_raised_limit_goes_on() -> None:
    scene = Scene(Habits(bad_shards={3: 4}))
    scene.apply(retries={"waves": 2})

    scene.until_phase("Failed")

    assert scene.world.condition("comics", "Failed") == ("True", "ShardsExhausted")
    assert scene.status.shards.failed == 1
    assert "retries.waves" in scene.status.message
    for _ in range(200):
        scene.world.tick(600.0)
    assert scene.status.phase == "Failed"
    assert len(scene.world.pods.commits) == 9
    scene.world.kube.user_patch("OcrJob", "comics", {"retries": {"waves": 5}})
    scene.until_phase("Succeeded")
    assert scene.every_shard_committed_once()


def test_missing_shards_within_the_limit_are_sealed() -> None:
    scene = Scene(Habits(bad_shards={3: 99}))
    scene.apply(retries={"waves": 1, "maxFailedItems": "10%"})

    scene.until_phase("Succeeded")

    assert scene.world.condition("comics", "Complete") == ("True", "CompletedWithFailures")
    assert scene.status.items.failed == 4


def test_failed_items_over_the_limit_give_the_run_up() -> None:
    scene = Scene(Habits(items=400, failed_items_per_shard=1))
    scene.apply(retries={"maxFailedItems": "5%"})

    scene.until_phase("Failed")

    assert scene.world.condition("comics", "Failed") == ("True", "TooManyFailures")
    assert scene.world.jobs.active_pods == 0
    scene.world.kube.user_patch("OcrJob", "comics", {"retries": {"maxFailedItems": "50%"}})
    scene.until_phase("Succeeded")
    assert scene.status.run.startswith("00000002-")


def test_budget_spent_stops_cleanly_and_raising_it_goes_on() -> None:
    scene = Scene(Habits(items=400))
    scene.apply(budget={"maxCost": "30"})

    scene.until_phase("Failed")

    assert scene.world.condition("comics", "Failed") == ("True", "BudgetExceeded")
    assert scene.world.jobs.active_pods == 0
    stopped_at = len(scene.world.pods.commits)
    assert 0 < stopped_at < 100
    assert float(scene.status.cost.spent) >= 30
    for _ in range(100):
        scene.world.tick(600.0)
    assert len(scene.world.pods.commits) == stopped_at
    scene.world.kube.user_patch("OcrJob", "comics", {"budget": {"maxCost": "100000"}})
    scene.until_phase("Succeeded")
    assert scene.every_shard_committed_once()


def test_deadline_counts_time_at_work_only() -> None:
    scene = Scene(Habits(items=4000))
    scene.apply(deadlineSeconds=100)
    scene.until(lambda: sum(scene.world.pods.commits.values()) > 40)
    scene.world.kube.user_patch("OcrJob", "comics", {"suspend": True})
    scene.until_phase("Suspended")
    for _ in range(60):
        scene.world.tick(60.0)
    assert scene.status.phase == "Suspended"
    scene.world.kube.user_patch("OcrJob", "comics", {"suspend": False})

    scene.until_phase("Failed")

    assert scene.world.condition("comics", "Failed") == ("True", "DeadlineExceeded")
    assert 150 <= sum(scene.world.pods.commits.values()) <= 260


def test_deleted_and_applied_again_finds_its_work_done() -> None:
    scene = Scene()
    scene.apply()
    scene.until_phase("Succeeded")
    scene.world.delete("comics")
    scene.until(lambda: not scene.world.kube.events)
    started = scene.world.jobs.pods_started

    scene.apply()
    took_s = scene.until_phase("Succeeded")

    assert scene.world.jobs.pods_started == started
    assert took_s < 10


def test_deleted_mid_way_and_applied_again_does_only_what_is_missing() -> None:
    scene = Scene(Habits(items=400))
    scene.apply()
    scene.until(lambda: sum(scene.world.pods.commits.values()) > 20)
    scene.world.delete("comics")
    scene.apply()

    took_s = scene.until_phase("Running")
    scene.until_phase("Succeeded")

    assert took_s < 60
    assert scene.every_shard_committed_once()
    assert scene.world.pods.plans == 1


def test_output_held_by_another_is_waited_for_and_named() -> None:
    scene = Scene()
    writer = Writer(scene.memory, scene.clock)
    other = Ledger(writer, Owner("laptop", "books on a laptop"))
    held = other.adopt(WorkRequest("0" * 64, "OcrJob")).held
    scene.apply()

    scene.until_phase("Waiting")

    assert scene.world.condition("comics", "Accepted") == ("False", "OutputBusy")
    assert "books on a laptop" in scene.status.message
    other.change(held, state="Finished", owner="")
    scene.until_phase("Succeeded")


@pytest.mark.parametrize(
    ("error", "want_reason", "want_failed"),
    [
        (SourceError("line 7: 3 fields, 4 expected"), "Source", True),
        (AccessDeniedError("may not list s3://library"), "AccessDenied", False),
    ],
    ids=["wrong-for-good", "may-be-granted"],
)
def test_plan_error_is_shown_with_its_reason(error: PagemillError, want_reason: str, want_failed: bool) -> None:
    scene = Scene(Habits(plan_error=error))
    scene.apply()

    scene.until(lambda: scene.world.condition("comics", "Planned") == ("False", want_reason), 120)

    assert (scene.world.condition("comics", "Failed")[0] == "True") is want_failed
    assert error.message in scene.status.message
    scene.world.pods.habits.plan_error = None
    if want_failed:
        for _ in range(60):
            scene.world.tick(60.0)
        assert scene.status.phase == "Failed"
        scene.world.kube.user_patch("OcrJob", "comics", {"maxItems": 30})
    scene.until_phase("Succeeded")


def test_workers_without_rights_are_tried_again_later() -> None:
    scene = Scene(Habits(work_error=AccessDeniedError("may not write", advice="grant s3:PutObject")))
    scene.apply()
    scene.until(lambda: "may not write" in (scene.status.message or ""), 120)
    assert "grant s3:PutObject" in scene.status.message

    scene.world.pods.habits.work_error = None

    scene.until_phase("Succeeded")
    assert newest_wave(Writer(scene.memory, scene.clock), RunLayout(scene.status.run)) == 1


def test_store_outage_touches_no_job() -> None:
    scene = Scene(Habits(items=400))
    scene.apply()
    scene.until(lambda: sum(scene.world.pods.commits.values()) > 10)
    jobs = [job["metadata"]["uid"] for job in scene.world.child_jobs()]

    def dead(*_: str) -> None:
        raise StoreUnavailableError("connection refused")

    scene.store.before = dead
    scene.until(lambda: scene.world.condition("comics", "Progressing") == ("Unknown", "StoreUnavailable"), 60)
    for _ in range(30):
        scene.world.tick(4.0)
    assert [job["metadata"]["uid"] for job in scene.world.child_jobs()] == jobs

    scene.store.before = None

    scene.until_phase("Succeeded")
    assert scene.every_shard_committed_once()


def test_edited_work_before_planning_starts_a_run_of_its_own() -> None:
    scene = Scene(Habits(plan_error=SourceError("no column 'path'")))
    scene.apply()
    scene.until_phase("Failed")
    scene.world.pods.habits.plan_error = None

    scene.world.kube.user_patch("OcrJob", "comics", {"source": {"manifest": {"pathColumn": "file"}}})

    scene.until_phase("Succeeded")
    assert scene.status.run.startswith("00000002-")


def test_work_is_fixed_once_planned() -> None:
    scene = Scene(Habits(items=400))
    scene.apply()
    scene.until(lambda: scene.status.planned_at is not None)

    with pytest.raises(Exception, match="maxItems"):
        scene.world.kube.user_patch("OcrJob", "comics", {"maxItems": 5})


def test_dependent_job_waits_and_then_runs() -> None:
    scene = Scene()
    second = make_job("second", dependsOn=[{"kind": "OcrJob", "name": "comics"}], output={"uri": OUTPUT})
    scene.world.kube.user_apply(second)
    scene.until_phase("Waiting", "second")
    assert "OcrJob/comics (not there)" in (scene.world.status("second").message or "")

    scene.apply()

    scene.until_phase("Succeeded")
    scene.until_phase("Succeeded", "second")


def test_jobs_that_wait_for_each_other_are_told_so() -> None:
    scene = Scene()
    for name, other in (("one", "two"), ("two", "one")):
        scene.world.kube.user_apply(make_job(name, dependsOn=[{"kind": "OcrJob", "name": other}]))

    scene.until(lambda: scene.world.condition("one", "Progressing") == ("False", "DependencyCycle"), 30)

    assert "OcrJob/one → OcrJob/two → OcrJob/one" in (scene.world.status("one").message or "")


def test_nothing_to_do_completes_without_work_pods() -> None:
    scene = Scene(Habits(items=0))
    scene.apply()

    scene.until_phase("Succeeded")

    assert scene.world.condition("comics", "Complete") == ("True", "NothingToDo")
    assert scene.pods_of("-w1") == []


def test_finished_job_is_deleted_after_its_time() -> None:
    scene = Scene()
    scene.apply(ttlSecondsAfterFinished=3600)
    scene.until_phase("Succeeded")
    for _ in range(59):
        scene.world.tick(60.0)
    assert scene.status.phase == "Succeeded"

    scene.until(lambda: not scene.world.kube.all("pagemill.dev/v1alpha1/ocrjobs"), 200)

    assert scene.world.child_jobs() == []
    assert scene.memory.head("metadata.json") is not None


def test_work_job_deleted_by_hand_is_made_again() -> None:
    scene = Scene(Habits(items=400))
    scene.apply()
    scene.until(lambda: sum(scene.world.pods.commits.values()) > 10)
    address = next(address for address in scene.world.kube.objects if address.name.endswith("-w1"))
    scene.world.kube.remove(address)

    scene.until_phase("Succeeded")

    assert scene.every_shard_committed_once()


def test_finalizing_that_fails_is_tried_again() -> None:
    scene = Scene(Habits(finalize_error=StoreUnavailableError("503")))
    scene.apply()
    scene.until(lambda: "503" in (scene.status.message or ""), 200)
    assert scene.world.condition("comics", "Failed")[0] == "False"

    scene.world.pods.habits.finalize_error = None

    scene.until_phase("Succeeded")


def test_new_operator_writes_nothing_while_nothing_changed() -> None:
    scene = Scene(Habits(items=4000))
    scene.apply()
    scene.until_phase("Running")
    scene.world.jobs.schedules = False
    for _ in range(60):
        scene.world.tick(1.0)
    before = scene.world.kube.writes

    scene.world.boot()
    for _ in range(30):
        scene.world.tick(1.0)

    assert scene.world.kube.writes - before <= 1


def test_events_tell_each_change_once() -> None:
    scene = Scene()
    scene.apply()
    scene.until_phase("Succeeded")

    reasons = [event["reason"] for event in scene.world.kube.all("v1/events")]

    assert reasons.count("Completed") == 1
    assert {"SpecValid", "PlanCommitted", "ShardsCommitting", "Finalizing", "Completed"} <= set(reasons)
