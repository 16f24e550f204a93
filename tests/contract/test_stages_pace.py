"""Stages side by side in a real process: preparing goes on beside the model, with as many threads as it wants."""

from __future__ import annotations

import os
import time

import pytest

from pagemill_worker.items import PlannedItem
from pagemill_worker.metrics import WorkerMetrics
from pagemill_worker.testing.paced_runner import setup_message
from pagemill_worker.work.pool import Answer, Pool, PoolSettings

PATIENCE_S = 60.0


def run(items: int, metrics: WorkerMetrics, **pace: float | int) -> tuple[float, list[Answer], int]:
    """Seconds from the first answer to the last, the answers, and the most threads that prepared."""
    settings = PoolSettings(setup_message(**pace), 1, dict(os.environ), depth=8)  # type: ignore[arg-type]
    answers: list[Answer] = []
    most, started = 0, 0.0
    deadline = time.monotonic() + PATIENCE_S
    with Pool(settings) as pool:
        for row in range(items):
            pool.submit(PlannedItem(row, str(row), "x"))
        while len(answers) < items:
            assert time.monotonic() < deadline
            found = pool.poll(0.05)
            started = started or (time.monotonic() if found else 0.0)
            for answer in found:
                metrics.count_item(answer.result, answer.size_bytes, 0.0)
            answers += found
            usage = pool.usage()
            metrics.measure_pool(usage, 0)
            most = max(most, usage.prepare_threads)
    return time.monotonic() - started, answers, most


def busy(metrics: WorkerMetrics, stage: str) -> float:
    return metrics.registry.get_sample_value("pagemill_item_stage_seconds_sum", {"stage": stage}) or 0.0


def test_fast_model_gets_threads_that_prepare_until_it_is_busy() -> None:
    metrics = WorkerMetrics()
    took, answers, most = run(120, metrics, prepare_s=0.08, model_s=0.02, most_threads=8)

    assert {answer.result.item.row for answer in answers} == set(range(120))
    assert 4 <= most <= 6, "four keep a model busy that is four times as fast"
    assert took < 0.6 * busy(metrics, "decode"), "one thread would take all of it"


def test_slow_model_leaves_one_thread_to_prepare_and_never_waits() -> None:
    metrics = WorkerMetrics()
    took, _, most = run(25, metrics, prepare_s=0.02, model_s=0.06, most_threads=8)

    assert most == 1
    assert busy(metrics, "encode") == pytest.approx(25 * 0.06, rel=0.01)
    assert took < busy(metrics, "encode") + 0.5 * busy(metrics, "decode") + 0.5, "decoding ran beside the model"
    assert (metrics.registry.get_sample_value("pagemill_engine_cpu_seconds_total") or 0) > 0
    assert (metrics.registry.get_sample_value("pagemill_engine_resident_bytes") or 0) > 1 << 20
