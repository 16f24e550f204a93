"""The whole status from a situation and the run's picture.

Layer: `operator.reconcile`; pure. Always complete: server-side apply removes what is left out. What is not known now
keeps its last value while the work is the same.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

from pagemill_core.api.conditions import ConditionType, Reason
from pagemill_core.api.v1alpha1 import Job, JobStatus
from pagemill_core.api.v1alpha1.status import (
    MAX_FAILURE_SAMPLES,
    ChildJob,
    Condition,
    Cost,
    FailureSample,
    ItemCounts,
    Results,
    ShardCounts,
    fit_status,
    utc,
)
from pagemill_core.clock import from_iso
from pagemill_core.storage.open import join_uri
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.pod import JOB_LABEL, STEP_LABEL, PodStep
from pagemill_core.work.records import PlanPointer
from pagemill_operator.objects import Child
from pagemill_operator.reconcile.observed import Observed, image_of
from pagemill_operator.reconcile.situation import Said, Situation
from pagemill_operator.store_view import StoreView

MAX_MESSAGE_CHARS = 1000
MAX_JOBS = 8
_KINDS = {PodStep.PLAN: "Plan", PodStep.WORK: "Work", PodStep.FINALIZE: "Finalize"}


def build_status(seen: Observed, found: Situation, now: dt.datetime) -> JobStatus:
    """The status to show, within its size limit, with times that only change when what they tell of does."""
    old = _kept(seen)
    view = seen.sight.view
    if view is not None and view.entry.work_key != seen.custom.work_key:
        view = None
    status = JobStatus.model_validate(
        {
            **_from_old(old),
            "observed_generation": seen.custom.generation,
            "phase": found.phase,
            "message": _short(found.message) or None,
            "conditions": _conditions(seen, found, view, now),
            **_from_children(seen),
            **(_from_view(seen, view, found) if view is not None else {}),
            **_times(old, found, view, now),
        }
    )
    return fit_status(status)


def _kept(seen: Observed) -> JobStatus:
    """The last status as far as it is about the same work."""
    old = seen.custom.status
    return old if old.work_key in (None, seen.custom.work_key) else JobStatus()


def _from_old(old: JobStatus) -> dict[str, object]:
    names = ("run", "work_key", "planned_at", "image", "items", "shards", "done", "cost", "failures", "results")
    return {name: getattr(old, name) for name in names}


def _short(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE_CHARS else f"{text[: MAX_MESSAGE_CHARS - 2]} …"


# -- conditions -------------------------------------------------------------------------------------------------------


def _conditions(seen: Observed, found: Situation, view: StoreView | None, now: dt.datetime) -> tuple[Condition, ...]:
    return tuple(_condition(kind, _said(kind, seen, found, view), seen, now) for kind in ConditionType)


def _said(kind: ConditionType, seen: Observed, found: Situation, view: StoreView | None) -> Said:
    if kind is ConditionType.PLANNED and kind not in found.said:
        if view is not None and view.plan is not None:
            return Said("True", Reason.PLAN_COMMITTED, _planned_message(view.plan))
        before = _kept(seen).condition(kind)
        if before is not None and before.status == "True":
            return Said("True", Reason.PLAN_COMMITTED, before.message)
    said = found.condition(kind)
    if found.is_over and said.reason is Reason.RUNNING:
        ended = next(
            found.condition(end)
            for end in (ConditionType.COMPLETE, ConditionType.FAILED)
            if found.condition(end).status == "True"
        )
        return Said(said.status, ended.reason)
    return said


def _planned_message(plan: PlanPointer) -> str:
    text = f"{plan.items:,} items in {plan.shards:,} shards"
    done = f", {plan.already_done:,} done before" if plan.already_done else ""
    failed = f", {plan.failed_at_plan:,} failed already" if plan.failed_at_plan else ""
    warned = f"; {'; '.join(plan.warnings)}" if plan.warnings else ""
    return text + done + failed + warned


def _condition(kind: ConditionType, said: Said, seen: Observed, now: dt.datetime) -> Condition:
    before = seen.custom.status.condition(kind)
    changed = before is None or before.status != said.status or before.last_transition_time is None
    return Condition(
        type=kind.value,
        status=said.status,
        reason=said.reason.value,
        message=_short(said.message),
        observed_generation=seen.custom.generation,
        last_transition_time=utc(now) if changed or before is None else before.last_transition_time,
    )


# -- counts -----------------------------------------------------------------------------------------------------------


def _from_view(seen: Observed, view: StoreView, found: Situation) -> dict[str, object]:
    facts: dict[str, object] = {
        "run": view.run,
        "work_key": view.entry.work_key,
        "cost": _cost(seen, view),
        "image": _image(seen, view),
        "results": _results(seen, view, found),
    }
    if view.plan is None:
        return {**facts, "planned_at": None, "items": None, "shards": None, "done": None, "failures": ()}
    items, totals = view.totals.items, view.totals
    finished = items.succeeded + items.failed + items.skipped
    exhausted = found.condition(ConditionType.FAILED).reason is Reason.SHARDS_EXHAUSTED
    speed = {} if found.is_over or finished >= view.plan.items else _speed(view, view.plan.items - finished)
    return {
        **facts,
        **speed,
        "planned_at": utc(from_iso(view.plan.planned_at)) if view.plan.planned_at else None,
        "items": ItemCounts(
            total=view.plan.items,
            succeeded=items.succeeded,
            failed=items.failed,
            skipped=items.skipped,
            already_done=view.plan.already_done,
        ),
        "shards": ShardCounts(
            total=totals.shards,
            succeeded=totals.shards_done,
            failed=totals.shards - totals.shards_done if exhausted else 0,
        ),
        "done": f"{finished}/{view.plan.items}",
        "failures": _samples(view),
    }


def _samples(view: StoreView) -> tuple[FailureSample, ...]:
    return tuple(
        FailureSample.model_validate(
            {"item": sample.item[:1024], "class": sample.error_class[:64], "message": sample.message[:512]}
        )
        for sample in view.totals.failures[:MAX_FAILURE_SAMPLES]
    )


def _image(seen: Observed, view: StoreView) -> str | None:
    """The image that the run is done with: today's until it is planned, then that one."""
    status, job = seen.custom.status, seen.custom.job
    if view.plan is not None and status.run == view.run and status.image:
        return status.image
    today = None if job is None else image_of(job, seen.config)
    return None if today is None or len(today.image) > 256 else today.image


def _cost(seen: Observed, view: StoreView) -> Cost:
    spent = view.spent.cost
    items = view.totals.items
    finished = items.succeeded + items.failed + items.skipped
    estimated = None
    if view.plan is not None and finished and spent:
        estimated = money(spent * max(view.plan.items, finished) / finished)
    return Cost(spent=money(spent), estimated=estimated, currency=seen.config.currency)


def money(amount: Decimal) -> str:
    """An amount for people: two decimals, four when it is small."""
    return f"{amount:.2f}" if amount >= 1 or not amount else f"{amount:.4f}"


def _speed(view: StoreView, left: int) -> dict[str, str]:
    """Rate and time left; neither while the rate is not known."""
    if not view.rate:
        return {}
    return {
        "rate": f"{view.rate:.1f}/s" if view.rate >= 0.1 else f"{view.rate * 60:.1f}/min",
        "eta": duration(left / view.rate),
    }


def duration(seconds: float) -> str:
    """A time span for people: 45s, 12m, 2h44m, 3d4h."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86_400
    if minutes < 60:
        return f"{minutes}m"
    return f"{hours}h{minutes % 60:02d}m" if hours < 48 else f"{days}d{hours % 24}h"


def _results(seen: Observed, view: StoreView, found: Situation) -> Results | None:
    job: Job | None = seen.custom.job
    if job is None or view.plan is None:
        return None
    uri = job.spec.output.uri
    layout = RunLayout(view.run)
    if view.entry.state == "Finished":
        return Results(uri=uri, report=join_uri(uri, layout.success))
    report = join_uri(uri, layout.report(view.entry.epoch)) if found.is_over else None
    return Results(uri=uri, report=report)


# -- the cluster's side -----------------------------------------------------------------------------------------------


def _from_children(seen: Observed) -> dict[str, object]:
    children = sorted(seen.own_children, key=lambda child: (list(PodStep).index(child.step), child.wave, child.name))
    working = [child for child in children if child.step is PodStep.WORK]
    return {
        "replicas": sum(child.active for child in working),
        "selector": f"{JOB_LABEL}={seen.custom.key.name},{STEP_LABEL}={PodStep.WORK.value}",
        "jobs": tuple(_shown(child) for child in children[-MAX_JOBS:]),
    }


def _shown(child: Child) -> ChildJob:
    return ChildJob.model_validate(
        {"name": child.name, "kind": _KINDS[child.step], "wave": child.wave if child.step is PodStep.WORK else None}
    )


def _times(old: JobStatus, found: Situation, view: StoreView | None, now: dt.datetime) -> dict[str, object]:
    started = old.start_time or (utc(now) if view is not None and view.is_mine else None)
    ended = (old.completion_time or utc(now)) if found.is_over else None
    return {"start_time": started, "completion_time": ended}
