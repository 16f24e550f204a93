"""SIGTERM at every kind of point: the command stops by itself, nothing finished is done twice, and it goes on.

The engine answers one page at a time in the command's own process, so at most one page is in flight; with real engine
processes the same is asked of them in test_kill_processes.py.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import pytest

from pagemill_cli.testing.forked_runs import Ended, ForkedRuns, folder_in_memory
from pagemill_cli.testing.job_folder import JobFolder
from pagemill_cli.testing.promises import broken_promises, marker_tokens, newest_entry
from pagemill_cli.testing.strikes import Strike
from pagemill_core.storage.folder import FolderStore

SEED = 7
PAGES: dict[str, str | None] = {f"p{number}": f"text of {number}" for number in range(9)}
SIGTERM, SIGKILL = 15, 9
INTERRUPTED, COMPLETE, KILLED = 130, 0, -9
CASES = 40


class Stage:
    """One job, and the operations of its undisturbed run."""

    def __init__(self, folder: JobFolder) -> None:
        self.folder = folder
        self.store = FolderStore(folder.output, fsync=False)
        self.operations = self.operations_of()

    def run(self, *strikes: Strike, operations: str = "") -> Ended:
        forked = ForkedRuns.shared()
        plain = forked.request("run", str(self.folder.file), "--quiet", "-p", "1")
        return forked.run(replace(plain, log=str(self.folder.log), strikes=strikes, operations=operations))

    def operations_of(self, *strikes: Strike) -> list[str]:
        """The points that a run with these strikes meets, each once, in a fixed order."""
        log = self.folder.root / "operations"
        log.unlink(missing_ok=True)
        self.folder.clear()
        self.run(*strikes, operations=str(log))
        return sorted(set(log.read_text().splitlines()))


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with folder_in_memory() as root:
        yield Stage(JobFolder(root, PAGES, {"sharding": {"itemsPerShard": 3}}))


def test_sigterm_at_any_point_loses_no_finished_page(stage: Stage, chaos_length: Literal["short", "long"]) -> None:
    rng = random.Random(SEED)
    points = [Strike(name, when, signal=SIGTERM) for name in stage.operations for when in ("before", "after")]
    chosen = points if chaos_length == "long" else rng.sample(points, CASES)
    sys.stdout.write(f"{len(chosen)} of {len(points)} points, seed {SEED}\n")
    for strike in chosen:
        stage.folder.clear()
        first = stage.run(strike)
        assert first.status in (INTERRUPTED, COMPLETE), f"{strike}: {first}"
        if first.status == INTERRUPTED:
            assert "Go on with" in first.stdout, strike
            assert newest_entry(stage.store).owner == "", f"{strike}: the next command would have to wait"
        tokens = marker_tokens(stage.store)
        second = stage.run()
        assert second.status == COMPLETE, f"{strike}: {second}"
        assert broken_promises(stage.store, list(PAGES)) == [], strike
        assert tokens.items() <= marker_tokens(stage.store).items(), f"{strike}: a marker changed"
        assert Counter(stage.folder.begun()) == dict.fromkeys(PAGES, 1), f"{strike}: a finished page was read again"


def test_sigterm_then_kill_while_stopping_loses_nothing(stage: Stage, chaos_length: Literal["short", "long"]) -> None:
    rng = random.Random(SEED)
    cases = []
    for begun in ("commit/00000/00000000", "data/.*/00000001/"):
        stop = Strike(begun, signal=SIGTERM, is_pattern=True)
        cases += [(stop, Strike(name, when)) for name in stage.operations_of(stop) for when in ("before", "after")]
    chosen = cases if chaos_length == "long" else rng.sample(cases, CASES // 2)
    for stop, kill in chosen:
        stage.folder.clear()
        first = stage.run(stop, kill)
        assert first.status in (KILLED, INTERRUPTED, COMPLETE), f"{stop} {kill}: {first}"
        tokens = marker_tokens(stage.store)
        second = stage.run()
        assert second.status == COMPLETE, f"{stop} {kill}: {second}"
        assert broken_promises(stage.store, list(PAGES)) == [], (stop, kill)
        assert tokens.items() <= marker_tokens(stage.store).items(), (stop, kill)


def test_sigterm_twice_leaves_at_once(stage: Stage) -> None:
    stage.folder.clear()
    again = Strike("published/00000/00000000", signal=SIGTERM, is_pattern=True)
    ended = stage.run(Strike("commit/00000/00000000", "before", signal=SIGTERM, is_pattern=True), again)
    assert ended.status == INTERRUPTED
    assert stage.run().status == COMPLETE
    assert broken_promises(stage.store, list(PAGES)) == []
