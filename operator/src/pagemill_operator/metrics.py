"""What the operator counts about itself, in Prometheus' text format.

Layer: the operator. Own registry, own port, no labels per object. A summary of counters suffices here; the one
histogram has fixed bounds.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
Labels = tuple[tuple[str, str], ...]


class Histogram:
    """Seconds in fixed buckets."""

    def __init__(self) -> None:
        self.buckets = [0] * (len(_BOUNDS_S) + 1)
        self.sum_s = 0.0
        self.count = 0

    def observe(self, seconds: float) -> None:
        place = next((number for number, bound in enumerate(_BOUNDS_S) if seconds <= bound), len(_BOUNDS_S))
        self.buckets[place] += 1
        self.sum_s += seconds
        self.count += 1

    def lines(self, name: str) -> Iterator[str]:
        total = 0
        for bound, count in zip((*map(str, _BOUNDS_S), "+Inf"), self.buckets, strict=True):
            total += count
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self.sum_s:.6f}"
        yield f"{name}_count {self.count}"


class Metrics:
    """Counters and histograms; gauges are asked for when scraped. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[str, Counter[Labels]] = {}
        self._histograms: dict[str, Histogram] = {}
        self._gauges: dict[str, Callable[[], Mapping[Labels, float]]] = {}

    def count(self, name: str, labels: Mapping[str, str] | None = None) -> None:
        """Add one to a counter; `name` ends in _total."""
        with self._lock:
            self._counters.setdefault(name, Counter())[tuple(sorted((labels or {}).items()))] += 1

    def observe(self, name: str, seconds: float) -> None:
        """Add a duration to a histogram; `name` ends in _seconds."""
        with self._lock:
            self._histograms.setdefault(name, Histogram()).observe(seconds)

    def gauge(self, name: str, ask: Callable[[], Mapping[Labels, float]]) -> None:
        """Register a value that is asked for at each scrape."""
        self._gauges[name] = ask

    # -- the operator's own words -------------------------------------------------------------------------------------

    def api_call(self, verb: str, code: int) -> None:
        self.count("pagemill_operator_api_calls_total", {"verb": verb, "code": str(code)})

    def store_call(self, operation: str, outcome: str) -> None:
        self.count("pagemill_operator_store_calls_total", {"operation": operation, "outcome": outcome})

    def store_task(self, action: str, outcome: str) -> None:
        self.count("pagemill_operator_store_tasks_total", {"action": action, "outcome": outcome})

    def pass_over(self, outcome: str, seconds: float) -> None:
        self.count("pagemill_operator_reconciles_total", {"outcome": outcome})
        self.observe("pagemill_operator_reconcile_seconds", seconds)

    def render(self) -> str:
        """All of it as Prometheus' exposition text."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        with self._lock:
            for name, counter in sorted(self._counters.items()):
                yield from _head(name, "counter")
                yield from (f"{name}{_labels(labels)} {value}" for labels, value in sorted(counter.items()))
            for name, histogram in sorted(self._histograms.items()):
                yield from _head(name, "histogram")
                yield from histogram.lines(name)
        for name, ask in sorted(self._gauges.items()):
            yield from _head(name, "gauge")
            yield from (f"{name}{_labels(labels)} {value:g}" for labels, value in sorted(ask().items()))


HELP: Mapping[str, str] = {
    "pagemill_operator_api_calls_total": "Calls to the API server by verb and code; code 0: no answer.",
    "pagemill_operator_store_tasks_total": "Dealings with outputs by what was done and how it ended.",
    "pagemill_operator_store_calls_total": "Calls to object stores by operation and outcome.",
    "pagemill_operator_reconciles_total": "Passes over a job by outcome.",
    "pagemill_operator_reconcile_seconds": "Duration of a pass over a job.",
    "pagemill_operator_queue_wait_seconds": "Time that a job waited in the queue before its pass.",
    "pagemill_operator_queue_depth": "Jobs that wait for their pass.",
    "pagemill_operator_queue_oldest_seconds": "How long the job that waits longest has waited.",
    "pagemill_operator_jobs": "Live jobs by kind and phase.",
    "pagemill_operator_children": "Child Jobs known.",
    "pagemill_operator_store_breakers_open": "Endpoints that do not answer now.",
    "pagemill_operator_status_staleness_seconds": "Age of the oldest picture of a run that is at work.",
    "pagemill_operator_resync_age_seconds": "Time since the last complete list.",
    "pagemill_operator_events_dropped_total": "Events that the API server did not take.",
}


def _head(name: str, kind: str) -> Sequence[str]:
    return (f"# HELP {name} {HELP[name]}", f"# TYPE {name} {kind}")


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels) + "}"
