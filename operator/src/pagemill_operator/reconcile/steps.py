"""Turning the rule book's step for a run into child Jobs and changes of the ledger.

Layer: `operator.reconcile`; pure. One function for each step of `core.work.lifecycle`, in the order of a job's life.
Each says what should be there and what is missing; none remembers anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pagemill_core.api.conditions import Reason
from pagemill_core.api.v1alpha1 import Job
from pagemill_core.work.layout import SEGMENT_SHARDS
from pagemill_core.work.lifecycle import Decision, Step, decide, too_many_failures
from pagemill_core.work.lifecycle import Observed as RunObserved
from pagemill_core.work.pod import PodStep
from pagemill_operator.children import jobs, names
from pagemill_operator.cluster import JsonObject
from pagemill_operator.objects import Child
from pagemill_operator.reconcile import situation as say
from pagemill_operator.reconcile.failures import POD_FAILURE_POLICY, failed_child
from pagemill_operator.reconcile.observed import Observed, image_of, is_paused, limits_of
from pagemill_operator.reconcile.plan import (
    Action,
    ApplyJob,
    ChangeEntry,
    DeleteJob,
    Look,
    SetJob,
    SetWorkload,
    StartWave,
)
from pagemill_operator.reconcile.situation import Situation
from pagemill_operator.settings import WorkerImage
from pagemill_operator.store_view import StoreView, known_reason

POLL_S = 10.0
POLL_PER_OPEN_SEGMENT_S = 0.5
UNREADY_PASS_S = 15.0
HINT_POLL_S = 3.0  # a Job's status changed: look, but not at each of a thousand pods


@dataclass(frozen=True, slots=True)
class Run:
    """An adopted run with what its steps need."""

    seen: Observed
    job: Job
    view: StoreView

    @property
    def image(self) -> WorkerImage:
        """The image that the run was planned with, else today's. The job was accepted, so there is one."""
        today = image_of(self.job, self.seen.config)
        if today is None:
            raise LookupError(self.job.kind)
        status = self.seen.custom.status
        pinned = status.image if status.run == self.view.run and self.view.plan is not None else None
        return today.model_copy(update={"image": pinned}) if pinned else today

    @property
    def parts(self) -> jobs.RunParts:
        return jobs.RunParts(
            custom=self.seen.custom,
            job=self.job,
            config=self.seen.config,
            image=self.image,
            run=self.view.run,
            epoch=self.view.entry.epoch,
            source_uri=self.seen.source_uri,
        )

    @property
    def look(self) -> Look:
        return look_at(self.seen, self.view.run)

    def wave_name(self, wave: int) -> str:
        return names.wave_name(self.seen.custom.key.name, self.seen.custom.uid, self.view.run, wave)

    @property
    def wave_child(self) -> Child | None:
        """The Job of the newest wave, None when there is none (yet, or any more)."""
        return self.seen.child(self.wave_name(self.view.wave)) if self.view.wave else None

    def has_seen_end_of(self, child: Child) -> bool:
        """Whether the output was looked at after this Job ended, so that its last markers are counted."""
        return self.view.looked_s > child.seen_s


def look_at(seen: Observed, run: str) -> Look:
    """A look that is thorough once no pods are at work: then every marker counts."""
    is_active = seen.working()
    return Look(run, is_active, is_thorough=not is_active)


def open_run(seen: Observed, job: Job, view: StoreView) -> Situation:
    """What a run that is ours, and not final, needs next."""
    run = Run(seen, job, view)
    stale = [child for child in seen.own_children if not child.is_finished and child.epoch not in (0, view.entry.epoch)]
    if stale:  # their pods obey an earlier ownership: they would stop by themselves, and must not be waited for
        return say.running(message="replacing pods of an earlier ownership").doing(*_delete(stale))
    decision = _decide(run)
    return _STEPS[decision.step](run, decision)


def over_run(seen: Observed, job: Job, view: StoreView) -> Situation | None:
    """How a run that is final, or was let go, stands; None when there is something to do on it again."""
    run = Run(seen, job, view)
    if view.entry.state == "Finished":
        return _finished(run)
    if view.entry.state == "GivenUp":
        return _given_up(run)
    decision = _decide(run)
    reason = known_reason(view.entry.reason)
    if decision.step is Step.STOP and reason is not None and decision.reason == view.entry.reason:
        return say.failed(reason, decision.message)
    return None


def pause(seen: Observed, job: Job) -> Situation:
    """No pods, and nothing lost: pods finish their item, Jobs stay."""
    left = [child for child in seen.own_children if not child.is_finished and not child.is_deleting]
    actions: list[Action] = []
    for child in left:
        if job.spec.workers.effective_queue:  # also of one that still waits: it must not be admitted now
            actions.append(SetWorkload(child.uid, False))
        elif not child.suspend:
            actions.append(SetJob(child.name, suspend=True))
    asked = "spec.suspend is true" if job.spec.effective_suspend else "workers.parallelism is 0"
    if not is_paused(job):
        asked = "the run's ledger entry asks for a pause"
    busy = any(child.has_pods for child in left)
    message = f"{asked}; pods finish their item and stop" if busy else f"{asked}; nothing runs"
    return say.suspended(message).doing(*actions)


# -- asking the rule book ---------------------------------------------------------------------------------------------


def _decide(run: Run) -> Decision:
    view = run.view
    return decide(
        RunObserved(
            state=view.entry.state,
            desired=view.entry.desired,
            planned_items=view.plan.items if view.plan else None,
            totals=view.totals,
            wave=view.wave,
            wave_is_over=_wave_is_over(run),
            spent=view.spent.cost,
            active_s=view.active_s,
        ),
        limits_of(run.job),
    )


def _wave_is_over(run: Run) -> bool:
    if run.view.wave == 0:
        return True
    # Of a run let go for this reason the waves are over, though its Jobs may have been cleaned up since.
    if not run.view.entry.owner and run.view.entry.reason == Reason.SHARDS_EXHAUSTED:
        return True
    child = run.wave_child
    return child is not None and child.is_finished


# -- working ----------------------------------------------------------------------------------------------------------


def _plan(run: Run, _: Decision) -> Situation:
    def wanted() -> JsonObject:
        return jobs.plan_job(run.parts)

    child = run.seen.child(names.plan_name(run.seen.custom.key.name, run.seen.custom.uid, run.view.run))
    found = say.planning(run.seen.pod_trouble or "listing the source and cutting it into shards")
    if child is None:
        return found.doing(ApplyJob(wanted()))
    if child.is_failed:
        return failed_child(run.seen, child, wanted)
    if not child.is_complete:
        return _under_way(run, child, found, polls=False)
    if run.has_seen_end_of(child):  # it said it was done, and there is no plan: start over
        return found.doing(DeleteJob(child.name, child.uid))
    return found.doing(run.look)


def _start_wave(run: Run, _: Decision) -> Situation:
    """The next list of missing shards, once the last wave's markers are all counted."""
    view, child = run.view, run.wave_child
    if child is not None and not run.has_seen_end_of(child):
        return say.running().doing(run.look)
    if child is not None and child.failed_reason == POD_FAILURE_POLICY:
        return failed_child(run.seen, child, lambda: _wave_manifest(run))
    rung = view.memory_rung + 1 if view.wave else 0
    found = say.running(Reason.WAITING_FOR_PODS, "starting workers")
    return found.doing(StartWave(view.run, view.wave + 1, rung))


def _work(run: Run, _: Decision) -> Situation:
    """The wave's Job is there, with as many pods as its owner wants now."""
    child = run.wave_child
    if child is None:
        return say.running(Reason.WAITING_FOR_PODS, "starting workers").doing(ApplyJob(_wave_manifest(run)))
    message = f"wave {run.view.wave}" if run.view.wave > 1 else ""
    found = say.running(message=message)
    if not child.ready and not child.has_completed_indexes:
        found = say.running(Reason.WAITING_FOR_PODS, run.seen.pod_trouble or "pods are on the way")
    return _under_way(run, child, found)


def _wave_manifest(run: Run) -> JsonObject:
    return jobs.wave_job(run.parts, run.view.wave, run.view.wave_shards, run.view.memory_rung)


def _under_way(run: Run, child: Child, found: Situation, *, polls: bool = True) -> Situation:
    """An unfinished Job: as wide as wanted, not suspended, looked at in time."""
    if child.is_deleting:
        return found
    if _is_in_wrong_queue(run, child):
        return found.doing(DeleteJob(child.name, child.uid))
    if run.job.spec.workers.effective_queue:
        found = _in_queue(run, child, found)
    else:
        found = found.doing(*_adjustments(run, child))
    if not child.ready:  # soon enough to say why its pods do not start
        found = found.doing(again_in_s=UNREADY_PASS_S)
    return _polled(run, found) if polls else found


def _is_in_wrong_queue(run: Run, child: Child) -> bool:
    """Whether a Job that waits was made for another queue, or for another size of it: it is made anew.

    Nothing is lost by that, and Kueue sees what it sees of any new Job. One at work stays as it is admitted.
    """
    if not child.suspend:
        return False
    if child.queue != run.job.spec.workers.effective_queue:
        return True
    is_untouched = not (child.has_started or child.has_completed_indexes)
    wanted = min(run.job.spec.workers.parallelism, child.completions)
    return bool(child.queue) and child.step is PodStep.WORK and is_untouched and wanted != child.parallelism


def _adjustments(run: Run, child: Child) -> tuple[SetJob, ...]:
    wanted = min(run.job.spec.workers.parallelism, child.completions)
    parallelism = wanted if child.step is PodStep.WORK and wanted != child.parallelism else None
    suspend = False if child.suspend else None
    if parallelism is None and suspend is None:
        return ()
    return (SetJob(child.name, parallelism, suspend),)


def _in_queue(run: Run, child: Child, found: Situation) -> Situation:
    """The queue admits and preempts; only a pause of ours is taken back."""
    status = run.seen.custom.status
    condition = status.condition("Suspended")
    was_paused = condition is not None and condition.reason == Reason.SUSPENDED_BY_USER
    resume = (SetWorkload(child.uid, True),) if was_paused else ()
    if not child.suspend:
        return found.doing(*resume)
    queue = run.job.spec.workers.effective_queue
    why = f": {run.seen.queue_words}" if run.seen.queue_words else ""
    if child.step is PodStep.WORK and (child.has_completed_indexes or run.view.totals.shards_done):
        return say.suspended(f"queue {queue} has taken its place back{why}", by_queue=True).doing(*resume)
    return say.queued(f"queue {queue} has not admitted {child.name} yet{why}").doing(*resume)


def _polled(run: Run, found: Situation) -> Situation:
    """Count markers every so often, and soon after a Job's status changed."""
    view, now_s = run.view, run.seen.now_s
    open_segments = -(-(view.totals.shards - view.totals.shards_done) // SEGMENT_SHARDS)
    every_s = max(POLL_S, POLL_PER_OPEN_SEGMENT_S * open_segments)
    if any(child.seen_s >= view.looked_s for child in run.seen.own_children):
        every_s = HINT_POLL_S
    left_s = every_s - (now_s - view.looked_s)
    return found.doing(run.look) if left_s <= 0 else found.doing(again_in_s=left_s)


def _pause(run: Run, _: Decision) -> Situation:
    return pause(run.seen, run.job)


# -- ending -----------------------------------------------------------------------------------------------------------


def _start_sealing(run: Run, decision: Decision) -> Situation:
    child = run.wave_child
    if child is not None and not run.has_seen_end_of(child):
        return say.running().doing(run.look)
    sealing = ChangeEntry(run.view.run, {"state": "Sealing", "reason": decision.reason})
    return say.finalizing(decision.message).doing(sealing)


def _finalize(run: Run, decision: Decision) -> Situation:
    """One pod seals what is given up on, writes what needs every shard, and says so once."""
    view = run.view
    found = say.finalizing(run.seen.pod_trouble or decision.message or "writing merged files, index and report")
    if view.has_success:
        fingerprint = view.plan.fingerprint if view.plan else ""
        done = {"state": "Finished", "reason": "Complete", "fingerprint": fingerprint}
        return found.doing(ChangeEntry(view.run, done))

    def wanted() -> JsonObject:
        return jobs.finalize_job(run.parts, "Complete")

    custom, epoch = run.seen.custom, view.entry.epoch
    child = run.seen.child(names.finalize_name(custom.key.name, custom.uid, view.run, (epoch, "Complete")))
    if child is None:
        return found.doing(ApplyJob(wanted()))
    if child.is_failed:
        return failed_child(run.seen, child, wanted)
    if not child.is_complete:
        return _under_way(run, child, found, polls=False)
    return found.doing(DeleteJob(child.name, child.uid) if run.has_seen_end_of(child) else run.look)


def _stop(run: Run, decision: Decision) -> Situation:
    """End this ownership short of success: pods away, views of what is committed, a report, the entry let go."""
    child = run.wave_child
    if child is not None and child.is_finished:
        if child.failed_reason == POD_FAILURE_POLICY:
            return failed_child(run.seen, child, lambda: _wave_manifest(run))
        if not run.has_seen_end_of(child):
            return say.running().doing(run.look)
    found = say.finalizing(f"stopping: {decision.message}")
    at_work = [one for one in run.seen.own_children if one.step is not PodStep.FINALIZE and not one.is_finished]
    if at_work:
        return found.doing(*_delete(at_work))
    return _reported(run, decision, found)


def _reported(run: Run, decision: Decision, found: Situation) -> Situation:
    settle = {"state": "GivenUp"} if decision.step is Step.GIVE_UP else {"owner": ""}
    let_go = ChangeEntry(run.view.run, {**settle, "reason": decision.reason})
    if run.view.plan is None:
        return found.doing(let_go)
    wanted = jobs.finalize_job(run.parts, "Stopped", decision.reason, decision.message)
    child = run.seen.child(wanted["metadata"]["name"])
    if child is None:
        return found.doing(ApplyJob(wanted))
    # A report that could not be written is no reason to hold the output for ever.
    return found.doing(let_go) if child.is_finished else _under_way(run, child, found, polls=False)


def _delete(children: list[Child]) -> tuple[DeleteJob, ...]:
    return tuple(DeleteJob(child.name, child.uid) for child in children if not child.is_deleting)


# -- over -------------------------------------------------------------------------------------------------------------


def _finished(run: Run) -> Situation:
    """Complete, its verdict taken anew from its totals and today's limits."""
    totals, items = run.view.totals, run.view.totals.items
    planned = run.view.plan.items if run.view.plan else items.planned
    message = too_many_failures(totals, planned, limits_of(run.job))
    if message:
        return say.failed(Reason.TOO_MANY_FAILURES, message)
    if planned == 0:
        done = run.view.plan.already_done if run.view.plan else 0
        text = f"nothing new: {done:,} items were done before" if done else "the source holds no item"
        return say.complete(Reason.NOTHING_TO_DO, text)
    if items.failed:
        return say.complete(Reason.COMPLETED_WITH_FAILURES, f"{items.failed:,} of {planned:,} items failed")
    return say.complete(Reason.COMPLETED, f"{planned:,} items")


def _given_up(run: Run) -> Situation | None:
    """Final; the work goes on in a new run once what ended it does not hold any more."""
    entry, status = run.view.entry, run.seen.custom.status
    if entry.reason == Reason.TOO_MANY_FAILURES:
        planned = run.view.plan.items if run.view.plan else 0
        message = too_many_failures(run.view.totals, planned, limits_of(run.job))
        return say.failed(Reason.TOO_MANY_FAILURES, message) if message else None
    if entry.reason == Reason.ENGINE_BROKEN:
        today = image_of(run.job, run.seen.config)
        if today is not None and status.image in (None, today.image):
            return say.failed(Reason.ENGINE_BROKEN, _broken_message(run))
    return None


def _broken_message(run: Run) -> str:
    classes = ", ".join(f"{name}: {count:,}" for name, count in sorted(run.view.totals.failure_classes.items()))
    return f"most items failed alike ({classes}); goes on in a new run with another worker image"


_STEPS: dict[Step, Callable[[Run, Decision], Situation]] = {
    Step.PLAN: _plan,
    Step.START_WAVE: _start_wave,
    Step.WAIT: _work,
    Step.PAUSE: _pause,
    Step.START_SEALING: _start_sealing,
    Step.SEAL: _finalize,
    Step.FINALIZE: _finalize,
    Step.STOP: _stop,
    Step.GIVE_UP: _stop,
}
