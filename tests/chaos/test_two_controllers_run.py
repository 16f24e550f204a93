"""Two commands on one output: one works, the other is told; and a sleeper that wakes after its run was taken over."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from pagemill_cli.testing.forked_runs import ForkedRuns, Running, folder_in_memory
from pagemill_cli.testing.job_folder import JobFolder
from pagemill_cli.testing.promises import broken_promises, marker_tokens, newest_entry, take_picture
from pagemill_cli.testing.strikes import Forked, Strike
from pagemill_core.clock import SystemClock
from pagemill_core.storage.folder import FolderStore
from pagemill_core.work.conditional import Writer
from pagemill_core.work.ledger import Ledger, Owner

SEED = 11
PAGES: dict[str, str | None] = {f"p{number}": f"text of {number}" for number in range(8)}
SHARDING = {"sharding": {"itemsPerShard": 2}}
COMPLETE, BUSY = 0, 75
# Where a sleeper falls asleep: one point of each phase.
PHASES = (
    "put_file .*/plan/",
    "put_if_absent .*/plan/plan.json",
    "put_if_absent .*/waves/1",
    "put .*/attempts/00000001/",
    "put .*/data/../00000001/",
    "put_if_absent .*/commit/00000/00000001",
    "put_if_absent ocr_results/",
    "put .*/published/00000/00000001",
    "put_if_absent .*/rollup/",
    "put_file dataset/",
    "put_file summary/",
    "put_if_absent report.html",
    "put_file .*/index/",
    "put_if_absent .*/index/current.json",
    "put_if_absent .*_SUCCESS.json",
    "put .*/reports/",
)


class Stage:
    """A job in a folder of its own."""

    def __init__(self, root: Path, **spec: Any) -> None:
        self.folder = JobFolder(root, PAGES, {**SHARDING, **spec})
        self.store = FolderStore(self.folder.output, fsync=False)

    def request(self, *strikes: Strike) -> Forked:
        plain = ForkedRuns.shared().request("run", str(self.folder.file), "--quiet", "-p", "1")
        return replace(plain, log=str(self.folder.log), strikes=strikes)

    def sleeper(self, point: str, when: Literal["before", "after"]) -> Running:
        """A command that stands still at a point."""
        running = ForkedRuns.shared().start(self.request(Strike(point, when, signal=signal.SIGSTOP, is_pattern=True)))
        assert running.wait_until_stopped(), running.wait()
        return running

    def release(self) -> None:
        """What `pagemill release` does."""
        ledger = Ledger(Writer(self.store, SystemClock()), Owner("someone"))
        ledger.request(newest_entry(self.store).seq, owner="")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with folder_in_memory() as root:
        yield Stage(root / tmp_path.name)


@pytest.mark.parametrize("point", [PHASES[0], PHASES[5], PHASES[9]])
def test_second_command_is_told_who_works_and_nothing_is_done_twice(stage: Stage, point: str) -> None:
    first = stage.sleeper(point, "before")
    second = ForkedRuns.shared().run(stage.request())
    assert second.status == BUSY
    assert "OutputBusy" in second.stderr
    assert "chaos on" in second.stderr, "it does not say who works"
    first.send(signal.SIGCONT)
    assert first.wait().status == COMPLETE
    assert broken_promises(stage.store, list(PAGES)) == []
    assert Counter(stage.folder.begun()) == dict.fromkeys(PAGES, 1)


@pytest.mark.parametrize("point", [PHASES[0], PHASES[5], PHASES[9]])
def test_killed_command_is_succeeded_at_once_on_the_same_machine(stage: Stage, point: str) -> None:
    first = stage.sleeper(point, "before")
    first.send(signal.SIGKILL)
    first.wait()
    assert ForkedRuns.shared().run(stage.request()).status == COMPLETE
    assert newest_entry(stage.store).epoch == 2
    assert broken_promises(stage.store, list(PAGES)) == []


def sleepers(length: str) -> list[tuple[str, Literal["before", "after"]]]:
    whens: tuple[Literal["before"], Literal["after"]] = ("before", "after")
    cases = [(point, when) for point in PHASES for when in whens]
    return cases if length == "long" else random.Random(SEED).sample(cases, 16)  # type: ignore[return-value]


def test_sleeper_whose_run_was_finished_by_another_changes_nothing(
    tmp_path: Path, chaos_length: Literal["short", "long"]
) -> None:
    for point, when in sleepers(chaos_length):
        with folder_in_memory() as root:
            stage = Stage(root / tmp_path.name)
            sleeper = stage.sleeper(point, when)
            stage.release()
            assert ForkedRuns.shared().run(stage.request()).status == COMPLETE, (point, when)
            picture, tokens = take_picture(stage.store), marker_tokens(stage.store)
            sleeper.send(signal.SIGCONT)
            woken = sleeper.wait()
            assert woken.status in (BUSY, COMPLETE), (point, when, woken)
            assert marker_tokens(stage.store) == tokens, (point, when)
            assert take_picture(stage.store) == picture, (point, when)
            assert broken_promises(stage.store, list(PAGES)) == [], (point, when)


def test_sleeper_whose_output_went_to_other_work_changes_nothing(
    tmp_path: Path, chaos_length: Literal["short", "long"]
) -> None:
    for point, when in sleepers(chaos_length):
        with folder_in_memory() as root:
            stage = Stage(root / tmp_path.name)
            sleeper = stage.sleeper(point, when)
            stage.folder.set_pages({**PAGES, "p0": "a new text"})
            spec = {
                "output": {"uri": str(stage.folder.output), "onConflict": "Replace"},
                "engine": {"languages": ["de"]},
            }
            stage.folder.set_spec({**SHARDING, **spec})
            other = ForkedRuns.shared().run(stage.request())
            assert other.status == COMPLETE, (point, when, other)
            assert newest_entry(stage.store).seq == 2
            picture = take_picture(stage.store)
            sleeper.send(signal.SIGCONT)
            woken = sleeper.wait()
            assert woken.status in (BUSY, COMPLETE), (point, when, woken)
            assert take_picture(stage.store) == picture, (point, when)
            assert broken_promises(stage.store, list(PAGES)) == [], (point, when)
