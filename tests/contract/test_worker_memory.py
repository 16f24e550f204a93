"""Pages that run out of memory: left to a wave with more of it while one may come, else failed by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from pagemill_core.clock import SystemClock
from pagemill_core.errors import ItemKilledWorker
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.work import attempts
from pagemill_core.work.commit import read_marker
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.publish import View
from pagemill_core.work.records import AttemptRecord, Marker
from pagemill_worker.items import ItemFailure, ItemResult, PlannedItem
from pagemill_worker.testing.instant import InstantPool, succeed
from pagemill_worker.work.pool import Answer, PoolSettings
from pagemill_worker.work.session import Hooks, Session, SessionResult, SessionSettings

LAYOUT = RunLayout("00000001-0123abcd")
LOW = SessionSettings(worker="pod-1", plan="plan-1", fingerprint="f" * 64, can_have_more_memory=True)
TOP = replace(LOW, worker="pod-2", memory_rung=1, can_have_more_memory=False)
POOL = PoolSettings(setup={}, processes=1, environment={}, depth=2, max_deaths=2)
HUNGRY = 2


class Bench:
    """One store, and a session at a time over shards of four rows; row HUNGRY runs out of memory when `starves`."""

    def __init__(self) -> None:
        self.writer = Writer(MemoryStore(), SystemClock(), deadline_s=0.05)
        self.begun: list[int] = []

    def run(self, shards: Sequence[int], settings: SessionSettings, *, starves: bool) -> SessionResult:
        def read(item: PlannedItem) -> Answer:
            self.begun.append(item.row)
            if starves and item.row == HUNGRY:
                failure = ItemFailure.of(ItemKilledWorker(f"{item.uri}: given up after 3 tries"))
                return Answer(ItemResult(item, "failed", failure=failure), wants_memory=True)
            return succeed(item, f"text of {item.id}")

        pool = InstantPool(POOL, read=read)
        hooks = Hooks(items=items_of, views=no_views)
        return Session(self.writer, LAYOUT, pool, settings, hooks).run(shards)  # type: ignore[arg-type]

    def counts(self, shard: int) -> tuple[int, int] | None:
        """Succeeded and failed items of a committed shard."""
        marker = read_marker(self.writer, LAYOUT, shard)
        return None if marker is None else (marker.items.succeeded, marker.items.failed)


def items_of(shard: int) -> list[PlannedItem]:
    return [PlannedItem(row=row, id=f"item-{row}", uri=f"x/{row}") for row in range(4 * shard, 4 * shard + 4)]


def no_views(_: Marker, __: Iterable[ItemResult]) -> list[View]:
    return []


def attempts_of(bench: Bench) -> list[AttemptRecord]:
    infos = bench.writer.listing(f"{LAYOUT.prefix}attempts/")
    return [AttemptRecord.from_bytes(bench.writer.store.get(info.key).data, info.key) for info in infos]


def test_page_out_of_memory_leaves_its_shard_to_a_wave_with_more() -> None:
    bench = Bench()

    result = bench.run([0, 1], LOW, starves=True)

    assert (result.committed, result.left, result.failed) == (1, {0}, {})
    assert (bench.counts(0), bench.counts(1)) == (None, (4, 0))
    bench.begun.clear()
    assert bench.run([0], TOP, starves=False).committed == 1
    assert bench.begun == [HUNGRY], "what was read before was read again"
    assert bench.counts(0) == (4, 0)


def test_page_out_of_memory_at_the_top_fails_alone() -> None:
    bench = Bench()

    assert bench.run([0], TOP, starves=True).committed == 1

    assert bench.counts(0) == (3, 1)


def test_pods_killed_with_less_memory_do_not_count_against_a_page() -> None:
    bench = Bench()
    for number in range(3):
        dead = attempts.begin(bench.writer, LAYOUT, 0, f"01AN4Z07BY79KA1307SR9X4MV{number}", "pod-0")
        attempts.note_in_flight(bench.writer, LAYOUT, dead, [HUNGRY])

    assert bench.run([0], LOW, starves=True).left == {0}
    assert HUNGRY not in bench.begun, "it killed three pods of this size"
    bench.begun.clear()
    assert bench.run([0], TOP, starves=False).committed == 1

    assert bench.begun[-1] == HUNGRY, "a suspect is tried last"
    assert bench.counts(0) == (4, 0)
    assert [record.memory_rung for record in attempts_of(bench)][-2:] == [0, 1]
