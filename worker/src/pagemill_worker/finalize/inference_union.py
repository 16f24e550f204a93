"""The parts that a tensor job's results are made of: of each item the newest outcome over all runs on the output.

Layer: `worker.finalize`. A retry, an incremental run or a run after one that was given up does only what is missing;
predictions and reports are of everything. Ranks are dealt anew over all partitions that are there, in the job's own
order. Memory: a few hundred bytes an item; rows are read as they are needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pagemill_core.work import layout as keys
from pagemill_core.work.layout import RunLayout, run_id
from pagemill_core.work.ledger import COLLECTED
from pagemill_core.work.plan import read_plan
from pagemill_core.work.records import Marker, RunEntry
from pagemill_worker.embed.infer.ranks import RankMap
from pagemill_worker.finalize.inference import InferenceKind, Part
from pagemill_worker.plan.sorting import sort_key


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an item's newest outcome is committed, and what it is sorted by."""

    seq: int
    shard: int
    row: int
    uri: str
    start: int


@dataclass(frozen=True, slots=True)
class InferenceUnion:
    """All parts that count up to one run, whose finalizing half is `kind`."""

    kind: InferenceKind

    def parts(self) -> Iterator[Part]:
        """Every part in the order of partitions and of rows in them, with its rank and partition among all."""
        runs = self._runs()
        if len(runs) == 1:
            yield from self.kind.parts()
            return
        tensors, inference = self.kind.job.spec.source.tensors, self.kind.job.spec.inference
        order = "codePoint" if tensors is None else tensors.effective_order
        places = sorted(self._newest(runs).values(), key=lambda place: (sort_key(place.uri, order), place.start))
        numbers = {uri: number for number, uri in enumerate(dict.fromkeys(place.uri for place in places))}
        asked = inference.world_size if inference is not None else None
        ranks = RankMap(len(numbers), asked or max(1, len(numbers)))
        readers = {seq: _ShardReader(run) for seq, run in runs.items()}
        for place in places:
            part, number = readers[place.seq].part(place), numbers[place.uri]
            input_now = {**part.item.input, "partitions": ranks.partitions, "worldSize": ranks.world_size}
            item = replace(part.item, input=input_now)
            yield replace(part, item=item, rank=ranks.rank_of(number), partition=number)

    def _runs(self) -> dict[int, InferenceKind]:
        """The runs whose rows were made as this run's are, by number, this one last."""
        kind = self.kind
        found: dict[int, InferenceKind] = {}
        for info in kind.writer.listing(keys.RUNS_PREFIX):
            seq = keys.seq_of_run_entry(info.key)
            blob = kind.writer.get(info.key) if seq is not None and seq < kind.layout.seq else None
            if seq is None or blob is None:
                continue
            entry = RunEntry.from_bytes(blob.data, info.key)
            layout = RunLayout(run_id(seq, entry.work_key))
            pointer = read_plan(kind.writer, layout) if entry.reason != COLLECTED else None
            if pointer is not None and pointer.fingerprint == kind.pointer.fingerprint:
                found[seq] = kind.of_run(layout, pointer)
        return {**dict(sorted(found.items())), kind.layout.seq: kind}

    def _newest(self, runs: dict[int, InferenceKind]) -> dict[str, _Place]:
        """Of each id the place of its newest outcome, in run order."""
        newest: dict[str, _Place] = {}
        for seq, run in runs.items():
            for marker in run.markers():
                for item in run.items(marker.shard):
                    start = item.input.get("start", 0)
                    begins = start if isinstance(start, int) else 0
                    newest[item.id] = _Place(seq, marker.shard, item.row, item.uri, begins)
        return newest


class _ShardReader:
    """Reads parts of one run, keeping the last shard: neighbours are mostly asked for one after the other."""

    def __init__(self, run: InferenceKind) -> None:
        self._run = run
        self._shard = -1
        self._parts: dict[int, Part] = {}
        self._markers: dict[int, Marker] | None = None

    def part(self, place: _Place) -> Part:
        if place.shard != self._shard:
            if self._markers is None:
                self._markers = {marker.shard: marker for marker in self._run.markers()}
            self._parts = {part.item.row: part for part in self._run.parts_of(self._markers[place.shard])}
            self._shard = place.shard
        return self._parts[place.row]
