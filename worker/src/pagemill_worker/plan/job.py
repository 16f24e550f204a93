"""Planning a job's run: what is asked of the source, and what earlier runs on the output have done already.

Layer: the top of `worker.plan`, above `step`. Used by a plan pod and by `pagemill run` alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pagemill_core.storage.folder import FolderStore
from pagemill_core.work.conditional import Writer
from pagemill_core.work.index import read_index
from pagemill_core.work.layout import run_id
from pagemill_core.work.ledger import Ledger
from pagemill_core.work.records import PlanPointer, RunEntry
from pagemill_worker.environment import JobEnvironment
from pagemill_worker.plan.identity import probe_folding
from pagemill_worker.plan.known import IndexObject
from pagemill_worker.plan.request import Folding, ItemsRequest, PlanRequest
from pagemill_worker.plan.retry import retry_request
from pagemill_worker.plan.spec import SpecContext
from pagemill_worker.plan.step import PlanInput, PlanKind, check_fingerprint, plan_step


@dataclass(frozen=True)
class PlanCaller:
    """Who plans: the run's entry with the given-up runs before it, and how many items will be worked on at once."""

    ledger: Ledger
    entry: RunEntry
    predecessors: tuple[RunEntry, ...]
    slots: int
    on_progress: Callable[[int], None] = lambda _: None


class JobPlanning(PlanKind, Protocol):
    """What planning a job's run asks of its kind."""

    def request(self, context: SpecContext) -> PlanRequest: ...


def plan_job(environment: JobEnvironment, kind: JobPlanning, writer: Writer, caller: PlanCaller) -> PlanPointer:
    """Plan the run unless it has a plan. Raises: as `plan_step`, and OutputInUseError for another fingerprint."""
    spec = environment.job.spec
    if spec.output.effective_on_conflict != "Replace":
        check_fingerprint(writer, caller.ledger, caller.entry, kind.fingerprint_fields())
    given_up = tuple(run_id(entry.seq, entry.work_key) for entry in caller.predecessors)
    retry = _retry(environment, writer, given_up)
    request = kind.request(SpecContext(slots=caller.slots, retry=retry, folding=_folding(writer)))
    # A retry names its items itself; held against the index, every other item would look gone from the source.
    known = _index(writer) if retry is None and spec.effective_incremental else None
    asked = PlanInput(caller.entry, request, known, given_up, caller.on_progress)
    return plan_step(environment, kind, writer, asked)


def _retry(environment: JobEnvironment, writer: Writer, given_up: tuple[str, ...]) -> ItemsRequest | None:
    """The items of `source.retryOf`, less what given-up runs of this retry have done."""
    source = environment.job.spec.source.retry_of
    return None if source is None else retry_request(writer, source.run, given_up)


def _index(writer: Writer) -> tuple[IndexObject, ...]:
    index = read_index(writer)
    return tuple(IndexObject(part.key, part.size) for part in index.parts) if index else ()


def _folding(writer: Writer) -> Folding:
    """Which different names the output takes for one: a question for folders only."""
    return probe_folding(writer.store.root) if isinstance(writer.store, FolderStore) else "none"
