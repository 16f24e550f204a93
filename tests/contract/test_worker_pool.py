"""The pool with real child processes that really die: every item is answered exactly once, the bad one fails alone."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from pagemill_core.errors import EngineUnavailableError
from pagemill_worker.items import ItemResult, PlannedItem
from pagemill_worker.testing.faulty_runner import setup_message
from pagemill_worker.work.pool import Pool, PoolSettings

PATIENCE_S = 60.0


def make_items(wishes: Sequence[str]) -> list[PlannedItem]:
    return [PlannedItem(row=row, id=f"item-{row}", uri=f"x/{wish}") for row, wish in enumerate(wishes)]


def make_settings(**changes: object) -> PoolSettings:
    given: dict[str, object] = {
        "setup": setup_message(),
        "processes": 2,
        "environment": dict(os.environ),
        "item_timeout_s": 20.0,
        "max_deaths": 1,
    }
    return PoolSettings(**{**given, **changes})  # type: ignore[arg-type]


def run_all(pool: Pool, items: Sequence[PlannedItem]) -> dict[int, ItemResult]:
    for item in items:
        pool.submit(item)
    results: dict[int, ItemResult] = {}
    deadline = time.monotonic() + PATIENCE_S
    while not pool.is_idle:
        assert time.monotonic() < deadline, f"only {sorted(results)} ended"
        for answer in pool.poll(0.1):
            assert answer.result.item.row not in results, "an item was answered twice"
            results[answer.result.item.row] = answer.result
    return results


def test_pool_good_items_are_each_answered_once() -> None:
    with Pool(make_settings()) as pool:
        results = run_all(pool, make_items(["ok"] * 50))
    assert sorted(results) == list(range(50))
    assert {result.status for result in results.values()} == {"succeeded"}
    assert results[7].payload == {"text": "ok"}
    assert results[7].version_read == "v1"


def test_pool_item_errors_fail_their_items_alone() -> None:
    with Pool(make_settings()) as pool:
        results = run_all(pool, make_items(["ok", "missing", "engine", "ok"]))
    assert [results[row].status for row in range(4)] == ["succeeded", "failed", "failed", "succeeded"]
    classes = [failure.error_class for row in (1, 2) if (failure := results[row].failure) is not None]
    assert classes == ["ImageMissing", "EngineFailed"]


@pytest.mark.parametrize("death", ["segfault", "abort", "exit", "kill", "bug"])
def test_pool_item_that_kills_its_process_fails_alone(death: str) -> None:
    wishes = ["ok"] * 6 + [death] + ["ok"] * 6
    with Pool(make_settings()) as pool:
        results = run_all(pool, make_items(wishes))
    failure = results[6].failure
    assert failure is not None
    assert failure.error_class == "ItemKilledWorker"
    assert all(results[row].status == "succeeded" for row in range(13) if row != 6)


def test_pool_two_killers_side_by_side_both_fail_and_nobody_else() -> None:
    with Pool(make_settings()) as pool:
        results = run_all(pool, make_items(["kill", "kill", "ok", "ok", "ok"]))
    assert [results[row].status for row in range(5)] == ["failed", "failed", "succeeded", "succeeded", "succeeded"]


@pytest.mark.parametrize("hang", ["hang", "hang-prepare"])
def test_pool_item_that_hangs_fails_alone_as_timeout(hang: str) -> None:
    with Pool(make_settings(item_timeout_s=1.5, max_deaths=0)) as pool:
        results = run_all(pool, make_items(["ok", hang, "ok", "ok"]))
    failure = results[1].failure
    assert failure is not None
    assert failure.error_class == "ItemTimeout"
    assert [results[row].status for row in (0, 2, 3)] == ["succeeded"] * 3


def test_pool_item_that_needs_more_than_its_share_is_read_with_what_the_others_leave() -> None:
    with Pool(make_settings(memory_bytes=400 << 20)) as pool:
        results = run_all(pool, make_items(["ok", "gulp", "ok", "ok"]))
    assert {row: result.status for row, result in results.items()} == dict.fromkeys(range(4), "succeeded")


def test_pool_item_that_needs_more_than_there_is_fails_by_name() -> None:
    with Pool(make_settings(memory_bytes=220 << 20)) as pool:
        results = run_all(pool, make_items(["ok", "gulp", "ok", "ok"]))
    assert [results[row].status for row in range(4)] == ["succeeded", "failed", "succeeded", "succeeded"]
    failure = results[1].failure
    assert failure is not None and failure.error_class == "ItemKilledWorker"
    assert "given up after 2 tries" in failure.message
    assert "MiB of memory" in failure.message


def test_pool_item_that_eats_memory_is_killed_before_the_limit_of_all() -> None:
    with Pool(make_settings(memory_bytes=400 << 20, max_deaths=0)) as pool:
        results = run_all(pool, make_items(["ok", "eat", "ok"]))
    failure = results[1].failure
    assert failure is not None
    assert failure.error_class == "ItemKilledWorker"
    assert "MiB of memory" in failure.message
    assert [results[row].status for row in (0, 2)] == ["succeeded"] * 2


def test_pool_batch_with_a_killer_is_taken_apart(tmp_path: Path) -> None:
    log = tmp_path / "begun"
    settings = make_settings(setup=setup_message(batch_size=4, log=str(log)), processes=1, depth=8)
    with Pool(settings) as pool:
        results = run_all(pool, make_items(["ok", "ok", "kill", "ok", "ok", "ok"]))
    assert [row for row, result in results.items() if result.status == "failed"] == [2]
    assert log.read_text().split().count("2") == 2  # once in its batch, once alone


def test_pool_engine_that_cannot_start_is_one_clear_error() -> None:
    with (
        pytest.raises(EngineUnavailableError, match="before they were ready"),
        Pool(make_settings(setup=setup_message(refuse=True))) as pool,
    ):
        run_all(pool, make_items(["ok"]))


def test_pool_suspect_of_an_earlier_attempt_is_given_up_without_another_death(tmp_path: Path) -> None:
    log = tmp_path / "begun"
    with Pool(make_settings(setup=setup_message(log=str(log)))) as pool:
        (item,) = make_items(["kill"])
        pool.submit(item, deaths=2)
        results = run_all(pool, [])
    failure = results[0].failure
    assert failure is not None
    assert failure.error_class == "ItemKilledWorker"
    assert not log.exists()


def test_pool_children_are_recycled_and_nothing_is_lost() -> None:
    with Pool(make_settings(recycle_after_items=5)) as pool:
        before = set(pool.pids())
        results = run_all(pool, make_items(["ok"] * 40))
        after = set(pool.pids())
    assert len(results) == 40
    assert before.isdisjoint(after)


def test_pool_drain_returns_what_nobody_began_and_answers_the_rest() -> None:
    items = make_items(["slow"] * 20)
    with Pool(make_settings()) as pool:
        for item in items:
            pool.submit(item)
        answered = {answer.result.item.row for _ in range(4) for answer in pool.poll(0.3)}
        returned = {item.row for item in pool.drain()}
        while not pool.is_idle:
            answered |= {answer.result.item.row for answer in pool.poll(0.1)}
    assert answered | returned == set(range(20))
    assert not answered & returned


def test_pool_close_leaves_no_process() -> None:
    with Pool(make_settings()) as pool:
        pool.submit(make_items(["hang"])[0])
        pool.poll(1.0)
        pids = pool.pids()
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


def test_pool_several_threads_answer_from_one_process() -> None:
    settings = make_settings(setup=setup_message(threads=4), processes=1, depth=8)
    started = time.monotonic()
    with Pool(settings) as pool:
        results = run_all(pool, make_items(["slow"] * 8))
    assert len(results) == 8
    assert time.monotonic() - started < PATIENCE_S
