"""Limits that end a run, and how it goes on: budget, deadline, failures, a broken engine, shards that never commit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from pagemill_cli.testing.forked_runs import Ended, ForkedRuns, folder_in_memory
from pagemill_cli.testing.job_folder import JobFolder
from pagemill_cli.testing.promises import broken_promises, marker_tokens, newest_entry, take_picture
from pagemill_cli.testing.strikes import Strike
from pagemill_core.storage.folder import FolderStore
from pagemill_worker.testing.instant import BREAK

PAGES: dict[str, str | None] = {f"p{number}": f"text of {number}" for number in range(12)}
SHARDING = {"sharding": {"itemsPerShard": 2}}
COMPLETE, TOO_MANY, OVER_BUDGET, TOO_LATE, EXHAUSTED, BROKEN = 0, 3, 4, 5, 75, 69


class Stage:
    def __init__(self, folder: JobFolder) -> None:
        self.folder = folder
        self.store = FolderStore(folder.output, fsync=False)

    def run(self, *strikes: Strike, environment: dict[str, str] | None = None, **changes: Any) -> Ended:
        forked = ForkedRuns.shared()
        plain = forked.request("run", str(self.folder.file), "--quiet", "--output", "json", "-p", "1")
        changed = replace(plain, log=str(self.folder.log), strikes=strikes, environment=environment or {}, **changes)
        return forked.run(changed)

    def reports(self) -> list[str]:
        found = sorted(info.key for info in self.store.list(".pagemill/0") if "/reports/" in info.key)
        return [json.loads(self.store.get(key).data)["outcome"] for key in found]


@pytest.fixture
def stage() -> Iterator[Stage]:
    with folder_in_memory() as root:
        yield Stage(JobFolder(root, PAGES, SHARDING))


def spec(**parts: Any) -> dict[str, Any]:
    return {**SHARDING, "retries": {"maxFailedItems": "100%"}, **parts}


def test_budget_spent_stops_with_4_and_a_higher_one_goes_on(stage: Stage) -> None:
    dear = {"PAGEMILL_PRICE_PER_HOUR": "3600000"}  # a millisecond costs a unit
    stage.folder.set_spec(spec(budget={"maxCost": "0.01"}))
    stopped = stage.run(environment=dear)
    assert stopped.status == OVER_BUDGET, stopped.stderr
    assert json.loads(stopped.stdout)["outcome"] == "BudgetExceeded"
    assert newest_entry(stage.store).state == "Open"
    assert newest_entry(stage.store).owner == ""
    assert list(stage.store.list("dataset/")) == [], "the dataset was written before every shard was done"
    done = marker_tokens(stage.store)

    stage.folder.set_spec(spec(budget={"maxCost": "1000000000"}))
    assert stage.run(environment=dear).status == COMPLETE
    assert newest_entry(stage.store).seq == 1, "raising a limit is not other work"
    assert done.items() <= marker_tokens(stage.store).items()
    assert broken_promises(stage.store, list(PAGES)) == []
    assert stage.reports()[0] == "BudgetExceeded"


def test_budget_counts_what_earlier_commands_spent(stage: Stage) -> None:
    """A killed command's usage is lost since its last write, a stopped one's is not."""
    dear = {"PAGEMILL_PRICE_PER_HOUR": "3600000"}
    stage.folder.set_spec(spec(budget={"maxCost": "0.01"}))
    assert stage.run(environment=dear).status == OVER_BUDGET
    assert stage.run(environment={"PAGEMILL_PRICE_PER_HOUR": "0"}).status == OVER_BUDGET


def test_deadline_stops_with_5_and_a_later_one_goes_on(stage: Stage) -> None:
    stage.folder.set_spec(spec(deadlineSeconds=1))
    stopped = stage.run(Strike("put .*/attempts/00000003/", signal=0, number=0, is_pattern=True), deadline_s=3.0)
    assert stopped.status == TOO_LATE, stopped
    stage.folder.set_spec(spec(deadlineSeconds=1000))
    assert stage.run().status == COMPLETE
    assert broken_promises(stage.store, list(PAGES)) == []


def test_too_many_failures_ends_the_run_with_3_and_keeps_the_dataset(stage: Stage) -> None:
    stage.folder.set_pages({**PAGES, "p3": None, "p7": None})
    stage.folder.set_spec({**SHARDING, "retries": {"maxFailedItems": "1"}})
    ended = stage.run()
    assert ended.status == TOO_MANY
    assert "2 of 12 items failed, 1 may" in json.loads(ended.stdout)["message"]
    assert broken_promises(stage.store, list(PAGES)) == []

    stage.folder.set_spec({**SHARDING, "retries": {"maxFailedItems": "2"}})
    begun = len(stage.folder.begun())
    assert stage.run().status == COMPLETE, "the verdict is taken anew from the totals"
    assert len(stage.folder.begun()) == begun


def test_too_many_failures_early_gives_the_run_up_and_a_mended_source_is_done_again(stage: Stage) -> None:
    pages: dict[str, str | None] = {f"p{number}": None if number % 2 else "fine" for number in range(120)}
    stage.folder.set_pages(pages)
    stage.folder.set_spec({"sharding": {"itemsPerShard": 4}, "retries": {"maxFailedItems": "10%"}})
    late = Strike("put .*/data/../00000029/", signal=0, number=0, is_pattern=True)
    assert stage.run(late, deadline_s=0.2).status == TOO_MANY
    assert newest_entry(stage.store).state == "GivenUp"
    stage.folder.log.unlink()

    stage.folder.set_pages({name: "fine" for name in pages})
    assert stage.run().status == COMPLETE
    assert newest_entry(stage.store).seq == 2
    assert {f"p{number}" for number in range(1, 120, 2)} <= set(stage.folder.begun())
    assert "p0" not in stage.folder.begun(), "what the given-up run committed was done again"


def test_broken_engine_gives_the_run_up_and_a_repaired_one_does_its_items_again(stage: Stage) -> None:
    pages: dict[str, str | None] = {f"p{number}": BREAK if number % 3 == 0 else "fine" for number in range(90)}
    stage.folder.set_pages(pages)
    stage.folder.set_spec(spec(sharding={"itemsPerShard": 3}))
    # The last shard fails to commit, so that the run is judged before it is complete.
    late = Strike("put .*/data/../00000029/", signal=0, number=0, is_pattern=True)
    ended = stage.run(late, deadline_s=0.2)
    assert ended.status == BROKEN, ended
    assert "failed alike (EngineFailed#0123456789ab)" in json.loads(ended.stdout)["message"]
    assert newest_entry(stage.store).state == "GivenUp"
    read_once = set(stage.folder.begun())
    stage.folder.log.unlink()

    repaired: dict[str, str | None] = {f"p{number}": "fine" for number in range(90)}
    stage.folder.set_pages(repaired)
    assert stage.run().status == COMPLETE
    assert newest_entry(stage.store).seq == 2
    again = set(stage.folder.begun())
    assert {f"p{number}" for number in range(0, 90, 3)} <= again, "items that the broken engine failed stay failed"
    assert "p1" in read_once
    assert "p1" not in again, "what the given-up run committed was done again"
    for number in range(90):
        assert stage.store.head(f"ocr_results/p{number}_ocr.json") is not None


def test_shard_that_never_commits_does_not_end_the_rest_and_is_not_sealed_beyond_the_limit(stage: Stage) -> None:
    never = Strike("put .*/data/../00000002/", signal=0, number=0, is_pattern=True)
    stage.folder.set_spec({**SHARDING, "retries": {"maxFailedItems": "1", "waves": 2}})
    ended = stage.run(never, deadline_s=0.2)
    assert ended.status == EXHAUSTED, ended
    told = json.loads(ended.stdout)
    assert told["outcome"] == "ShardsExhausted"
    assert told["shards"] == {"total": 6, "done": 5}
    assert "retries.waves" in told["message"]
    assert sorted(info.key[-1] for info in stage.store.list(".pagemill/0") if "/waves/" in info.key[:60])
    counted = Counter(stage.folder.begun())
    assert counted == dict.fromkeys(PAGES, 1), "pages of the bad shard were read again in every wave"

    assert stage.run().status == COMPLETE, "the store is whole again"
    assert broken_promises(stage.store, list(PAGES)) == []
    assert Counter(stage.folder.begun()) == dict.fromkeys(PAGES, 1)


def test_shard_that_never_commits_is_sealed_within_the_limit(stage: Stage) -> None:
    stage.folder.set_spec({**SHARDING, "retries": {"maxFailedItems": "2", "waves": 1}})
    # Workers never write this shard's data; whoever seals does.
    never = Strike("put .*/data/../00000002/", signal=0, number=0, is_pattern=True, thread="store")
    ended = stage.run(never, deadline_s=0.2)
    assert ended.status == COMPLETE, ended
    assert broken_promises(stage.store, list(PAGES)) == []
    picture = take_picture(stage.store)
    failed = {row["id"]: row["error_class"] for row in picture.rows if row["status"] == "failed"}
    assert failed in ({}, {"p4": "ShardAbandoned", "p5": "ShardAbandoned"})
