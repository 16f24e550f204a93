"""The simulated planner: lists the source, leaves out what is done, writes tables, and creates one pointer.

Layer: `core.testing.sim`. What is protocol here: fingerprints are compared before the pointer exists, the pointer is
created once, and the runs whose work was left out are named in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pagemill_core.errors import OutputInUseError
from pagemill_core.ids import digest
from pagemill_core.testing.sim import rows as tables
from pagemill_core.testing.sim.rows import PlanRow
from pagemill_core.testing.sim.scheduler import Process
from pagemill_core.testing.sim.world import Spec, World
from pagemill_core.work import layout as keys
from pagemill_core.work.commit import read_output
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.ledger import Held, Ledger, Owner
from pagemill_core.work.plan import create_plan, read_plan
from pagemill_core.work.records import PlanPart, PlanPointer, RunEntry
from pagemill_core.work.rollup import segment_markers


@dataclass(frozen=True)
class Planner:
    """One planner pod. `earlier` are the given-up runs whose work this run may leave out."""

    world: World
    spec: Spec
    run: str
    earlier: Sequence[RunEntry]

    def __call__(self, _process: Process) -> None:
        world = self.world
        writer = world.writer()
        layout = RunLayout(self.run)
        attempt = world.new_id()
        listed = dict(world.source)
        history = list(Ledger(writer, Owner("planner")).history())
        self._check_fingerprint(history)
        subtracted, done = self._done(writer, history)
        left = [item for item in sorted(listed.items()) if item not in done]
        rows = [PlanRow(number, item, version) for number, (item, version) in enumerate(left)]
        step = world.habits.shard_items
        table = [rows[first : first + step] for first in range(0, len(rows), step)]
        parts = [self._write_table(writer, layout, attempt, table)] if table else []
        pointer = PlanPointer(
            run=self.run,
            attempt=attempt,
            kind=self.spec.kind,
            work_key=self.spec.work_key,
            work={},
            fingerprint=self.spec.fingerprint,
            fingerprint_fields={"listed": listed},
            items=len(rows),
            shards=len(table),
            already_done=len(listed) - len(rows),
            subtracted=subtracted,
            parts=parts,
        )
        create_plan(writer, layout, pointer)

    def _check_fingerprint(self, history: Sequence[Held]) -> None:
        finished = next((held.entry for held in history if held.entry.state == "Finished"), None)
        if finished is not None and finished.fingerprint != self.spec.fingerprint and not self.spec.replace:
            raise OutputInUseError(f"run {finished.seq} has fingerprint {finished.fingerprint}")

    def _write_table(
        self, writer: Writer, layout: RunLayout, attempt: str, table: Sequence[Sequence[PlanRow]]
    ) -> PlanPart:
        data = tables.encode(table)
        key = f"{layout.plan_attempt(attempt)}shards-00000.parquet"
        writer.put(key, data)
        rows = sum(len(shard) for shard in table)
        return PlanPart(
            key=key, size=len(data), sha256=digest(table), first_shard=0, shards=len(table), first_row=0, rows=rows
        )

    def _done(self, writer: Writer, history: Sequence[Held]) -> tuple[list[str], set[tuple[str, int]]]:
        """The given-up runs that were looked at, and what was done before: (item, version) that succeeded."""
        earlier = {entry.seq for entry in self.earlier}
        given_up: list[str] = []
        done: set[tuple[str, int]] = set()
        for held in history:
            if held.run == self.run or not (self.spec.incremental or held.entry.seq in earlier):
                continue
            pointer = read_plan(writer, RunLayout(held.run))
            if pointer is None or pointer.fingerprint != self.spec.fingerprint:
                continue
            if held.entry.state == "GivenUp":
                given_up.append(held.run)
            done.update(_succeeded(writer, pointer))
        return given_up, done


def _succeeded(writer: Writer, pointer: PlanPointer) -> Iterator[tuple[str, int]]:
    for segment in range(-(-pointer.shards // keys.SEGMENT_SHARDS)):
        for marker in segment_markers(writer, RunLayout(pointer.run), segment):
            for row in tables.decode_results(read_output(writer, marker.outputs[0])):
                if row.status == "succeeded":
                    yield row.id, row.version
