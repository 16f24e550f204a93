"""The ledger of one output: which runs there were, which one is open, and who works on it.

Layer: `core.work`. Ownership only saves work; correctness rests on the markers. Each run has one entry, created once
and then changed by compare-and-swap alone; every change carries a nonce in `write`, so that a lost reply is
recognised as won.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pagemill_core.clock import iso
from pagemill_core.errors import IntegrityError, OutputBusyError
from pagemill_core.ids import ulid
from pagemill_core.work import layout
from pagemill_core.work.conditional import Writer, create_once, swap_once
from pagemill_core.work.records import Holder, RunEntry

COLLECTED = "Collected"  # the reason of a finished run whose data was removed because newer runs hold all of it
EXPIRY_S = 600.0
RENEW_EVERY_S = 180.0


@dataclass(frozen=True, slots=True)
class Owner:
    """Who asks: `id` is the CR's uid or the invocation's ulid, `name` what a person would recognise."""

    id: str
    name: str = ""
    holder: Holder = Holder()


@dataclass(frozen=True, slots=True)
class WorkRequest:
    """The work somebody wants done on an output."""

    work_key: str
    kind: str
    incremental: bool = False
    replace: bool = False


class Standing(StrEnum):
    """What a request found: work to go on with, or work that is already done."""

    RESUMED = "Resumed"
    CLAIMED = "Claimed"
    COMPLETE = "Complete"


@dataclass(frozen=True, slots=True)
class Held:
    """A ledger entry with the token it had, the only ticket to change it."""

    entry: RunEntry
    token: str

    @property
    def run(self) -> str:
        return layout.run_id(self.entry.seq, self.entry.work_key)


@dataclass(frozen=True, slots=True)
class Adoption:
    """The run that answers a request. `predecessors` are the given-up runs of the same work that it may subtract,
    newest first: each of them left out what the ones before it had done."""

    standing: Standing
    held: Held
    predecessors: tuple[RunEntry, ...] = ()

    @property
    def predecessor(self) -> RunEntry | None:
        return self.predecessors[0] if self.predecessors else None


@dataclass(frozen=True, slots=True)
class _Past:
    """Earlier runs of some work, looking back only to the last run of another kind or fingerprint.

    `finished` is the newest of them if it finished, `given_up` are those since the work was last finished.
    """

    finished: Held | None
    given_up: tuple[RunEntry, ...]


class Ledger:
    """Reads and changes the runs of one output.

    `is_gone` says whether an entry's holder is a dead process of this very machine; it only shortens waiting.
    Not shared by threads.
    """

    def __init__(self, writer: Writer, owner: Owner, is_gone: Callable[[Holder], bool] = lambda _: False) -> None:
        self._writer = writer
        self._owner = owner
        self._is_gone = is_gone
        self._final: dict[int, Held] = {}  # entries that never change again, so that looking back is cheap
        self._seen: dict[int, tuple[str, float]] = {}  # seq -> (token, monotonic second it was first seen)

    # -- reading ----------------------------------------------------------------------------------------------------

    def runs(self) -> list[int]:
        """The sequence numbers of all runs, newest first."""
        infos = self._writer.listing(layout.RUNS_PREFIX)
        seqs = (layout.seq_of_run_entry(info.key) for info in infos)
        return sorted((seq for seq in seqs if seq is not None), reverse=True)

    def read(self, seq: int) -> Held:
        """Run `seq` as it is now. Raises: IntegrityError when the ledger has no such run."""
        key = layout.run_entry(seq)
        blob = self._writer.get(key)
        if blob is None:
            raise IntegrityError(f"the ledger has no run {seq} ({key})")
        held = Held(RunEntry.from_bytes(blob.data, key), blob.token)
        if held.entry.is_final:
            self._final[seq] = held
        seen = self._seen.get(seq)
        if seen is None or seen[0] != held.token:
            self._seen[seq] = (held.token, self._writer.clock.monotonic_s())
        return held

    def history(self) -> Iterator[Held]:
        """Every run, newest first."""
        return (self.read(seq) for seq in self.runs())

    def newest(self) -> Held | None:
        """The newest run, None for a new output."""
        seqs = self.runs()
        return self.read(seqs[0]) if seqs else None

    def is_mine(self, entry: RunEntry) -> bool:
        return entry.owner == self._owner.id

    def is_unowned(self, held: Held) -> bool:
        """Whether nobody works on this run any more: released, its process dead, or unchanged for the expiry.

        Unchanged is judged on this reader's own monotonic clock, never by comparing two machines' clocks.
        """
        if not held.entry.owner or self._is_gone(held.entry.holder):
            return True
        seen = self._seen.get(held.entry.seq)
        return seen is not None and self._writer.clock.monotonic_s() - seen[1] >= EXPIRY_S

    # -- adopting ---------------------------------------------------------------------------------------------------

    def adopt(self, request: WorkRequest) -> Adoption:
        """Find or claim the run that does `request`, looking at what is there first.

        Safe to repeat: a repeated call by the same owner finds what the first one made.
        Raises: OutputBusyError, naming the owner and the way out, while another run is open.
        """
        while True:
            newest = self.newest()
            if newest is None:
                adoption = self._claim(1, request, ())
            elif not newest.entry.is_final:
                adoption = self._adopt_open(newest, request)
            else:
                adoption = self._adopt_final(newest, request)
            if adoption is not None:
                return adoption

    def _adopt_open(self, held: Held, request: WorkRequest) -> Adoption | None:
        entry = held.entry
        if entry.work_key == request.work_key:
            if not self.is_mine(entry) and not self.is_unowned(held):
                raise self._busy(entry)
            taken = self._take(held)
            if taken is None:
                return None
            return Adoption(Standing.RESUMED, taken, self._past(request, entry.seq - 1).given_up)
        if self.is_mine(entry) or request.replace or (self.is_unowned(held) and not self._has_marker(held)):
            self.change(held, state="GivenUp", reason="Superseded", owner="")
            return None
        raise self._busy(entry)

    def _adopt_final(self, newest: Held, request: WorkRequest) -> Adoption | None:
        past = self._past(request, newest.entry.seq)
        if past.finished is not None and not request.incremental:
            return Adoption(Standing.COMPLETE, past.finished)
        mine = self._last_finished_by_me(newest.entry.seq)
        if mine is not None and mine.entry.work_key == request.work_key:
            # A repeated pass. The newest run alone does not show it: another job may have run here since, and two
            # incremental jobs of the same work would claim runs in turn for ever.
            return Adoption(Standing.COMPLETE, mine)
        return self._claim(newest.entry.seq + 1, request, past.given_up)

    def _past(self, request: WorkRequest, last_seq: int) -> _Past:
        of_work: list[Held] = []
        fingerprint = ""
        for held in self._back_from(last_seq):
            entry = held.entry
            if entry.kind != request.kind:
                break
            if entry.state == "Finished":
                if fingerprint and entry.fingerprint != fingerprint:
                    break
                fingerprint = entry.fingerprint
            if entry.work_key == request.work_key:
                of_work.append(held)
                if entry.state == "Finished":
                    break
        finished = of_work[0] if of_work and of_work[0].entry.state == "Finished" else None
        return _Past(finished, tuple(held.entry for held in of_work if held.entry.state == "GivenUp"))

    def _last_finished_by_me(self, last_seq: int) -> Held | None:
        finished = (held for held in self._back_from(last_seq) if held.entry.state == "Finished")
        return next((held for held in finished if self.is_mine(held.entry)), None)

    def _back_from(self, last_seq: int) -> Iterator[Held]:
        return (self._final.get(seq) or self.read(seq) for seq in range(last_seq, 0, -1))

    def _claim(self, seq: int, request: WorkRequest, given_up: tuple[RunEntry, ...]) -> Adoption | None:
        now = self._writer.clock.now()
        entry = RunEntry(
            seq=seq,
            work_key=request.work_key,
            kind=request.kind,
            created_at=iso(now),
            **self._ownership(now),
        )
        key = layout.run_entry(seq)
        created = create_once(
            self._writer, key, entry.to_bytes(), lambda data: RunEntry.from_bytes(data, key).write == entry.write
        )
        if not created.won:
            return None
        return Adoption(Standing.CLAIMED, Held(entry, created.token), given_up)

    def _has_marker(self, held: Held) -> bool:
        prefix = layout.RunLayout(held.run).markers_prefix
        return bool(self._writer.listing(prefix, limit=1))

    def _busy(self, entry: RunEntry) -> OutputBusyError:
        who = entry.owner_name or entry.owner or "nobody now, but it has committed work"
        return OutputBusyError(
            f"run {entry.seq} on {self._writer.store.uri} is {entry.state} and held by {who}",
            advice="wait until it ends, let its owner finish or cancel it, run `pagemill release` on the output, "
            "or set output.onConflict to Replace",
        )

    # -- changing ---------------------------------------------------------------------------------------------------

    def change(self, held: Held, **fields: Any) -> Held | None:
        """Write `held` with `fields` changed. Returns: the new entry, or None when somebody else changed it first."""
        now = self._writer.clock.now()
        entry = held.entry.model_copy(update={**fields, "write": self._nonce(now)})
        if entry.is_final and not entry.finished_at:
            entry = entry.model_copy(update={"finished_at": iso(now)})
        key = layout.run_entry(entry.seq)
        swapped = swap_once(
            self._writer,
            key,
            entry.to_bytes(),
            held.token,
            lambda data: RunEntry.from_bytes(data, key).write == entry.write,
        )
        return Held(entry, swapped.token) if swapped.won else None

    def renew(self, held: Held, active_seconds: float) -> Held:
        """Say that this owner is still at work, adding `active_seconds` since the last renewal.

        Keeps what others may change (`desired`). Raises: OutputBusyError when the run was taken over or ended.
        """
        beat = held.entry.beat
        while True:
            self._require_mine(held.entry)
            if held.entry.beat > beat:
                return held  # renewed by our own write, whose reply was lost before somebody else's change
            now = self._writer.clock.now()
            renewed = self.change(
                held,
                beat=held.entry.beat + 1,
                expires_at=iso(now + dt.timedelta(seconds=EXPIRY_S)),
                active_seconds=round(held.entry.active_seconds + active_seconds, 3),
            )
            if renewed is not None:
                return renewed
            held = self.read(held.entry.seq)

    def update(self, held: Held, **fields: Any) -> Held:
        """Change fields of a run that is ours, whatever else changed in it. Raises: OutputBusyError when it is not."""
        while True:
            self._require_mine(held.entry)
            changed = self.change(held, **fields)
            if changed is not None:
                return changed
            held = self.read(held.entry.seq)

    def request(self, seq: int, **fields: Any) -> Held:
        """Change `desired` of an open run that may be another's; its owner acts on it. Raises: IntegrityError."""
        while True:
            held = self.read(seq)
            if held.entry.is_final:
                return held
            changed = self.change(held, **fields)
            if changed is not None:
                return changed

    def _take(self, held: Held) -> Held | None:
        if self.is_mine(held.entry):
            return held
        ownership = self._ownership(self._writer.clock.now())
        return self.change(held, **{**ownership, "epoch": held.entry.epoch + 1, "desired": "Run"})

    def _require_mine(self, entry: RunEntry) -> None:
        if not self.is_mine(entry) or entry.is_final:
            raise self._busy(entry)

    def _ownership(self, now: dt.datetime) -> dict[str, Any]:
        return {
            "owner": self._owner.id,
            "owner_name": self._owner.name,
            "holder": self._owner.holder,
            "expires_at": iso(now + dt.timedelta(seconds=EXPIRY_S)),
            "write": self._nonce(now),
        }

    def _nonce(self, now: dt.datetime) -> str:
        return ulid(int(now.timestamp() * 1000), self._writer.rng.randbytes)
