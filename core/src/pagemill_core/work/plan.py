"""The pointer to a run's plan: created once, so that of any number of planners one decides what the run is.

Layer: `core.work`. The tables it names lie under their planner's own attempt and count only through it.
"""

from __future__ import annotations

from pagemill_core.work.conditional import Writer, create_once
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.records import PlanPointer


def create_plan(writer: Writer, layout: RunLayout, pointer: PlanPointer) -> PlanPointer:
    """Make `pointer` the run's plan unless it has one. Returns: the plan that counts."""
    key = layout.plan_pointer
    created = create_once(
        writer, key, pointer.to_bytes(), lambda data: PlanPointer.from_bytes(data, key).attempt == pointer.attempt
    )
    return PlanPointer.from_bytes(created.data, key)


def read_plan(writer: Writer, layout: RunLayout) -> PlanPointer | None:
    """The run's plan, None while there is none."""
    blob = writer.get(layout.plan_pointer)
    return None if blob is None else PlanPointer.from_bytes(blob.data, layout.plan_pointer)
