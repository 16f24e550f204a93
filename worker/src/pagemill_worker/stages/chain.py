"""A job's own stages at work in a child process: batches, tries, times, and whose fault a failure is.

Layer: `worker.stages`, used by the runners. What a stage raises is mapped as an engine's errors are, at the same
boundary; what it gives back is checked before anybody relies on it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from pagemill_core.errors import EngineFailed, FilteredByStage, ItemError
from pagemill_worker.ocr.guard import load_boundary, page_boundary
from pagemill_worker.stages.contract import Stage, StageItem

Notes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Passed:
    """How far an item came: its pieces (one, unless a stage cut it), or why it ended; notes and seconds by stage."""

    id: str
    pieces: tuple[StageItem, ...]
    failure: ItemError | None = None
    notes: Notes = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def start(cls, item_id: str, value: Any) -> Passed:
        return cls(item_id, (StageItem(id=item_id, value=value),))


@dataclass(frozen=True, slots=True)
class LoadedStage:
    """A stage of a job that is ready. `keeps_one`: nothing behind it could join pieces, so it gives one for each."""

    name: str
    stage: Stage
    batch_size: int = 1
    attempts: int = 1
    keeps_one: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def load(self) -> None:
        """Set the stage up for this process. Raises: EngineUnavailableError."""
        with load_boundary(f"stage {self.name}"):
            self.stage.setup()

    def run(self, items: Sequence[Passed]) -> list[Passed]:
        """Send the items that are still under way through the stage, whole batches at a time."""
        alive = {item.id: item for item in items if item.failure is None}
        pieces = [piece for item in alive.values() for piece in item.pieces]
        given: dict[str, list[StageItem]] = {name: [] for name in alive}
        failed: dict[str, ItemError] = {}
        spent = dict.fromkeys(alive, 0.0)
        for start in range(0, len(pieces), self.batch_size):
            batch = pieces[start : start + self.batch_size]
            started = time.perf_counter()
            out, errors = self._try(batch)
            each = (time.perf_counter() - started) / len(batch)
            for piece in batch:
                spent[piece.id] += each
            failed |= errors
            for piece in out:
                given[piece.id].append(piece)
        return [
            self._ended(item, given[item.id], failed.get(item.id), spent[item.id]) if item.id in alive else item
            for item in items
        ]

    def _try(self, batch: Sequence[StageItem]) -> tuple[list[StageItem], dict[str, ItemError]]:
        """What comes out of a batch. When it is refused each is tried alone, so that only the culprit fails."""
        if len(batch) > 1:
            try:
                return self._call(batch), {}
            except ItemError:
                found = [self._try([piece]) for piece in batch]
            return [piece for out, _ in found for piece in out], {
                k: v for _, errors in found for k, v in errors.items()
            }
        attempt = 1
        while True:
            try:
                return self._call(batch), {}
            except ItemError as error:
                if attempt >= self.attempts:
                    return [], {batch[0].id: error}
                attempt += 1

    def _call(self, batch: Sequence[StageItem]) -> list[StageItem]:
        with self.lock, page_boundary(f"stage {self.name}"):
            out = list(self.stage.process(batch))
        self._check(batch, out)
        return out

    def _check(self, batch: Sequence[StageItem], out: Sequence[StageItem]) -> None:
        """Raises: EngineFailed when what came out is not what the contract says."""
        for piece in out:
            if not isinstance(piece, StageItem):
                raise EngineFailed(f"stage {self.name} gave a {type(piece).__name__}, not a StageItem")
            gives = type(self.stage).gives
            if not piece.filtered and not isinstance(piece.value, gives):
                raise EngineFailed(f"stage {self.name} gave a {type(piece.value).__name__}, not a {gives.__name__}")
            _check_notes(self.name, piece.notes)
        came, went = ([name for name, _ in groupby(pieces, lambda piece: piece.id)] for pieces in (batch, out))
        if came != went:
            raise EngineFailed(
                f"stage {self.name} took {_named(came)} and gave {_named(went)}: every item comes out, in order; "
                "one that shall go no further as item.drop(reason)"
            )
        if self.keeps_one and len(out) != len(batch):
            raise EngineFailed(f"stage {self.name} gave {len(out)} for {len(batch)}; nothing behind it could join them")

    def _ended(self, item: Passed, out: Sequence[StageItem], error: ItemError | None, seconds: float) -> Passed:
        notes = [dict(piece.notes) for piece in out if piece.notes]
        kept = tuple(replace(piece, notes={}) for piece in out if not piece.filtered)
        if error is None and not kept:
            error = FilteredByStage(f"{self.name}: {'; '.join(dict.fromkeys(piece.filtered for piece in out))}")
        return replace(
            item,
            pieces=kept,
            failure=error,
            notes={**item.notes, self.name: notes[0] if len(notes) == 1 else notes} if notes else item.notes,
            seconds={**item.seconds, self.name: seconds},
        )


@dataclass(frozen=True, slots=True)
class Chain:
    """Own stages in a row."""

    stages: tuple[LoadedStage, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.stages)

    def run(self, items: Iterable[Passed]) -> list[Passed]:
        """Send items through all of them, in order; one that ended stays as it is."""
        found = list(items)
        for stage in self.stages:
            found = stage.run(found)
        return found

    @property
    def batch_size(self) -> int:
        return max((stage.batch_size for stage in self.stages), default=1)


@dataclass(frozen=True, slots=True)
class Chains:
    """A job's own stages by where they run: `ahead` beside the model, `before` and `behind` it in its own thread."""

    ahead: Chain = field(default_factory=Chain)
    before: Chain = field(default_factory=Chain)
    behind: Chain = field(default_factory=Chain)

    @property
    def batch_size(self) -> int:
        """How many items are worth handing to the model's thread at once, as far as own stages go."""
        return max(self.before.batch_size, self.behind.batch_size)

    def shutdown(self) -> None:
        for chain in (self.ahead, self.before, self.behind):
            for stage in chain.stages:
                with load_boundary(f"stage {stage.name}"):
                    stage.stage.shutdown()


def _check_notes(stage: str, notes: Mapping[str, object]) -> None:
    for name, value in notes.items():
        is_scalar = value is None or isinstance(value, str | bool | int | float)
        if not is_scalar or (isinstance(value, float) and not math.isfinite(value)):
            raise EngineFailed(f"stage {stage}: the note {name} is {value!r}; notes are texts, finite numbers, flags")


def _named(ids: Sequence[str]) -> str:
    return ", ".join(ids[:3]) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "") if ids else "nothing"
