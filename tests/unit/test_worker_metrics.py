"""The worker's metrics: what is counted, that labels are bounded, and that the reference page names every series."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path

import pytest
from charttools import worker_dashboard
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric

from pagemill_worker.items import ItemResult, PlannedItem
from pagemill_worker.metrics import STAGES, WorkerMetrics
from pagemill_worker.work.usage import PoolUsage

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
ITEM = PlannedItem(row=0, id="a", uri="x/a")


def families(metrics: WorkerMetrics) -> list[Metric]:
    return [family for family in metrics.registry.collect() if family.name.startswith("pagemill_")]


def full_name(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def value(metrics: WorkerMetrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def metrics() -> WorkerMetrics:
    return WorkerMetrics()


def used(metrics: WorkerMetrics) -> WorkerMetrics:
    """Every series with its labels, as after some work."""
    for status in ("succeeded", "failed", "skipped"):
        seconds = {"fetch": 0.1, "decode": 0.1, "recognise": 0.1, "made-up": 0.1}
        metrics.count_item(ItemResult(ITEM, status, seconds=seconds), 10, 0.5)  # type: ignore[arg-type]
    metrics.count_shard(0.2, won=True)
    metrics.count_shard(0.2, won=False)
    for cause in ("timeout", "memory", "crash"):
        metrics.count_death(cause)
    metrics.measure_pool(PoolUsage(waiting=2, prepared=1, prepare_threads=3, model_threads=1), 5)
    return metrics


def test_metrics_page_names_every_series_with_type_labels_and_text(metrics: WorkerMetrics) -> None:
    rows = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in PAGE.splitlines()
        if line.startswith("| `pagemill_")
    ]
    documented = {row[0]: (row[1], row[2], row[3]) for row in rows if len(row) == 4}
    existing = {}
    for family in families(used(metrics)):
        labels = sorted({name for sample in family.samples for name in sample.labels} - {"le"})
        existing[full_name(family)] = (family.type, ", ".join(labels), family.documentation)
    assert documented == existing


def test_metrics_page_asks_only_for_series_that_exist(metrics: WorkerMetrics) -> None:
    names = {full_name(family) for family in families(metrics)}
    asked = {re.sub(r"_(sum|bucket|count)$", "", name) for name in re.findall(r"pagemill_\w+", PAGE)}
    assert asked <= names


def test_dashboard_of_workers_draws_series_that_exist_with_labels_they_have(metrics: WorkerMetrics) -> None:
    board = json.loads(next(iter(worker_dashboard.render_all().values())))
    text = " ".join(target["expr"] for panel in board["panels"] for target in panel.get("targets", []))
    asked = {re.sub(r"_(sum|bucket|count)$", "", name) for name in re.findall(r"pagemill_\w+", text)}
    known = {full_name(family): family for family in families(used(metrics))}
    assert asked <= known.keys()
    assert {"pagemill_stage_threads", "pagemill_stage_queue_items", "pagemill_engine_cpu_seconds_total"} <= asked
    labels = {name for family in known.values() for sample in family.samples for name in sample.labels}
    assert {name for by in re.findall(r"by \(([^)]*)\)", text) for name in by.split(", ")} <= labels


def test_metrics_names_are_in_base_units(metrics: WorkerMetrics) -> None:
    for family in families(metrics):
        assert re.fullmatch(r"pagemill_[a-z_]+", family.name)
        if family.type == "histogram":
            assert family.name.endswith("_seconds")


def test_metrics_stage_that_a_runner_invents_counts_as_infer(metrics: WorkerMetrics) -> None:
    for number in range(50):
        metrics.count_item(ItemResult(ITEM, "succeeded", seconds={f"stage-{number}": 0.1}), 0, 0.0)
    stages = {
        sample.labels["stage"] for family in families(metrics) for sample in family.samples if "stage" in sample.labels
    }
    assert stages <= {*STAGES, "model", "write"}
    assert value(metrics, "pagemill_item_stage_seconds_count", stage="infer") == 50


def test_metrics_stage_of_the_job_has_its_own_label(metrics: WorkerMetrics) -> None:
    metrics.name_stages(["word-count"])
    metrics.count_item(ItemResult(ITEM, "succeeded", seconds={"word-count": 0.5}), 0, 0.0)
    assert value(metrics, "pagemill_item_stage_seconds_sum", stage="word-count") == 0.5


def test_metrics_say_what_waits_and_how_many_could_work(metrics: WorkerMetrics) -> None:
    used(metrics)
    queue = {stage: value(metrics, "pagemill_stage_queue_items", stage=stage) for stage in ("fetch", "model", "write")}
    assert queue == {"fetch": 2, "model": 1, "write": 5}
    assert value(metrics, "pagemill_stage_threads", stage="decode") == 3
    assert value(metrics, "pagemill_stage_threads", stage="recognise") == 1


def test_metrics_processor_time_never_falls_when_processes_come_and_go(metrics: WorkerMetrics) -> None:
    for cpu_by_pid in ({1: 5.0, 2: 1.0}, {2: 2.0}, {2: 2.5, 1: 0.5}, {}):
        metrics.measure_pool(PoolUsage(cpu_by_pid=cpu_by_pid), 0)
    assert value(metrics, "pagemill_engine_cpu_seconds_total") == 5 + 1 + 1 + 0.5 + 0.5


def test_metrics_items_and_bytes_and_cost_add_up(metrics: WorkerMetrics) -> None:
    used(metrics)
    assert value(metrics, "pagemill_items_total", outcome="failed") == 1
    assert value(metrics, "pagemill_read_bytes_total") == 30
    assert value(metrics, "pagemill_api_cost_total") == 1.5
    assert value(metrics, "pagemill_shards_total", outcome="committed") == 1
    assert value(metrics, "pagemill_shards_total", outcome="lost") == 1
    assert value(metrics, "pagemill_shard_commit_seconds_count") == 1, "a lost shard committed nothing"


def test_metrics_are_served_as_text(metrics: WorkerMetrics) -> None:
    used(metrics)
    port = metrics.serve(0)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
        assert reply.read() == generate_latest(metrics.registry)
    metrics.close()
