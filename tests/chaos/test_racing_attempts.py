"""Three attempts race for each of 120 shards on a real S3 server whose answers are lost or refused: one winner each."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pagemill_core.clock import SystemClock
from pagemill_core.testing.fault_proxy import FaultProxy, ProxyRates, ProxyRule
from pagemill_core.testing.seaweed import SeaweedServer
from pagemill_core.work.commit import Committed, commit, read_marker
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.records import Counts, Marker
from pagemill_core.work.tracker import Tracker

SHARDS = 120
ATTEMPTS = ("a", "b", "c")
RATES = ProxyRates(reply_lost=0.25, slow_down=0.10, conflict=0.10)
LAYOUT = RunLayout("00000001-aaaaaaaa")

pytestmark = pytest.mark.s3


class HurriedClock(SystemClock):
    """Waits a tenth of what it is asked for: back-off matters here, its length does not."""

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / 10)


def make_marker(shard: int, attempt: str) -> Marker:
    return Marker(
        shard=shard,
        attempt=attempt,
        plan="p",
        fingerprint="f",
        items=Counts(planned=2, succeeded=1, failed=1),
        started="2026-01-01T00:00:00.000Z",
        finished="2026-01-01T00:00:01.000Z",
    )


def test_three_attempts_race_under_lost_replies_exactly_one_wins_and_knows_it() -> None:
    told: dict[tuple[int, str], Committed] = {}
    starting = threading.Barrier(len(ATTEMPTS))

    def attempt_all(writer: Writer, attempt: str) -> None:
        for shard in range(SHARDS):
            starting.wait(60)
            told[shard, attempt] = commit(writer, LAYOUT, make_marker(shard, attempt))

    rule = ProxyRule(RATES, methods=frozenset({"PUT"}), conditional=True)
    with SeaweedServer() as server, FaultProxy(server.endpoint, [rule], seed=1) as proxy:
        bucket = server.fresh_bucket()
        stores = {attempt: server.store(bucket, "out", endpoint=proxy.endpoint) for attempt in ATTEMPTS}
        with ThreadPoolExecutor(len(ATTEMPTS)) as pool:
            racing = [
                pool.submit(attempt_all, Writer(store, HurriedClock(), random.Random(attempt)), attempt)
                for attempt, store in stores.items()
            ]
            for race in racing:
                race.result(240)
        struck = dict(proxy.struck)
        truth_store = server.store(bucket, "out")
        reader = Writer(truth_store, SystemClock())
        truth = {shard: read_marker(reader, LAYOUT, shard) for shard in range(SHARDS)}
        totals = Tracker(reader, LAYOUT, SHARDS).poll()
        for store in (*stores.values(), truth_store):
            store.close()

    assert all(struck.get(fault, 0) > 20 for fault in ("reply_lost", "slow_down", "conflict")), struck
    for shard, marker in truth.items():
        assert marker is not None, f"shard {shard} has no marker"
        winners = [attempt for attempt in ATTEMPTS if told[shard, attempt].won]
        assert winners == [marker.attempt], f"shard {shard}: {winners} were told that they won, {marker.attempt} did"
        assert all(told[shard, attempt].marker == marker for attempt in ATTEMPTS), (
            f"shard {shard}: shown another marker"
        )
    assert totals.items == Counts(planned=2 * SHARDS, succeeded=SHARDS, failed=SHARDS)
    assert len({marker.attempt for marker in truth.values() if marker is not None}) == len(ATTEMPTS), "nobody raced"
