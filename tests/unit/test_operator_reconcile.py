"""reconcile, row by row: what is seen, and what is to be done and said about it."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest

from pagemill_core.api.conditions import Reason
from pagemill_core.api.v1alpha1 import JobStatus
from pagemill_core.api.v1alpha1.status import MAX_STATUS_BYTES, status_bytes
from pagemill_core.work.pod import HASH_ANNOTATION, LastWords, PodStep
from pagemill_core.work.records import Counts, FailureSample, PlanPointer, RunEntry, Totals
from pagemill_core.work.usage import Spent
from pagemill_operator.children import jobs
from pagemill_operator.objects import Child, Custom, Key, read_custom
from pagemill_operator.reconcile.observed import DependencyState, Observed, image_of
from pagemill_operator.reconcile.plan import (
    Action,
    Adopt,
    ApplyJob,
    ChangeEntry,
    DeleteJob,
    DeleteSelf,
    Look,
    Plan,
    SetJob,
    SetWorkload,
    StartWave,
)
from pagemill_operator.reconcile.reconcile import MADE_PASS_S, reconcile
from pagemill_operator.reconcile.status import duration
from pagemill_operator.settings import parse_config
from pagemill_operator.store_view import StoreProblem, StoreSight, StoreView

NOW = dt.datetime(2026, 11, 1, 12, 0, 0, tzinfo=dt.UTC)
NOW_S = 1000.0
CONFIG = parse_config({"images": {"default": "worker:1"}, "outputs": {"*": ["s3://library"]}})


def make_custom(status: dict[str, Any] | None = None, generation: int = 2, **spec: Any) -> Custom:
    return read_custom(
        {
            "apiVersion": "pagemill.dev/v1alpha1",
            "kind": "OcrJob",
            "metadata": {"name": "comics", "namespace": "books", "uid": "uid-1", "generation": generation},
            "spec": {
                "source": {"manifest": {"uri": "s3://library/m.csv"}},
                "output": {"uri": "s3://library/out"},
                "workers": {"parallelism": 2},
                **spec,
            },
            "status": status or {},
        }
    )


KEY = make_custom().work_key
RUN = f"00000001-{KEY[:8]}"


def make_view(*, done: int | None = None, **changes: Any) -> StoreView:
    """A run of 400 items in 100 shards that is ours; `done` shards have markers, None: it is not planned."""
    entry = RunEntry(seq=1, work_key=KEY, kind="OcrJob", owner="uid-1", epoch=1)
    view = StoreView(run=RUN, entry=entry, is_mine=True, looked_s=NOW_S - 1)
    if done is not None:
        plan = PlanPointer(
            run=RUN,
            attempt="a",
            kind="OcrJob",
            work_key=KEY,
            work={},
            fingerprint="f",
            fingerprint_fields={},
            items=400,
            shards=100,
            planned_at="2026-11-01T11:00:00.000Z",
        )
        totals = Totals(shards=100, shards_done=done, items=Counts(planned=done * 4, succeeded=done * 4))
        view = replace(view, plan=plan, totals=totals)
    entry_changes = {name: changes.pop(name) for name in ("state", "desired", "owner", "reason") if name in changes}
    return replace(view, entry=entry.model_copy(update=entry_changes), **changes)


def make_child(step: PodStep, name: str, **changes: Any) -> Child:
    child = Child(
        name=name,
        uid=f"uid-of-{name}",
        owner_uid="uid-1",
        step=step,
        wave=1 if step is PodStep.WORK else 0,
        epoch=1,
        hash="",
        parallelism=2,
        completions=8,
        suspend=False,
        active=0,
        ready=0,
        terminating=0,
        has_started=True,
        has_completed_indexes=False,
        is_complete=False,
        is_failed=False,
        failed_reason="",
        failed_message="",
        finished_at=None,
        is_deleting=False,
        seen_s=NOW_S - 100,
    )
    return replace(child, **changes)


def parts(custom: Custom) -> jobs.RunParts:
    assert custom.job is not None
    image = image_of(custom.job, CONFIG)
    assert image is not None
    return jobs.RunParts(custom=custom, job=custom.job, config=CONFIG, image=image, run=RUN, epoch=1)


PLAN_NAME = jobs.plan_job(parts(make_custom()))["metadata"]["name"]
WAVE_NAME = jobs.wave_job(parts(make_custom()), 1, 100, 0)["metadata"]["name"]
FINALIZE_NAME = jobs.finalize_job(parts(make_custom()), "Complete")["metadata"]["name"]
STOPPED_NAME = jobs.finalize_job(parts(make_custom()), "Stopped")["metadata"]["name"]


def wave_child(**changes: Any) -> Child:
    return make_child(PodStep.WORK, WAVE_NAME, **{"active": 2, "ready": 2, **changes})


def see(
    custom: Custom | None = None, view: StoreView | None = None, *children: Child, **rest: Any
) -> tuple[Plan, list[Action]]:
    problem = rest.pop("problem", None)
    sight = StoreSight(view=view, problem=problem, is_busy=rest.pop("busy", False), tried_s=rest.pop("tried_s", None))
    seen = Observed(
        custom=custom or make_custom(),
        config=rest.pop("config", CONFIG),
        now_s=NOW_S,
        children=children,
        sight=sight,
        **rest,
    )
    plan = reconcile(seen, NOW)
    return plan, list(plan.actions)


def said(plan: Plan, kind: str) -> tuple[str, str]:
    condition = plan.status.condition(kind)
    assert condition is not None
    return condition.status, condition.reason


# -- before a run is ours ---------------------------------------------------------------------------------------------


def test_new_job_asks_its_output_first() -> None:
    plan, actions = see()

    assert [type(action) for action in actions] == [Adopt]
    assert plan.status.phase == "Pending"
    assert said(plan, "Accepted") == ("True", "SpecValid")


def test_known_run_is_looked_at_rather_than_adopted_anew() -> None:
    _, actions = see(make_custom({"run": RUN, "workKey": KEY}))

    assert actions == [Look(RUN)]


def test_known_run_keeps_its_status_until_it_was_looked_at() -> None:
    status = {"run": RUN, "workKey": KEY, "phase": "Running", "done": "8/9"}
    down = StoreProblem(Reason.STORE_UNAVAILABLE, "no answer", False)

    first, _ = see(make_custom(status))
    then, actions = see(make_custom(status), problem=down, tried_s=NOW_S - 1)
    paused, looks = see(make_custom(status, suspend=True), None, wave_child())

    assert first.status == make_custom(status).status
    assert (then.status.phase, then.status.done, actions) == ("Running", "8/9", [])
    assert said(then, "Progressing") == ("Unknown", "StoreUnavailable")
    assert paused.status.phase == "Suspended"
    assert [type(action) for action in looks] == [SetJob, Look]


def test_run_that_is_gone_from_its_output_is_asked_for_anew() -> None:
    gone = StoreProblem(Reason.INTEGRITY, "the ledger has no run 1", True)

    _, actions = see(make_custom({"run": RUN, "workKey": KEY}), problem=gone, tried_s=NOW_S - 61)

    assert [type(action) for action in actions] == [Adopt]


def test_store_that_is_busy_is_asked_nothing() -> None:
    _, actions = see(busy=True)

    assert actions == []


def test_suspended_job_does_not_even_claim_its_output() -> None:
    plan, actions = see(make_custom(suspend=True))

    assert actions == []
    assert plan.status.phase == "Suspended"


@pytest.mark.parametrize(
    ("state", "want"),
    [
        (DependencyState(Key("OcrJob", "books", "clean"), True, False, False), "WaitingForDependencies"),
        (DependencyState(Key("OcrJob", "books", "clean"), False, False, False), "WaitingForDependencies"),
        (DependencyState(Key("OcrJob", "books", "clean"), True, False, True), "DependencyFailed"),
    ],
    ids=["running", "absent", "failed"],
)
def test_job_waits_for_others(state: DependencyState, want: str) -> None:
    plan, actions = see(dependencies=(state,))

    assert actions == []
    assert plan.status.phase == "Waiting"
    assert said(plan, "Progressing") == ("False", want)
    assert "OcrJob/clean" in (plan.status.message or "")


@pytest.mark.parametrize(
    ("problem", "ago_s", "want_phase", "asks"),
    [
        (StoreProblem(Reason.OUTPUT_BUSY, "held by x", False), 1.0, "Waiting", False),
        (StoreProblem(Reason.OUTPUT_BUSY, "held by x", False), 6.0, "Waiting", True),
        (StoreProblem(Reason.STORE_UNAVAILABLE, "refused", False), 10.0, "Waiting", False),
        (StoreProblem(Reason.STORE_UNAVAILABLE, "refused", False), 16.0, "Waiting", True),
        (StoreProblem(Reason.ACCESS_DENIED, "may not", True), 30.0, "Pending", False),
        (StoreProblem(Reason.ACCESS_DENIED, "may not", True), 61.0, "Pending", True),
    ],
    ids=["busy", "busy-again", "down", "down-again", "denied", "denied-again"],
)
def test_store_that_refuses_is_told_and_asked_again(
    problem: StoreProblem, ago_s: float, want_phase: str, asks: bool
) -> None:
    plan, actions = see(problem=problem, tried_s=NOW_S - ago_s)

    assert plan.status.phase == want_phase
    assert said(plan, "Accepted") == ("False", problem.reason)
    assert bool(actions) is asks
    assert asks or plan.again_in_s is not None


# -- planning ---------------------------------------------------------------------------------------------------------


def test_adopted_run_without_plan_gets_its_plan_job() -> None:
    plan, actions = see(None, make_view())

    assert [action.manifest["metadata"]["name"] for action in actions if isinstance(action, ApplyJob)] == [PLAN_NAME]
    assert plan.status.phase == "Planning"
    assert plan.status.planned_at is None


def test_plan_job_that_ended_is_followed_by_a_look() -> None:
    child = make_child(PodStep.PLAN, PLAN_NAME, is_complete=True, seen_s=NOW_S - 0.5)

    _, actions = see(None, make_view(), child)

    assert [type(action) for action in actions] == [Look]


def test_plan_job_that_ended_without_a_plan_is_made_again() -> None:
    child = make_child(PodStep.PLAN, PLAN_NAME, is_complete=True)

    _, actions = see(None, make_view(), child)

    assert actions == [DeleteJob(PLAN_NAME, child.uid)]


def failed_plan(**changes: Any) -> Child:
    now_wanted = jobs.plan_job(parts(make_custom()))["metadata"]["annotations"][HASH_ANNOTATION]
    return make_child(
        PodStep.PLAN,
        PLAN_NAME,
        **{
            "is_failed": True,
            "failed_reason": "PodFailurePolicy",
            "failed_message": "exit code 65",
            "hash": now_wanted,
            **changes,
        },
    )


def test_plan_error_stands_until_the_job_is_edited() -> None:
    child = failed_plan(seen_s=0.0)
    words = {child.uid: LastWords(reason="Source", message="line 7 is ragged", advice="mend it")}

    plan, actions = see(None, make_view(), child, last_words=words)

    assert actions == []
    assert said(plan, "Planned") == ("False", "Source")
    assert said(plan, "Failed") == ("True", "Source")
    assert plan.status.message == "line 7 is ragged; mend it"
    edited, actions = see(None, make_view(), replace(child, hash="of another spec"), last_words=words)
    assert actions == [DeleteJob(PLAN_NAME, child.uid)]
    assert edited.status.phase == "Planning"
    assert said(edited, "Failed") == ("False", "Running")  # whoever waits for the edited job's end waits on


@pytest.mark.parametrize(("ago_s", "retries"), [(299.0, False), (301.0, True)], ids=["not-yet", "now"])
def test_plan_error_that_others_may_cure_is_tried_again(ago_s: float, retries: bool) -> None:
    child = failed_plan(seen_s=NOW_S - ago_s)
    words = {child.uid: LastWords(reason="AccessDenied", message="may not list")}

    plan, actions = see(None, make_view(), child, last_words=words)

    assert said(plan, "Planned") == ("False", "AccessDenied")
    assert said(plan, "Failed")[0] == "False"
    assert actions == ([DeleteJob(PLAN_NAME, child.uid)] if retries else [])


def test_plan_pod_that_said_nothing_is_told_in_kubernetes_words() -> None:
    child = failed_plan(failed_reason="BackoffLimitExceeded", failed_message="Job has reached the backoff limit")

    plan, _ = see(None, make_view(), child)

    assert said(plan, "Planned") == ("False", "PlanFailed")
    assert "backoff limit" in (plan.status.message or "")


# -- working ----------------------------------------------------------------------------------------------------------


def test_planned_run_cuts_its_first_wave() -> None:
    plan, actions = see(None, make_view(done=0))

    assert actions == [StartWave(RUN, 1, 0)]
    assert said(plan, "Planned") == ("True", "PlanCommitted")
    assert plan.status.planned_at == dt.datetime(2026, 11, 1, 11, tzinfo=dt.UTC)


def test_wave_gets_its_job() -> None:
    _, actions = see(None, make_view(done=0, wave=1, wave_shards=100))

    manifest = next(action for action in actions if isinstance(action, ApplyJob)).manifest
    assert len(actions) == 1
    assert manifest["metadata"]["name"] == WAVE_NAME
    assert manifest["spec"]["completions"] == 8


def test_running_wave_needs_nothing() -> None:
    view = make_view(done=40, wave=1, wave_shards=100, is_active=True)

    plan, actions = see(None, view, wave_child())

    assert actions == []
    assert plan.status.phase == "Running"
    assert plan.status.replicas == 2
    assert plan.status.done == "160/400"
    assert plan.again_in_s == pytest.approx(9.0)


@pytest.mark.parametrize(
    ("spec", "child", "want"),
    [
        ({"workers": {"parallelism": 5}}, {}, SetJob(WAVE_NAME, parallelism=5)),
        ({"workers": {"parallelism": 20}}, {}, SetJob(WAVE_NAME, parallelism=8)),
        ({"suspend": True}, {}, SetJob(WAVE_NAME, suspend=True)),
        ({"workers": {"parallelism": 0}}, {}, SetJob(WAVE_NAME, suspend=True)),
        ({}, {"suspend": True, "active": 0, "ready": 0}, SetJob(WAVE_NAME, suspend=False)),
    ],
    ids=["wider", "as-wide-as-indexes", "suspended", "scaled-to-zero", "resumed"],
)
def test_running_wave_follows_its_spec(spec: dict[str, Any], child: dict[str, Any], want: SetJob) -> None:
    custom = make_custom(**spec)
    one = wave_child(**child)
    view = make_view(done=40, wave=1, wave_shards=100, is_active=one.active > 0)

    _, actions = see(custom, view, one)

    assert actions == [want]


def test_wave_that_ended_is_counted_before_the_next() -> None:
    ended = wave_child(active=0, ready=0, is_failed=True, failed_reason="FailedIndexes", seen_s=NOW_S - 0.5)

    _, first = see(None, make_view(done=90, wave=1, wave_shards=100), ended)
    _, then = see(None, make_view(done=90, wave=1, wave_shards=100), replace(ended, seen_s=NOW_S - 10))

    assert [type(action) for action in first] == [Look]
    assert then == [StartWave(RUN, 2, 1)]


def test_wave_ended_by_an_exit_code_is_no_wave_over() -> None:
    ended = wave_child(active=0, ready=0, is_failed=True, failed_reason="PodFailurePolicy", failed_message="code 78")
    words = {ended.uid: LastWords(reason="EngineUnavailable", message="no model")}
    current = jobs.wave_job(parts(make_custom()), 1, 100, 0)["metadata"]["annotations"][HASH_ANNOTATION]

    plan, actions = see(
        None, make_view(done=0, wave=1, wave_shards=100), replace(ended, hash=current), last_words=words
    )

    assert actions == []
    assert said(plan, "Failed") == ("True", "EngineUnavailable")


def test_job_of_an_earlier_ownership_is_replaced() -> None:
    old = wave_child(epoch=7)

    _, actions = see(None, make_view(done=40, wave=1, wave_shards=100, is_active=True), old)

    assert actions == [DeleteJob(WAVE_NAME, old.uid)]


def test_run_taken_over_by_another_stops_our_pods() -> None:
    problem = StoreProblem(Reason.OUTPUT_BUSY, "held by a laptop", False)

    plan, actions = see(
        None,
        make_view(done=40, wave=1, wave_shards=100, is_active=True),
        wave_child(),
        problem=problem,
        tried_s=NOW_S - 1,
    )

    assert actions == [DeleteJob(WAVE_NAME, f"uid-of-{WAVE_NAME}")]
    assert said(plan, "Accepted") == ("False", "OutputBusy")


def test_outage_touches_no_job() -> None:
    problem = StoreProblem(Reason.STORE_UNAVAILABLE, "no answer", False)
    custom = make_custom({"phase": "Running"}, workers={"parallelism": 5})

    plan, actions = see(
        custom, make_view(done=40, wave=1, wave_shards=100), wave_child(), problem=problem, tried_s=NOW_S - 1
    )

    assert actions == []
    assert plan.status.phase == "Running"
    assert said(plan, "Progressing") == ("Unknown", "StoreUnavailable")


def test_pods_that_do_not_start_are_explained() -> None:
    pending = wave_child(active=2, ready=0)

    plan, _ = see(
        None,
        make_view(done=0, wave=1, wave_shards=100, is_active=True),
        pending,
        pod_trouble="Unschedulable: 0/3 nodes",
    )

    assert said(plan, "Progressing") == ("True", "WaitingForPods")
    assert plan.status.message == "Unschedulable: 0/3 nodes"


# -- the queue --------------------------------------------------------------------------------------------------------

QUEUED = {"workers": {"parallelism": 2, "queue": "team"}}


def test_queued_wave_is_left_to_its_queue() -> None:
    waiting = wave_child(queue="team", suspend=True, active=0, ready=0, has_started=False)

    plan, actions = see(make_custom(**QUEUED), make_view(done=0, wave=1, wave_shards=100), waiting)

    assert actions == []
    assert plan.status.phase == "Queued"
    assert said(plan, "Progressing") == ("False", "Queued")


def test_new_job_is_looked_at_again_soon_since_one_that_waits_brings_no_news() -> None:
    ended = wave_child(active=0, ready=0, is_complete=True)

    plan, actions = see(make_custom(**QUEUED), make_view(done=100, wave=1, wave_shards=100), ended)

    assert [type(action) for action in actions] == [ApplyJob]
    assert plan.again_in_s == MADE_PASS_S


@pytest.mark.parametrize(
    ("change", "workers"),
    [
        ({"queue": "old"}, {"queue": "team"}),
        ({"queue": ""}, {"queue": "team"}),
        ({"queue": "old"}, {}),
        ({"queue": "team", "has_started": False, "parallelism": 5}, {"queue": "team"}),
    ],
    ids=["another-queue", "first-queue", "no-queue-any-more", "another-size"],
)
def test_waiting_wave_of_another_queue_or_size_is_made_anew(change: dict[str, Any], workers: dict[str, Any]) -> None:
    waiting = wave_child(suspend=True, active=0, ready=0, **change)
    custom = make_custom(workers={"parallelism": 2, **workers})

    _, actions = see(custom, make_view(done=0, wave=1, wave_shards=100), waiting)

    assert actions == [DeleteJob(waiting.name, waiting.uid)]


def test_wave_at_work_stays_as_its_queue_admitted_it() -> None:
    working = wave_child(queue="old")

    _, actions = see(make_custom(**QUEUED), make_view(done=20, wave=1, wave_shards=100, is_active=True), working)

    assert actions == []


def test_preempted_wave_is_suspended_by_its_queue() -> None:
    preempted = wave_child(queue="team", suspend=True, active=0, ready=0, has_completed_indexes=True)

    plan, actions = see(make_custom(**QUEUED), make_view(done=20, wave=1, wave_shards=100), preempted)

    assert actions == []
    assert said(plan, "Suspended") == ("True", "SuspendedByQueue")


def test_queued_wave_is_paused_through_its_workload_and_never_scaled() -> None:
    custom = make_custom(suspend=True, workers={"parallelism": 7, "queue": "team"})
    child = wave_child()

    _, actions = see(custom, make_view(done=20, wave=1, wave_shards=100, is_active=True), child)

    assert actions == [SetWorkload(child.uid, False)]


# -- ending -----------------------------------------------------------------------------------------------------------


def test_counted_run_is_finalized_and_finished() -> None:
    view = make_view(done=100, wave=1, wave_shards=100)
    ended = wave_child(active=0, ready=0, is_complete=True)
    final = make_child(PodStep.FINALIZE, FINALIZE_NAME, is_complete=True)

    _, first = see(None, view, ended)
    _, then = see(None, replace(view, has_success=True), ended, final)

    assert [a.manifest["metadata"]["name"] for a in first if isinstance(a, ApplyJob)] == [FINALIZE_NAME]
    assert then == [ChangeEntry(RUN, {"state": "Finished", "reason": "Complete", "fingerprint": "f"})]


BUDGET = {"budget": {"maxCost": "5"}}


def test_budget_spent_stops_pods_then_reports_then_lets_go() -> None:
    custom = make_custom(**BUDGET)
    running = make_view(done=40, wave=1, wave_shards=100, spent=Spent(cost=CONFIG.price_of("cpu") + 6), is_active=True)
    at_rest = replace(running, is_active=False)

    _, first = see(custom, running, wave_child())
    _, second = see(custom, at_rest)
    manifest = next(action for action in second if isinstance(action, ApplyJob)).manifest
    _, third = see(custom, at_rest, make_child(PodStep.FINALIZE, STOPPED_NAME, is_complete=True))
    let_go = replace(
        at_rest, is_mine=False, entry=at_rest.entry.model_copy(update={"owner": "", "reason": "BudgetExceeded"})
    )
    plan, fourth = see(custom, let_go)
    _, raised = see(make_custom(budget={"maxCost": "50"}), let_go)

    assert first == [DeleteJob(WAVE_NAME, f"uid-of-{WAVE_NAME}")]
    assert manifest["metadata"]["name"] == STOPPED_NAME
    assert third == [ChangeEntry(RUN, {"owner": "", "reason": "BudgetExceeded"})]
    assert fourth == []
    assert said(plan, "Failed") == ("True", "BudgetExceeded")
    assert [type(action) for action in raised] == [Adopt]


def test_broken_engine_waits_for_another_image() -> None:
    view = make_view(done=40, state="GivenUp", reason="EngineBroken", owner="")
    custom = make_custom({"run": RUN, "workKey": KEY, "image": "worker:1"})

    plan, actions = see(custom, view)
    _, repaired = see(custom, view, config=parse_config({**CONFIG.model_dump(), "images": {"default": "worker:2"}}))

    assert actions == []
    assert said(plan, "Failed") == ("True", "EngineBroken")
    assert [type(action) for action in repaired] == [Adopt]


def test_complete_job_is_left_alone_and_deleted_after_its_time() -> None:
    status = {
        "observedGeneration": 2,
        "workKey": KEY,
        "completionTime": "2026-11-01T11:00:00Z",
        "conditions": [{"type": "Complete", "status": "True", "reason": "Completed"}],
    }

    _, never = see(make_custom(status))
    plan, later = see(make_custom(status, ttlSecondsAfterFinished=7200))
    _, now = see(make_custom(status, ttlSecondsAfterFinished=60))

    assert never == []
    assert (later, plan.again_in_s) == ([], 3600.0)
    assert now == [DeleteSelf("uid-1")]


# -- the status -------------------------------------------------------------------------------------------------------


def test_status_is_steady_when_nothing_changes() -> None:
    view = make_view(done=40, wave=1, wave_shards=100, is_active=True)
    plan, _ = see(None, view, wave_child())
    written = plan.status.model_dump(mode="json", by_alias=True, exclude_none=True)

    again = reconcile(
        Observed(
            custom=make_custom(written),
            config=CONFIG,
            now_s=NOW_S + 3,
            children=(wave_child(),),
            sight=StoreSight(view=view),
        ),
        NOW + dt.timedelta(seconds=3),
    )

    assert again.status == JobStatus.model_validate(written)


def test_transition_time_moves_only_with_its_status() -> None:
    before, _ = see(None, make_view(done=0, wave=1, wave_shards=100), wave_child(ready=0))
    written = before.status.model_dump(mode="json", by_alias=True, exclude_none=True)
    seen = Observed(
        custom=make_custom(written),
        config=CONFIG,
        now_s=NOW_S,
        children=(wave_child(),),
        sight=StoreSight(view=make_view(done=10, wave=1, wave_shards=100)),
    )

    after = reconcile(seen, NOW + dt.timedelta(minutes=5)).status

    progressing = after.condition("Progressing")
    assert progressing is not None
    assert (progressing.reason, progressing.last_transition_time) == ("ShardsCommitting", NOW)


def test_status_of_a_million_shards_stays_small() -> None:
    view = make_view(done=0, wave=1, wave_shards=1_000_000)
    samples = [FailureSample(item="p" * 1000, error_class="ImageTruncated", message="m" * 2000) for _ in range(20)]
    totals = Totals(
        shards=1_000_000,
        shards_done=400_000,
        items=Counts(planned=10**9, succeeded=10**9 - 500, failed=500),
        failures=samples,
    )
    assert view.plan is not None
    big = replace(view, totals=totals, plan=view.plan.model_copy(update={"items": 2 * 10**9, "shards": 1_000_000}))

    plan, _ = see(make_custom(retries={"maxFailedItems": "50%"}), big, wave_child(), pod_trouble="x" * 5000)

    assert status_bytes(plan.status) <= MAX_STATUS_BYTES
    assert plan.status.failures


def test_rate_eta_and_cost_are_for_people() -> None:
    view = make_view(
        done=40, wave=1, wave_shards=100, rate=0.5, spent=Spent(cost=CONFIG.price_of("cpu") + 2), is_active=True
    )

    plan, _ = see(None, view, wave_child())

    assert (plan.status.rate, plan.status.eta) == ("0.5/s", "8m")
    assert plan.status.cost is not None
    assert (plan.status.cost.spent, plan.status.cost.estimated) == ("2.00", "5.00")


@pytest.mark.parametrize(
    ("seconds", "want"), [(5, "5s"), (90, "1m"), (9840, "2h44m"), (360_000, "4d4h")], ids=["s", "m", "h", "d"]
)
def test_duration_reads_well(seconds: int, want: str) -> None:
    assert duration(seconds) == want
