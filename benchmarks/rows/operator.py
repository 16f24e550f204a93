"""What the operator costs and how fast it is with a thousand jobs: `make bench-operator`."""

from __future__ import annotations

from benchmarks.harness.place import Place
from benchmarks.harness.row import Found, Row


def measure(place: Place) -> Found:
    """All parts; see `benchmarks.scale`."""
    from benchmarks.scale.measure import measure as measure_scale  # needs testcluster, which lies in tools/

    return measure_scale(place, ROW.name)


ROW = Row(
    name="operator",
    question="What does the operator cost with a thousand jobs?",
    how="A real API server, controller manager and scheduler with pretended nodes; the operator's own process with a "
    "service account's rights, on a real S3 server. A player does in place of each pod what a worker would do to the "
    "output, and ends the pod when its time is up. The storm runs on a fresh cluster.",
    measure=measure,
    is_on_demand=True,
)
