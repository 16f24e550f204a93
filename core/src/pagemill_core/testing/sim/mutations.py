"""Planted bugs: one for each rule of the protocol, each of which the simulation must catch.

Layer: `core.testing.sim`. A mutation patches the protocol's code while it is entered. A rule whose breaking nobody
notices is not tested; the test over `MUTATIONS` is the test of the simulation itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any
from unittest import mock

from pagemill_core.clock import from_iso
from pagemill_core.errors import StoreUnavailableError
from pagemill_core.testing.sim import mutations_of_results
from pagemill_core.testing.sim.registry import MUTATIONS, Mutation, mutation, mutation_at
from pagemill_core.work import commit, conditional, finalize, ledger, plan
from pagemill_core.work.conditional import Created, Swapped, Writer
from pagemill_core.work.ledger import Held, Ledger
from pagemill_core.work.records import RunEntry

__all__ = ["MUTATIONS", "Mutation", "mutations_of_results"]

_in = mock.patch.object
_create_once = conditional.create_once
_swap_once = conditional.swap_once


# -- conditional writes ----------------------------------------------------------------------------------------------


@mutation_at("/commit/")
def exists_means_lost() -> Iterator[Any]:
    """412 is taken as "somebody else", without asking whose marker it is."""

    def mutant(writer: Writer, key: str, data: bytes, _is_mine: Any) -> Created:
        return _create_once(writer, key, data, lambda _found: False)

    yield _in(commit, "create_once", mutant)


@mutation_at("/commit/")
def exists_means_won() -> Iterator[Any]:
    """412 is taken as "I, a moment ago", without asking."""

    def mutant(writer: Writer, key: str, data: bytes, _is_mine: Any) -> Created:
        created = _create_once(writer, key, data, lambda _found: True)
        return Created(True, data, created.token)

    yield _in(commit, "create_once", mutant)


@mutation
def no_answer_means_lost() -> Iterator[Any]:
    """A timeout is taken as a failure, and whoever is there then as the winner."""

    def mutant(writer: Writer, key: str, data: bytes, _is_mine: Any) -> Created:
        try:
            token = writer.store.put_if_absent(key, data)
        except StoreUnavailableError:
            _create_once(writer, key, data, lambda _found: True)
            token = None
        found = writer.retrying(lambda: writer.store.get(key))
        return Created(token is not None, found.data, found.token)

    yield _in(commit, "create_once", mutant)


@mutation_at("/commit/")
def no_answer_means_won() -> Iterator[Any]:
    """A timeout is taken as a success."""

    def mutant(writer: Writer, key: str, data: bytes, is_mine: Any) -> Created:
        try:
            token = writer.store.put_if_absent(key, data)
        except StoreUnavailableError:
            return Created(True, data, "")
        return Created(True, data, token) if token else _create_once(writer, key, data, is_mine)

    yield _in(commit, "create_once", mutant)


@mutation
def marker_overwritten() -> Iterator[Any]:
    """The marker is put, whatever is there."""

    def mutant(writer: Writer, key: str, data: bytes, _is_mine: Any) -> Created:
        return Created(True, data, writer.put(key, data))

    yield _in(commit, "create_once", mutant)


@mutation
def plan_overwritten() -> Iterator[Any]:
    """The plan's pointer is put, whatever is there."""

    def mutant(writer: Writer, key: str, data: bytes, _is_mine: Any) -> Created:
        return Created(True, data, writer.put(key, data))

    yield _in(plan, "create_once", mutant)


@mutation
def success_overwritten() -> Iterator[Any]:
    """Each finalizer puts its own `_SUCCESS.json`."""

    def mutant(writer: Writer, key: str, data: bytes, _is_mine: Any) -> Created:
        return Created(True, data, writer.put(key, data))

    yield _in(finalize, "create_once", mutant)


@mutation
def entry_changed_without_token() -> Iterator[Any]:
    """The ledger entry is put, whoever changed it meanwhile."""

    def mutant(writer: Writer, key: str, data: bytes, _token: str, _is_mine: Any) -> Swapped:
        return Swapped(True, writer.put(key, data))

    yield _in(ledger, "swap_once", mutant)


@mutation
def entry_changed_with_a_fresh_token() -> Iterator[Any]:
    """After losing a swap, the same old content is written again with the newest token."""

    def mutant(writer: Writer, key: str, data: bytes, token: str, is_mine: Any) -> Swapped:
        swapped = _swap_once(writer, key, data, token, is_mine)
        return swapped if swapped.won else _swap_once(writer, key, data, swapped.token, is_mine)

    yield _in(ledger, "swap_once", mutant)


# -- the ledger ------------------------------------------------------------------------------------------------------


@mutation
def owner_ignored() -> Iterator[Any]:
    """Whoever asks takes the run."""
    yield _in(Ledger, "is_unowned", lambda _self, _held: True)


@mutation
def expiry_by_wall_clock() -> Iterator[Any]:
    """A take-over compares `expiresAt` with the reader's own wall clock."""

    def mutant(self: Ledger, held: Held) -> bool:
        entry = held.entry
        return not entry.owner or from_iso(entry.expires_at) < self._writer.clock.now()

    yield _in(Ledger, "is_unowned", mutant)


@mutation
def epoch_kept_at_take_over() -> Iterator[Any]:
    """A take-over does not raise the epoch."""
    change = Ledger.change

    def mutant(self: Ledger, held: Held, **fields: Any) -> Held | None:
        fields.pop("epoch", None)
        return change(self, held, **fields)

    yield _in(Ledger, "change", mutant)


@mutation
def repeated_pass_claims() -> Iterator[Any]:
    """An incremental job whose own run finished claims another one at each pass."""
    yield _in(Ledger, "_last_finished_by_me", lambda _self, _seq: None)


@mutation
def given_up_is_not_final() -> Iterator[Any]:
    """A given-up run may be gone on with."""
    yield _in(RunEntry, "is_final", property(lambda entry: entry.state == "Finished"))


@mutation
def claimed_while_another_is_open() -> Iterator[Any]:
    """Run n is claimed although run n-1 goes on."""

    def mutant(self: Ledger, held: Held, request: Any) -> Any:
        return self._claim(held.entry.seq + 1, request, ())

    yield _in(Ledger, "_adopt_open", mutant)


@mutation
def edited_spec_blocks_itself() -> Iterator[Any]:
    """My own open run of other work is treated as somebody else's."""
    adopt_open = Ledger._adopt_open

    def mutant(self: Ledger, held: Held, request: Any) -> Any:
        if held.entry.work_key != request.work_key and not request.replace:
            raise self._busy(held.entry)
        return adopt_open(self, held, request)

    yield _in(Ledger, "_adopt_open", mutant)


@mutation_at("plan.json")
def predecessors_forgotten_on_resuming() -> Iterator[Any]:
    """A controller that comes back before there is a plan no longer knows what the plan leaves out."""
    adopt_open = Ledger._adopt_open

    def mutant(self: Ledger, held: Held, request: Any) -> Any:
        adoption = adopt_open(self, held, request)
        return None if adoption is None else dataclasses.replace(adoption, predecessors=())

    yield _in(Ledger, "_adopt_open", mutant)


@mutation
def only_the_last_given_up_run_is_left_out() -> Iterator[Any]:
    """Of several given-up runs in a row, the plan leaves out what the newest did."""
    past = Ledger._past

    def mutant(self: Ledger, request: Any, last_seq: int) -> Any:
        found = past(self, request, last_seq)
        return dataclasses.replace(found, given_up=found.given_up[:1])

    yield _in(Ledger, "_past", mutant)


@mutation
def given_up_by_anyone() -> Iterator[Any]:
    """Another's open run is given up without being asked to replace it."""
    adopt_open = Ledger._adopt_open

    def mutant(self: Ledger, held: Held, request: Any) -> Any:
        if held.entry.work_key != request.work_key:
            self.change(held, state="GivenUp", reason="Superseded", owner="")
            return None
        return adopt_open(self, held, request)

    yield _in(Ledger, "_adopt_open", mutant)
