"""What a job needs next: the top of the pure part, to be read from here downwards.

Layer: `operator.reconcile`; pure. Before a run is adopted this module decides; what an adopted run needs is decided by
`core.work.lifecycle.decide`, the same rule book that `pagemill run` obeys, and turned into actions by `steps`.
"""

from __future__ import annotations

import datetime as dt

from pagemill_core.api.conditions import ConditionType, Reason
from pagemill_core.api.v1alpha1 import Job
from pagemill_core.work.ledger import WorkRequest
from pagemill_operator.objects import Custom
from pagemill_operator.reconcile import situation as say
from pagemill_operator.reconcile.accept import refusal
from pagemill_operator.reconcile.observed import DependencyState, Observed, is_paused
from pagemill_operator.reconcile.plan import Adopt, ApplyJob, ChangeEntry, DeleteJob, DeleteSelf, Look, Plan, StartWave
from pagemill_operator.reconcile.situation import Situation
from pagemill_operator.reconcile.status import build_status
from pagemill_operator.reconcile.steps import look_at, open_run, over_run, pause
from pagemill_operator.store_view import StoreProblem, StoreView

ASK_AGAIN_S = 15.0  # a store that does not answer; its endpoint's breaker keeps many jobs from asking at once
ASK_FINAL_AGAIN_S = 60.0  # a store that refuses: somebody has to grant or change something
ASK_BUSY_AGAIN_S = 5.0  # mostly a job that was deleted and applied again, whose old pods are on their way out
MADE_PASS_S = 3.0  # a new Job that stays as it was made brings no news: in a queue, or beyond a quota
RENEW_LOOK_S = 120.0  # under the 180 s after which the ledger entry is to be renewed


def reconcile(seen: Observed, now: dt.datetime) -> Plan:
    """The actions and the status for what is seen. Any call may be lost, repeated or late."""
    if seen.custom.is_deleting:
        return Plan(status=seen.custom.status)
    if _is_settled(seen.custom):
        return _finished_plan(seen, now)
    found = _situation(seen)
    if found is None:  # a new operator: what its predecessor said stands until it has looked for itself
        look = Plan(status=seen.custom.status, actions=(look_at(seen, seen.custom.status.run or ""),))
        return _with_one_store_action(look, is_busy=seen.sight.is_busy)
    if any(isinstance(action, ApplyJob) for action in found.actions):
        found = found.doing(again_in_s=MADE_PASS_S)
    status = build_status(seen, found, now)
    again_in_s = found.again_in_s
    if status.is_true(ConditionType.COMPLETE):  # its own write may be the last news of it
        again_in_s = _time_to_live_s(seen.custom)
    plan = Plan(status=status, actions=found.actions, again_in_s=again_in_s)
    return _with_one_store_action(plan, is_busy=seen.sight.is_busy)


def current_view(seen: Observed) -> StoreView | None:
    """The picture of the run that does this spec's work, None when there is none yet."""
    view = seen.sight.view
    return view if view is not None and view.entry.work_key == seen.custom.work_key else None


def _is_settled(custom: Custom) -> bool:
    """Whether this very spec is complete: then neither the store nor the cluster is asked again."""
    status = custom.status
    return (
        status.is_true(ConditionType.COMPLETE)
        and status.observed_generation == custom.generation
        and status.work_key == custom.work_key
    )


def _finished_plan(seen: Observed, now: dt.datetime) -> Plan:
    """A complete job: kept until its time has passed."""
    status, ttl_s = seen.custom.status, _time_to_live_s(seen.custom)
    if ttl_s is None or status.completion_time is None:
        return Plan(status=status)
    left_s = ttl_s - (now - status.completion_time).total_seconds()
    if left_s > 0:
        return Plan(status=status, again_in_s=left_s)
    return Plan(status=status, actions=(DeleteSelf(seen.custom.uid),))


def _time_to_live_s(custom: Custom) -> float | None:
    return None if custom.job is None else custom.job.spec.ttl_seconds_after_finished


def _situation(seen: Observed) -> Situation | None:
    """Where the job stands, None while its run is known and not looked at yet."""
    refused = refusal(seen)
    job = seen.custom.job
    if refused is not None or job is None:
        message = refused.message if refused else seen.custom.problem
        return say.not_accepted(refused.reason if refused else Reason.INVALID_SPEC, message)
    view = current_view(seen)
    if view is None:
        return _unseen(seen, job) if _is_known(seen) else _unadopted(seen, job)
    if view.entry.is_final:
        return over_run(seen, job, view) or _adopt(seen, job)
    if view.is_mine:
        return _mine(seen, job, view)
    return _let_go(seen, job, view)


# -- before a run is ours ---------------------------------------------------------------------------------------------


def _unadopted(seen: Observed, job: Job) -> Situation:
    if is_paused(job):
        return pause(seen, job)
    held_back = _dependencies(seen.dependencies)
    if held_back is not None:
        return held_back
    return _adopt(seen, job)


def _is_known(seen: Observed) -> bool:
    """Whether an earlier pass adopted a run for this work, and nothing says that the run is gone."""
    status, problem = seen.custom.status, seen.sight.problem
    is_lost = problem is not None and problem.reason is Reason.INTEGRITY
    return bool(status.run) and status.work_key == seen.custom.work_key and not is_lost


def _unseen(seen: Observed, job: Job) -> Situation | None:
    """A run that was adopted before and could not be looked at yet."""
    problem, look = seen.sight.problem, look_at(seen, seen.custom.status.run or "")
    wait_s = 0.0 if problem is None else _wait_s(seen, problem)
    if is_paused(job):
        found = pause(seen, job)
    elif problem is not None:
        found = say.blind(seen.custom.status.phase or "Pending", problem.reason, f"{problem.message}; pods go on")
    else:
        return None
    return found.doing(look) if wait_s <= 0 else found.doing(again_in_s=wait_s)


def _dependencies(states: tuple[DependencyState, ...]) -> Situation | None:
    """Why the job must wait for others, None when it need not."""
    circle = next((state for state in states if state.path), None)
    if circle is not None:
        shown = " → ".join(f"{key.kind}/{key.name}" for key in circle.path)
        return say.waiting(Reason.DEPENDENCY_CYCLE, f"jobs wait for each other: {shown}; take one dependsOn away")
    failed = [f"{state.key.kind}/{state.key.name}" for state in states if state.is_failed]
    if failed:
        return say.waiting(Reason.DEPENDENCY_FAILED, f"failed: {', '.join(failed)}; goes on when it is complete")
    missing = [
        f"{state.key.kind}/{state.key.name}{'' if state.exists else ' (not there)'}"
        for state in states
        if not state.is_complete
    ]
    return say.waiting(Reason.WAITING_FOR_DEPENDENCIES, f"waits for {', '.join(missing)}") if missing else None


def _adopt(seen: Observed, job: Job) -> Situation:
    """Ask the output for the run of this work; after a refusal, again when it is time."""
    problem = seen.sight.problem
    request = WorkRequest(
        work_key=seen.custom.work_key,
        kind=job.kind,
        incremental=job.spec.effective_incremental,
        replace=job.spec.output.effective_on_conflict == "Replace",
    )
    adopt = Adopt(request)
    if problem is None:
        return say.pending(message="asking the output which run does this work").doing(adopt)
    found = say.not_accepted(problem.reason, problem.message, waits=not problem.is_final)
    wait_s = _wait_s(seen, problem)
    return found.doing(adopt) if wait_s <= 0 else found.doing(again_in_s=wait_s)


def _wait_s(seen: Observed, problem: StoreProblem) -> float:
    """How long until the store is asked again, 0 or less for now."""
    pause_s = ASK_FINAL_AGAIN_S if problem.is_final else ASK_AGAIN_S
    if problem.reason is Reason.OUTPUT_BUSY:
        pause_s = ASK_BUSY_AGAIN_S
    return pause_s - (seen.now_s - (seen.sight.tried_s or 0.0))


# -- a run of this work, not final ------------------------------------------------------------------------------------


def _mine(seen: Observed, job: Job, view: StoreView) -> Situation:
    problem = seen.sight.problem
    if problem is not None and problem.reason is Reason.OUTPUT_BUSY:
        return _adopt(seen, job).doing(*_stopped_children(seen))
    if is_paused(job):
        return _renewed(seen, view, pause(seen, job))
    if problem is not None:
        return _blind(seen, view, problem)
    return _renewed(seen, view, open_run(seen, job, view))


def _let_go(seen: Observed, job: Job, view: StoreView) -> Situation:
    """A run of this work that nobody or somebody else holds: ours again when there is something to do on it."""
    if not view.entry.owner:
        ended = over_run(seen, job, view)
        if ended is not None:
            return ended
    if is_paused(job):
        return pause(seen, job)
    return _adopt(seen, job)


def _stopped_children(seen: Observed) -> tuple[DeleteJob, ...]:
    """The loser of a run stops: its pods would find out by themselves, a little later."""
    return tuple(
        DeleteJob(child.name, child.uid)
        for child in seen.own_children
        if not child.is_finished and not child.is_deleting
    )


def _blind(seen: Observed, view: StoreView, problem: StoreProblem) -> Situation:
    """An outage touches no Job; pods may well see more than the operator does."""
    phase = seen.custom.status.phase or "Running"
    found = say.blind(phase, problem.reason, f"{problem.message}; pods go on")
    wait_s = _wait_s(seen, problem)
    look = look_at(seen, view.run)
    return found.doing(look) if wait_s <= 0 else found.doing(again_in_s=wait_s)


def _renewed(seen: Observed, view: StoreView, found: Situation) -> Situation:
    """Whatever else: look at the run when pods begin or cease to be at work, since that time is held against the
    deadline, and often enough that its ledger entry is renewed in time."""
    left_s = RENEW_LOOK_S - (seen.now_s - view.looked_s)
    if left_s <= 0 or view.is_active != seen.working():
        return found.doing(look_at(seen, view.run))
    return found.doing(again_in_s=left_s)


def _with_one_store_action(plan: Plan, *, is_busy: bool) -> Plan:
    """At most one thing at a time is asked of a job's output: the first that is no mere look, else the look."""
    store = [action for action in plan.actions if isinstance(action, (Adopt, Look, StartWave, ChangeEntry))]
    rest = tuple(action for action in plan.actions if action not in store)
    if is_busy or not store:
        return Plan(status=plan.status, actions=rest, again_in_s=plan.again_in_s)
    chosen = next((action for action in store if not isinstance(action, Look)), store[0])
    return Plan(status=plan.status, actions=(*rest, chosen), again_in_s=plan.again_in_s)
