"""A real S3 server that is away for a while, refuses much of what is asked, or whose replies get lost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from pagemill_cli.testing.forked_runs import Ended, ForkedRuns, Running
from pagemill_cli.testing.job_folder import JobFolder
from pagemill_cli.testing.promises import broken_promises
from pagemill_core.storage.s3 import S3Store
from pagemill_core.testing.fault_proxy import FaultProxy, ProxyRates, ProxyRule
from pagemill_core.testing.seaweed import SeaweedServer

pytestmark = pytest.mark.s3
SEED = 5
COMPLETE, UNAVAILABLE = 0, 75
OUTAGE_S = {"short": 20.0, "long": 75.0}
PAGES: dict[str, str | None] = {f"p{number}": f"text of {number}" for number in range(60)}


class Stage:
    """A job that writes to a bucket through a proxy; the store looks past the proxy."""

    def __init__(self, root: Path, server: SeaweedServer) -> None:
        self.store: S3Store = server.fresh_store()
        self.proxy = FaultProxy(server.endpoint, seed=SEED)
        self.folder = JobFolder(
            root,
            PAGES,
            {
                "sharding": {"itemsPerShard": 3},
                "output": {"uri": self.store.uri},
                "storage": {"endpoint": self.proxy.endpoint},
            },
        )
        settings = server.server.settings("worker")
        self.environment = {
            "PAGEMILL_S3_ACCESS_KEY": settings.access_key,
            "PAGEMILL_S3_SECRET_KEY": settings.secret_key.get_secret_value(),
        }

    def start(self, **changes: Any) -> Running:
        forked = ForkedRuns.shared()
        plain = forked.request("run", str(self.folder.file), "--quiet", "-p", "1")
        return forked.start(replace(plain, log=str(self.folder.log), environment=self.environment, **changes))

    def run(self) -> Ended:
        return self.start().wait()

    def markers(self) -> int:
        return sum("/commit/" in info.key for info in self.store.list(".pagemill/0"))


@pytest.fixture
def stage(tmp_path: Path, s3_server: SeaweedServer) -> Iterator[Stage]:
    stage = Stage(tmp_path, s3_server)
    with stage.proxy:
        yield stage
    stage.store.close()


def test_outage_in_the_middle_is_waited_for(stage: Stage, chaos_length: Literal["short", "long"]) -> None:
    outage_s = OUTAGE_S[chaos_length]
    running = stage.start()
    deadline = time.monotonic() + 60
    while stage.markers() < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    stage.proxy.set_outage(True)
    done = stage.markers()
    assert 2 <= done < len(PAGES) // 3, "the outage came too late to be in the middle"
    back = threading.Timer(outage_s, stage.proxy.set_outage, [False])
    back.start()
    ended = running.wait()
    back.cancel()
    assert ended.status == COMPLETE, ended
    assert broken_promises(stage.store, list(PAGES)) == []
    assert Counter(stage.folder.begun()) == dict.fromkeys(PAGES, 1), "a page was read again"


BUSY = ProxyRates(slow_down=0.30)
LOSSY = ProxyRates(reply_lost=0.25, slow_down=0.10, conflict=0.10)
SHAKY = ProxyRates(reset=0.10, truncated=0.10, slow=0.10, unavailable=0.05)


@pytest.mark.parametrize("rates", [BUSY, LOSSY, SHAKY], ids=["503-at-30-percent", "lost-replies", "shaky-line"])
def test_faults_during_the_whole_run_are_survived(stage: Stage, rates: ProxyRates) -> None:
    stage.proxy.set_rules([ProxyRule(rates)])
    ended = stage.run()
    assert ended.status == COMPLETE, ended
    assert sum(count for fault, count in stage.proxy.struck.items() if fault != "ok") > 50
    stage.proxy.set_rules([])
    assert broken_promises(stage.store, list(PAGES)) == []
    assert Counter(stage.folder.begun()) == dict.fromkeys(PAGES, 1), "a page was read again"
    begun = len(stage.folder.begun())
    assert stage.run().status == COMPLETE
    assert len(stage.folder.begun()) == begun


def test_store_that_was_never_there_is_told_soon(stage: Stage) -> None:
    stage.proxy.set_outage(True)
    started = time.monotonic()
    ended = stage.start(deadline_s=5.0).wait()
    assert ended.status == UNAVAILABLE, ended
    assert "StoreUnavailable" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert time.monotonic() - started < 60


def test_server_killed_in_the_middle_and_started_again_loses_nothing(tmp_path: Path) -> None:
    with SeaweedServer() as server:
        stage = Stage(tmp_path, server)
        with stage.proxy:
            running = stage.start()
            deadline = time.monotonic() + 60
            while stage.markers() < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            server.kill_and_restart()
            ended = running.wait()
            assert ended.status == COMPLETE, ended
            assert broken_promises(stage.store, list(PAGES)) == []
        stage.store.close()
