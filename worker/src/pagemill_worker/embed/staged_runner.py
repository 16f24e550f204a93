"""Rows of pictures and texts in a job that has stages of its own.

Layer: `worker.embed`, beside `runner`, which does the rest.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pagemill_core.errors import ItemError
from pagemill_worker.embed.rows import pack
from pagemill_worker.embed.runner import EncodedRow, Encoders, RowInput, RowRunner, facts_of
from pagemill_worker.embed.setup import EmbedSetup
from pagemill_worker.embed.staged import after_encoding, encode_pieces
from pagemill_worker.items import ItemFailure, PlannedItem
from pagemill_worker.stages.chain import Chains, Passed
from pagemill_worker.work.runner import Prepared, Processed


@dataclass(frozen=True, slots=True)
class _Staged:
    """An item on its way: its pieces, its text where it has a picture too, and what is told of the source's picture
    once it was cut.

    `inputs` are the pieces as the encoders want them, None while stages are still to come that take the pieces.
    """

    passed: Passed
    text: str | None
    facts: Mapping[str, Any]
    inputs: tuple[RowInput, ...] | None = None


class StagedRowRunner(RowRunner):
    """`RowRunner` with stages in front of the encoder and behind it."""

    def __init__(self, setup: EmbedSetup, encoders: Encoders, chains: Chains) -> None:
        super().__init__(setup, encoders)
        self._chains = chains
        self.batch_size = max(self.batch_size, chains.batch_size)
        sides = {"visual": setup.encoders[0], "text": setup.encoders[1]}
        self._unit_sides = [side for side, settings in sides.items() if settings is not None and settings.normalize]

    def prepare(self, item: PlannedItem) -> Prepared:
        started = time.perf_counter()
        text = self.text_of(item) if self._encoders.text is not None else None
        if self._encoders.visual is None:
            seconds = {"fetch": time.perf_counter() - started}
            found = Prepared(item, text, len((text or "").encode()), item.version, seconds)
            facts: Mapping[str, Any] = {}
        else:
            found = self.page_of(item)
            if found.value is None:
                return found
            facts = facts_of(found.value)
        (passed,) = self._chains.ahead.run([Passed.start(item.id, found.value)])
        staged = _Staged(passed, text, facts)
        return replace(found, value=staged if self._chains.before else self._with_inputs(staged))

    def process(self, batch: Sequence[Prepared]) -> Sequence[Processed]:
        there = [prepared.value for prepared in batch if prepared.value is not None]
        answers = iter(self._encode(self._before(there)))
        return [next(answers) if prepared.value is not None else Processed("skipped") for prepared in batch]

    def close(self) -> None:
        super().close()
        self._chains.shutdown()

    def _before(self, items: Sequence[_Staged]) -> list[_Staged]:
        if not self._chains.before:
            return list(items)
        passed = self._chains.before.run(item.passed for item in items)
        return [self._with_inputs(replace(item, passed=one)) for item, one in zip(items, passed, strict=True)]

    def _with_inputs(self, item: _Staged) -> _Staged:
        """The pieces as the encoders want them; an encoder that refuses one refuses the item."""
        if item.passed.failure is not None:
            return item
        try:
            inputs = tuple(self._input(piece.value, item.text) for piece in item.passed.pieces)
            is_cut = len(inputs) > 1
            return replace(item, inputs=tuple(replace(one, facts=item.facts) if is_cut else one for one in inputs))
        except ItemError as error:
            return replace(item, passed=replace(item.passed, failure=error), inputs=())

    def _input(self, value: Any, text: str | None) -> RowInput:
        return RowInput(None, value, {}) if isinstance(value, str) else self.row_input(value, text)

    def _encode(self, items: Sequence[_Staged]) -> list[Processed]:
        alive = [item for item in items if item.passed.failure is None]
        started = time.perf_counter()
        encoded = encode_pieces(self._encoders, [item.inputs or () for item in alive], self._unit_sides)
        seconds = (time.perf_counter() - started) / max(1, len(alive))
        passed = [replace(item.passed, seconds={**item.passed.seconds, "encode": seconds}) for item in alive]
        done = iter(after_encoding(self._chains.behind, passed, encoded))
        return [
            _processed(*next(done)) if item.passed.failure is None else _processed(item.passed, item.passed.failure)
            for item in items
        ]


def _processed(passed: Passed, found: EncodedRow | ItemError) -> Processed:
    notes = {"notes": passed.notes} if passed.notes else {}
    if isinstance(found, ItemError):
        return Processed("failed", notes or None, ItemFailure.of(found), passed.seconds)
    rows, data = pack({side: row[np.newaxis] for side, row in found.sides.items()})
    return Processed("succeeded", {"rows": rows, **found.facts, **notes}, seconds=passed.seconds, data=data)
