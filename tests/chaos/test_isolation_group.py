"""A page that takes the whole group down with it: supervisor and children die at once, as at a pod's memory limit.

No human helps: the same command is started again, as Kubernetes starts a pod again, until the page alone has failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pagemill_cli.testing.forked_runs import ForkedRuns, folder_in_memory
from pagemill_cli.testing.job_folder import JobFolder
from pagemill_cli.testing.promises import broken_promises, take_picture
from pagemill_core.storage.folder import FolderStore
from pagemill_worker.testing.instant import DIE

KILLED = -9
PER_ITEM = 2


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder


def starts_until_done(forked: ForkedRuns, folder: JobFolder, processes: int, most: int) -> int:
    plain = forked.request("run", str(folder.file), "--quiet", "-p", str(processes))
    for start in range(1, most + 1):
        ended = forked.run(replace(plain, log=str(folder.log)))
        if ended.status != KILLED:
            assert ended.status == 0, ended.stderr
            return start
    pytest.fail(f"still dying after {most} starts; begun: {folder.begun()}")


@pytest.mark.parametrize("items_per_shard", [1, 3, 50])
@pytest.mark.parametrize("killers", [(0,), (7,), (3, 4), (0, 11)], ids=str)
def test_page_that_kills_the_whole_group_fails_alone_without_a_human(
    scratch: Path, tmp_path: Path, killers: tuple[int, ...], items_per_shard: int
) -> None:
    forked = ForkedRuns.shared()
    pages: dict[str, str | None] = {f"p{n}": DIE if n in killers else f"text {n}" for n in range(12)}
    spec: dict[str, Any] = {
        "sharding": {"itemsPerShard": items_per_shard},
        "retries": {"perItem": PER_ITEM, "maxFailedItems": "100%"},
    }
    folder = JobFolder(scratch / tmp_path.name, pages, spec)

    # A death that nothing was known of, one that only narrows it down, and the tries of each killer alone.
    starts = starts_until_done(forked, folder, 2, most=2 + len(killers) * (PER_ITEM + 2))

    store = FolderStore(folder.output, fsync=False)
    assert broken_promises(store, list(pages)) == []
    failed = {row["id"]: row["error_class"] for row in take_picture(store).rows if row["status"] != "succeeded"}
    assert failed == {f"p{n}": "ItemKilledWorker" for n in killers}
    for n in killers:  # one death of each may have been another's, when both were in flight
        assert folder.begun().count(f"p{n}") >= PER_ITEM, "it was given up on too early"
    assert starts >= PER_ITEM + 2
