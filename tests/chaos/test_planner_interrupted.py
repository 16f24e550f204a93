"""A planner that dies while its source changes: tables that no pointer names never count, those that one names stay."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import pytest

from pagemill_cli.testing.forked_runs import Ended, ForkedRuns, Running, folder_in_memory
from pagemill_cli.testing.job_folder import JobFolder
from pagemill_cli.testing.promises import broken_promises, newest_entry, newest_run, take_picture
from pagemill_cli.testing.strikes import Forked, Strike
from pagemill_core.storage.folder import FolderStore
from pagemill_core.work.records import PlanPointer

OLD: dict[str, str | None] = {f"old{number}": f"text of {number}" for number in range(6)}
NEW: dict[str, str | None] = {f"new{number}": f"other text of {number}" for number in range(9)}
SHARDING = {"sharding": {"itemsPerShard": 2}}
KILLED, COMPLETE, BAD_SOURCE = -9, 0, 65
BEFORE_THE_POINTER: list[tuple[str, Literal["before", "after"]]] = [
    ("put_if_absent .*/runs/", "after"),
    ("put_file .*/plan/", "before"),
    ("put_file .*/plan/", "after"),
    ("put_if_absent .*/plan/plan.json", "before"),
]


class Stage:
    def __init__(self, folder: JobFolder) -> None:
        self.folder = folder
        self.store = FolderStore(folder.output, fsync=False)

    def request(self, *strikes: Strike) -> Forked:
        plain = ForkedRuns.shared().request("run", str(self.folder.file), "--quiet", "-p", "1")
        return replace(plain, log=str(self.folder.log), strikes=strikes)

    def run(self, *strikes: Strike) -> Ended:
        return ForkedRuns.shared().run(self.request(*strikes))

    def sleeper(self, point: str, when: Literal["before", "after"] = "before") -> Running:
        running = ForkedRuns.shared().start(self.request(Strike(point, when, signal=signal.SIGSTOP, is_pattern=True)))
        assert running.wait_until_stopped(), running.wait()
        return running

    def planners(self) -> set[str]:
        """The attempts whose tables lie in the newest run's plan folder."""
        prefix = f"{newest_run(self.store).prefix}plan/"
        keys = [info.key.removeprefix(prefix) for info in self.store.list(prefix)]
        return {key.split("/")[0] for key in keys if "/" in key}

    @property
    def pointer(self) -> PlanPointer:
        key = newest_run(self.store).plan_pointer
        return PlanPointer.from_bytes(self.store.get(key).data, key)


@pytest.fixture
def stage() -> Iterator[Stage]:
    with folder_in_memory() as root:
        yield Stage(JobFolder(root, OLD, SHARDING))


@pytest.mark.parametrize(("point", "when"), BEFORE_THE_POINTER)
def test_planner_killed_before_its_pointer_leaves_tables_that_never_count(
    stage: Stage, point: str, when: Literal["before", "after"]
) -> None:
    assert stage.run(Strike(point, when, is_pattern=True)).status == KILLED
    stage.folder.set_pages(NEW)

    assert stage.run().status == COMPLETE

    assert broken_promises(stage.store, list(NEW)) == []
    assert not {row["id"] for row in take_picture(stage.store).rows} & set(OLD)
    assert stage.pointer.attempt in stage.planners()
    assert all(stage.pointer.attempt in part.key for part in stage.pointer.parts)
    if (point, when) == ("put_file .*/plan/", "after"):
        assert len(stage.planners()) == 2, "the dead planner's tables should still lie there, unused"


def test_planner_killed_after_its_pointer_has_decided_what_the_run_is(stage: Stage) -> None:
    killed = stage.run(Strike("put_if_absent .*/plan/plan.json", "after", is_pattern=True))
    assert killed.status == KILLED
    shown = stage.pointer.attempt
    stage.folder.set_pages({**NEW, **OLD})  # the old pages' files stay

    assert stage.run().status == COMPLETE

    assert broken_promises(stage.store, list(OLD)) == []
    assert stage.pointer.attempt == shown


def test_planner_killed_again_and_again_under_a_moving_source_plans_the_last_one(stage: Stage) -> None:
    kills = BEFORE_THE_POINTER[1:] * 2
    for number, (point, when) in enumerate(kills):
        assert stage.run(Strike(point, when, is_pattern=True)).status == KILLED
        stage.folder.set_pages({f"g{number}p{page}": "text" for page in range(number + 1)})
    assert stage.run().status == COMPLETE
    last = len(kills) - 1
    assert broken_promises(stage.store, [f"g{last}p{page}" for page in range(last + 1)]) == []


def test_planner_whose_source_changes_under_it_plans_nothing(stage: Stage) -> None:
    """The manifest is replaced after it was read and before its tables are complete."""
    planner = stage.sleeper("put_file .*/plan/")
    stage.folder.set_pages(NEW)
    planner.send(signal.SIGCONT)
    ended = planner.wait()
    assert ended.status == BAD_SOURCE
    assert "changed while being read" in ended.stderr
    assert newest_entry(stage.store).state == "GivenUp", "a run without a plan must block nobody"

    assert stage.run().status == COMPLETE
    assert broken_promises(stage.store, list(NEW)) == []


def test_planner_that_wakes_after_another_planned_uses_the_others_plan(stage: Stage) -> None:
    sleeper = stage.sleeper("put_if_absent .*/plan/plan.json")
    stage.folder.set_pages(NEW)
    entry_key = f".pagemill/runs/{newest_entry(stage.store).seq:08d}.json"
    entry: dict[str, Any] = newest_entry(stage.store).model_dump(by_alias=True)
    released = newest_entry(stage.store).model_validate({**entry, "owner": ""})
    stage.store.put(entry_key, released.to_bytes())
    assert stage.run().status == COMPLETE
    sleeper.send(signal.SIGCONT)
    sleeper.wait()
    assert broken_promises(stage.store, list(NEW)) == []
