"""Builds the Grafana dashboard of the operator, charts/pagemill/files/dashboard.json.

Why it exists: a dashboard written by hand drifts from the metrics; this one is typed, generated, and each of its
expressions is run against a real Prometheus by a test. Layer: project tooling; pure.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models

PATH = "charts/pagemill/files/dashboard.json"
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
# Of the operators that are looked at; where a Prometheus gives no namespaces, "all" matches that too.
NAMESPACE = 'namespace=~"$namespace"'
WINDOW = "$__rate_interval"
AT_WORK = 'phase=~"Planning|Running|Finalizing"'
WAITING = 'phase=~"Pending|Waiting|Queued"'
FAILED = 'phase="Failed"'
BAD_CODES = 'code=~"0|[45].."'


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A panel of lines: a title, what it tells, its unit, and queries with their legends."""

    title: str
    tells: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    stacked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A panel of one number, which turns orange and red from these values on (0: never)."""

    title: str
    tells: str
    query: str
    unit: str = "short"
    warn: float = 0
    alarm: float = 0


def _metric(name: str, *labels: str) -> str:
    inside = ",".join([NAMESPACE, *labels])
    return f"pagemill_operator_{name}{{{inside}}}"


def _rate(name: str, by: str, *labels: str) -> str:
    return f"sum by ({by}) (rate({_metric(name, *labels)}[{WINDOW}]))"


def _quantile(quantile: str, name: str) -> str:
    return f"histogram_quantile({quantile}, {_rate(f'{name}_bucket', 'le')})"


FIGURES = (
    Figure(
        title="Jobs at work",
        tells="Jobs that plan, run or finalize now.",
        query=f"sum({_metric('jobs', AT_WORK)}) or vector(0)",
    ),
    Figure(
        title="Jobs that wait",
        tells="Not accepted yet, behind another job, or in a queue.",
        query=f"sum({_metric('jobs', WAITING)}) or vector(0)",
    ),
    Figure(
        title="Jobs that failed",
        tells="Jobs in phase Failed that still exist.",
        query=f"sum({_metric('jobs', FAILED)}) or vector(0)",
        warn=1,
    ),
    Figure(
        title="Oldest status",
        tells="Age of the oldest picture of a run that is at work.",
        query=f"max({_metric('status_staleness_seconds')})",
        unit="s",
        warn=15,
        alarm=60,
    ),
    Figure(
        title="Last complete list",
        tells="Seconds since the operator last listed everything. It restarts itself when this stays high.",
        query=f"max({_metric('resync_age_seconds')})",
        unit="s",
        warn=60,
        alarm=120,
    ),
    Figure(
        title="Stores that do not answer",
        tells="Endpoints whose circuit breaker is open.",
        query=f"sum({_metric('store_breakers_open')})",
        alarm=1,
    ),
)
ROWS: Sequence[tuple[str, Sequence[Graph]]] = (
    (
        "Jobs",
        (
            Graph(
                title="Jobs by phase",
                tells="Every OcrJob and EmbeddingJob that exists.",
                queries=((f"sum by (phase) ({_metric('jobs')})", "{{phase}}"),),
                stacked=True,
            ),
            Graph(
                title="Child Jobs",
                tells="Plan, work and finalize Jobs that exist; finished ones stay until their time to live is over.",
                queries=((f"sum({_metric('children')})", "children"),),
            ),
        ),
    ),
    (
        "The loop",
        (
            Graph(
                title="Passes by outcome",
                tells="changed and unchanged are health; error and conflict are tried again; bug belongs in a report.",
                queries=((_rate("reconciles_total", "outcome"), "{{outcome}}"),),
                unit="ops",
                stacked=True,
            ),
            Graph(
                title="Duration of a pass",
                tells="From the first look to the written status.",
                queries=tuple((_quantile(q, "reconcile_seconds"), f"p{q[2:]}") for q in ("0.50", "0.99")),
                unit="s",
            ),
            Graph(
                title="Wait in the queue",
                tells="How long a job waits for its pass. Changes by people go first.",
                queries=tuple((_quantile(q, "queue_wait_seconds"), f"p{q[2:]}") for q in ("0.50", "0.99")),
                unit="s",
            ),
            Graph(
                title="Queue",
                tells="Jobs that wait for their pass.",
                queries=((f"sum({_metric('queue_depth')})", "depth"),),
            ),
            Graph(
                title="Oldest in the queue",
                tells="How long the job that waits longest has waited.",
                queries=((f"max({_metric('queue_oldest_seconds')})", "oldest"),),
                unit="s",
            ),
        ),
    ),
    (
        "API server and stores",
        (
            Graph(
                title="API calls by verb",
                tells="PATCH, POST and DELETE are writes: at most 0.2 a second for each job at work.",
                queries=((_rate("api_calls_total", "verb"), "{{verb}}"),),
                unit="reqps",
            ),
            Graph(
                title="API calls that failed, by code",
                tells="0: no answer. 409 is ordinary; 403 means that a right is missing.",
                queries=((f"{_rate('api_calls_total', 'code', BAD_CODES)} or vector(0)", "{{code}}"),),
                unit="reqps",
            ),
            Graph(
                title="Store calls",
                tells="The operator's own requests. absent, and lost (another won a conditional write), are ordinary.",
                queries=((_rate("store_calls_total", "operation, outcome"), "{{operation}} {{outcome}}"),),
                unit="reqps",
            ),
            Graph(
                title="Dealings with outputs",
                tells="What was done to the records below .pagemill/, and how it ended.",
                queries=((_rate("store_tasks_total", "action, outcome"), "{{action}} {{outcome}}"),),
                unit="ops",
            ),
            Graph(
                title="Events that were dropped",
                tells="Events that the API server did not take; the status says the same.",
                queries=((f"{_rate('events_dropped_total', 'namespace')} or vector(0)", "{{namespace}}"),),
                unit="ops",
            ),
        ),
    ),
)


def build() -> models.Dashboard:
    """The dashboard."""
    board = (
        dashboard.Dashboard("Pagemill")
        .uid("pagemill")
        .description("The operator: jobs, its loop, the API server and stores.")
        .tags(["pagemill"])
        .refresh("30s")
        .time("now-1h", "now")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_namespaces())
    )
    for figure in FIGURES:
        board = board.with_panel(_figure(figure))
    for title, graphs in ROWS:
        board = board.with_row(dashboard.Row(title))
        for graph in graphs:
            board = board.with_panel(graph_panel(graph))
    return board.build()


def _namespaces() -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable("namespace")
        .label("Operator's namespace")
        .datasource(SOURCE)
        .query("label_values(pagemill_operator_resync_age_seconds, namespace)")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def _figure(figure: Figure) -> stat.Panel:
    steps = [models.Threshold(color="green", value=None)]
    steps += [
        models.Threshold(color=color, value=value)
        for color, value in (("orange", figure.warn), ("red", figure.alarm))
        if value
    ]
    return (
        stat.Panel()
        .title(figure.title)
        .description(figure.tells)
        .unit(figure.unit)
        .datasource(SOURCE)
        .height(4)
        .span(4)
        .graph_mode(common.BigValueGraphMode.AREA)
        .thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
        .with_target(prometheus.Dataquery().ref_id("A").expr(figure.query))
    )


def graph_panel(graph: Graph) -> timeseries.Panel:
    """A graph as Grafana has it."""
    panel = (
        timeseries.Panel()
        .title(graph.title)
        .description(graph.tells)
        .unit(graph.unit)
        .datasource(SOURCE)
        .height(8)
        .span(12)
        .min(0)
        .fill_opacity(30 if graph.stacked else 10)
    )
    if graph.stacked:
        panel = panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
    for number, (query, legend) in enumerate(graph.queries):
        panel = panel.with_target(
            prometheus.Dataquery().ref_id(chr(ord("A") + number)).expr(query).legend_format(legend)
        )
    return panel


def render_all() -> dict[str, str]:
    """The dashboard's file."""
    text = JSONEncoder(sort_keys=True, indent=2).encode(build())
    return {PATH: text + "\n"}


def round_trip(given: Any) -> Any:
    """A dashboard's JSON as the models read and write it: what they do not know is gone."""
    return json.loads(JSONEncoder().encode(models.Dashboard.from_json(given)))
