"""Builds the Grafana dashboard of the workers, charts/pagemill/files/dashboard-workers.json: what each stage does.

Why it exists: the questions that people ask of a pipeline (which stage is slow, what waits, what is idle) as panels,
from the series that docs/reference/metrics.md lists. Layer: project tooling; pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from charttools.dashboard import WINDOW, Graph, graph_panel

PATH = "charts/pagemill/files/dashboard-workers.json"
SECONDS = f"sum by (stage) (rate(pagemill_item_stage_seconds_sum[{WINDOW}]))"
COUNTS = f"sum by (stage) (rate(pagemill_item_stage_seconds_count[{WINDOW}]))"
THREADS = "sum by (stage) (pagemill_stage_threads)"
ROWS: Sequence[tuple[str, Sequence[Graph]]] = (
    (
        "Items",
        (
            Graph(
                title="Items a second",
                tells="Ended items of all workers, by outcome.",
                queries=((f"sum by (outcome) (rate(pagemill_items_total[{WINDOW}]))", "{{outcome}}"),),
                unit="ops",
                stacked=True,
            ),
            Graph(
                title="Shards and deaths",
                tells="Shards that ended, and engine processes that died at work, by cause.",
                queries=(
                    (f"sum by (outcome) (rate(pagemill_shards_total[{WINDOW}]))", "shards {{outcome}}"),
                    (f"sum by (cause) (rate(pagemill_engine_deaths_total[{WINDOW}]))", "deaths {{cause}}"),
                ),
                unit="ops",
            ),
        ),
    ),
    (
        "Stages",
        (
            Graph(
                title="Busy share of each stage",
                tells="1: all threads that could work on the stage do. The rest of it is idle.",
                queries=((f"{SECONDS} / {THREADS}", "{{stage}}"),),
                unit="percentunit",
            ),
            Graph(
                title="Seconds an item",
                tells="What one item takes in each stage.",
                queries=((f"{SECONDS} / {COUNTS}", "{{stage}}"),),
                unit="s",
            ),
            Graph(
                title="Items a second that a stage could do",
                tells="Its threads over its seconds an item: the lowest line is the bottleneck.",
                queries=((f"{THREADS} / ({SECONDS} / {COUNTS})", "{{stage}}"),),
                unit="ops",
            ),
            Graph(
                title="Items that wait",
                tells="fetch: handed to a process; model: prepared and waiting for it; write: ended and not committed.",
                queries=(("sum by (stage) (pagemill_stage_queue_items)", "{{stage}}"),),
            ),
            Graph(
                title="Transfer against compute",
                tells="Seconds a second that all threads spend on fetching, and on everything else.",
                queries=(
                    (f'sum(rate(pagemill_item_stage_seconds_sum{{stage="fetch"}}[{WINDOW}]))', "transfer"),
                    (f'sum(rate(pagemill_item_stage_seconds_sum{{stage!="fetch"}}[{WINDOW}]))', "compute"),
                ),
                unit="s",
                stacked=True,
            ),
            Graph(
                title="Bytes read",
                tells="Of items' inputs.",
                queries=((f"sum(rate(pagemill_read_bytes_total[{WINDOW}]))", "read"),),
                unit="Bps",
            ),
        ),
    ),
    (
        "Processes",
        (
            Graph(
                title="Cores in use",
                tells="Processor time of engine processes a second, beside the processes there are.",
                queries=(
                    (f"sum(rate(pagemill_engine_cpu_seconds_total[{WINDOW}]))", "cores"),
                    ("sum(pagemill_engine_processes)", "processes"),
                ),
            ),
            Graph(
                title="Memory",
                tells="Resident memory of engine processes, and what they hold of GPUs.",
                queries=(
                    ("sum(pagemill_engine_resident_bytes)", "resident"),
                    ("sum(pagemill_engine_gpu_memory_bytes)", "GPU"),
                ),
                unit="bytes",
            ),
            Graph(
                title="Seconds of a commit",
                tells="From a shard's last item to its marker and views being in the store.",
                queries=tuple(
                    (
                        f"histogram_quantile({quantile}, sum by (le) "
                        f"(rate(pagemill_shard_commit_seconds_bucket[{WINDOW}])))",
                        f"p{quantile[2:]}",
                    )
                    for quantile in ("0.50", "0.99")
                ),
                unit="s",
            ),
            Graph(
                title="Paid to APIs",
                tells="In the unit they charge, an hour.",
                queries=((f"3600 * sum(rate(pagemill_api_cost_total[{WINDOW}]))", "an hour"),),
            ),
        ),
    ),
)


def build() -> models.Dashboard:
    """The dashboard."""
    board = (
        dashboard.Dashboard("Pagemill workers")
        .uid("pagemill-workers")
        .description("What each stage of the workers does: speed, busy and idle, queues, transfer, processes.")
        .tags(["pagemill"])
        .refresh("30s")
        .time("now-1h", "now")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    for title, graphs in ROWS:
        board = board.with_row(dashboard.Row(title))
        for graph in graphs:
            board = board.with_panel(graph_panel(graph))
    return board.build()


def render_all() -> dict[str, str]:
    """The dashboard's file."""
    return {PATH: JSONEncoder(sort_keys=True, indent=2).encode(build()) + "\n"}
