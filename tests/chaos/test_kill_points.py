"""kill -9 at every point of a run: before and after each kind of store operation, from the claim to the last report.

The real command runs in a fork with an instant engine; a strike kills it in the middle, the same command goes on, and
at the end nobody can tell that anything happened.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal
from zlib import crc32

import pytest

from pagemill_cli.testing.forked_runs import Ended, ForkedRuns, folder_in_memory
from pagemill_cli.testing.job_folder import JobFolder
from pagemill_cli.testing.promises import Picture, broken_promises, marker_tokens, take_picture
from pagemill_cli.testing.strikes import Forked, Strike
from pagemill_core.storage.folder import FolderStore

SEED = 20260101
PAGES: dict[str, str | None] = {f"p{number}": f"text of {number}" for number in range(6)} | {"gone": None}
KILLED = -9
POINTS_AT_LEAST = 200
PARTS = 4  # pytest's workers share them
READS = ("get ", "get_range ", "list ", "head ")


@dataclass(frozen=True)
class Stage:
    """One job, its runner, and how it looks undisturbed."""

    folder: JobFolder
    runs: ForkedRuns
    store: FolderStore
    undisturbed: Picture
    operations: tuple[str, ...]

    def request(self, *strikes: Strike) -> Forked:
        plain = self.runs.request("run", str(self.folder.file), "--quiet", "--output", "json", "-p", "1")
        return replace(plain, log=str(self.folder.log), strikes=strikes)

    def run(self, *strikes: Strike) -> Ended:
        return self.runs.run(self.request(*strikes))


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    runs = ForkedRuns.shared()
    with folder_in_memory() as root:
        folder = JobFolder(root, PAGES, {"sharding": {"itemsPerShard": 2}})
        store = FolderStore(folder.output, fsync=False)
        log = root / "operations"
        plain = runs.request("run", str(folder.file), "--quiet", "--output", "json", "-p", "1")
        ended = runs.run(replace(plain, operations=str(log)))
        assert ended.status == 0, ended.stderr
        assert broken_promises(store, list(PAGES)) == []
        yield Stage(folder, runs, store, take_picture(store), tuple(log.read_text().splitlines()))


def points_of(operations: tuple[str, ...]) -> list[Strike]:
    """A strike before every operation, and one after every write, each at the number of times it happens."""
    seen: dict[str, int] = {}
    points = []
    for name in operations:
        seen[name] = seen.get(name, 0) + 1
        points.append(Strike(name, "before", seen[name]))
        if not name.startswith(READS):
            points.append(Strike(name, "after", seen[name]))
    return points


def survive(stage: Stage, kills: list[Strike]) -> None:
    """Run from nothing, killed at each of `kills` in turn, until the command ends by itself; then look."""
    stage.folder.clear()
    tokens: dict[str, str] = {}
    for kill in kills:
        ended = stage.run(kill)
        assert ended.status in (KILLED, 0), f"{kills}: status {ended.status}\n{ended.stderr}"
        now = marker_tokens(stage.store)
        assert {key: now.get(key) for key in tokens} == tokens, f"{kills}: a marker was overwritten"
        tokens = now
    ended = stage.run()
    assert ended.status == 0, f"{kills}: status {ended.status}\n{ended.stderr}"
    now = marker_tokens(stage.store)
    assert {key: now.get(key) for key in tokens} == tokens, f"{kills}: a marker was overwritten"
    assert broken_promises(stage.store, list(PAGES)) == [], kills
    assert take_picture(stage.store) == stage.undisturbed, kills
    begun = len(stage.folder.begun())
    again = stage.run()
    assert again.status == 0, again.stderr
    assert len(stage.folder.begun()) == begun, f"{kills}: the finished job read pages again"


def several(points: list[Strike], rng: random.Random, count: int) -> list[list[Strike]]:
    """Runs that are killed two to four times, wherever they then are."""
    return [[rng.choice(points) for _ in range(rng.randint(2, 4))] for _ in range(count)]


@pytest.mark.parametrize("part", range(PARTS))
def test_kill_at_every_store_operation_leaves_no_trace(
    part: int, stage: Stage, chaos_length: Literal["short", "long"]
) -> None:
    rng = random.Random(SEED)
    points = sorted(points_of(stage.operations), key=repr)  # threads make their order vary from run to run
    cases = [[point] for point in points]
    cases += several(points, rng, max(POINTS_AT_LEAST - len(cases), 20) if chaos_length == "short" else 2000)
    sys.stdout.write(f"{len(points)} points, {len(cases)} cases, seed {SEED}\n")
    assert len(cases) >= POINTS_AT_LEAST
    for kills in cases:
        if crc32(repr(kills).encode()) % PARTS == part:
            survive(stage, kills)
