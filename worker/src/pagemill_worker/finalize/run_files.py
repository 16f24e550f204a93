"""What belongs to a whole run whatever its kind: its place in the item index and in the dataset, what it cost.

Layer: `worker.finalize`, above `committed`. Written once every shard has a marker; a late finalizer writes the same
again.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

from pagemill_core.ids import ulid
from pagemill_core.work import layout as keys
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.plan import read_plan
from pagemill_core.work.records import PlanPointer, Totals
from pagemill_core.work.rollup import segment_markers
from pagemill_core.work.usage import Spent
from pagemill_worker.bench.costs import RunUse, cost_of
from pagemill_worker.environment import JobEnvironment
from pagemill_worker.finalize.committed import CommittedRun
from pagemill_worker.finalize.item_index import Fold, fold_index
from pagemill_worker.views.run import Cost

REPORT_KEY = "report.html"


def summary_key(seq: int) -> str:
    """The run's summary, one object a run."""
    return f"summary/run={seq:08d}.json"


def fold_runs(kind: CommittedRun) -> bool:
    """Fold a run into the item index, after the given-up runs whose items it left out; those get their place in the
    dataset here too, for nobody else will ever give it to them.

    Returns: whether the index now shows this run, which it does not once a newer one folded.
    """
    for run in reversed(kind.pointer.subtracted):
        layout = RunLayout(run)
        earlier = read_plan(kind.writer, layout)
        if earlier is None or earlier.fingerprint != kind.pointer.fingerprint:
            continue
        given_up = replace(kind, layout=layout, pointer=earlier)
        for segment in range(_segments(earlier.shards)):
            markers = list(segment_markers(kind.writer, layout, segment))
            if markers:
                given_up.write_dataset(segment, markers)
        _fold(given_up)
    return _fold(kind)


def cost_of_run(environment: JobEnvironment, spent: Spent, totals: Totals, processes: int) -> Cost | None:
    """What the run cost, and in which stages; None where nothing has a price. `processes` ran in each worker."""
    price = Decimal(environment.price_per_hour)
    if not spent.cost and not price:
        return None
    budget = environment.job.spec.budget
    currency = budget.effective_currency if budget else "USD"
    use = RunUse(
        machine_s=Decimal(f"{spent.seconds:.3f}"),
        price_per_hour=price,
        processes=max(1, processes),
        busy_s={stage: Decimal(f"{each:.3f}") for stage, each in totals.stage_seconds.items()},
        items=totals.items.succeeded + totals.items.failed,
    )
    return Cost(
        spent=spent.cost,
        currency=currency,
        formula=f"{spent.seconds:.0f} s × {price}/h ÷ 3600, plus what APIs charged",
        items=use.items,
        by_stage={share.stage: share.cost for share in cost_of(use).stages if share.cost},
    )


def summary_head(
    environment: JobEnvironment, pointer: PlanPointer, totals: Totals, spent: Spent, processes: int
) -> dict[str, Any]:
    """What a run's summary begins with, whatever the job does with its items; `models` is for the caller to fill."""
    job, items = environment.job, totals.items
    cost = cost_of_run(environment, spent, totals, processes)
    return {
        "run": pointer.run,
        "job": job.metadata.name or "",
        "source": pointer.source_uri,
        "output": environment.absolute(job.spec.output.uri),
        "models": {},
        "items": {
            "total": items.planned,
            "succeeded": items.succeeded,
            "failed": items.failed,
            "skipped": items.skipped,
            "already_done": pointer.already_done,
        },
        "failed_by_class": dict(sorted(totals.failure_classes.items())),
        "planned_at": pointer.planned_at,
        "workers": processes,
        "seconds": round(spent.seconds or totals.seconds, 3),
        "cost": cost.as_json() if cost else None,
    }


def _fold(kind: CommittedRun) -> bool:
    now = kind.writer.clock.now()
    return fold_index(Fold(kind.writer, kind.layout, kind.pointer, kind.outcomes), ulid(int(now.timestamp() * 1000)))


def _segments(shards: int) -> int:
    return -(-shards // keys.SEGMENT_SHARDS)
