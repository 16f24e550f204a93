"""The plan step of a job: tables under an attempt, then one pointer that makes them count.

Layer: the top of `worker.plan`. Several planners may race or die; the first pointer decides, and tables that no
pointer names are never read.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pagemill_core.api.workkey import work_of
from pagemill_core.clock import iso
from pagemill_core.errors import OutputInUseError, SourceError
from pagemill_core.ids import digest, ulid
from pagemill_core.storage.open import open_store
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout, run_id
from pagemill_core.work.ledger import Ledger
from pagemill_core.work.plan import create_plan, read_plan
from pagemill_core.work.records import PlanPointer, RunEntry
from pagemill_worker.environment import JobEnvironment, source_fetcher
from pagemill_worker.images.limits import ImageLimits
from pagemill_worker.items import PlannedItem
from pagemill_worker.plan.expand import FilePageCounter
from pagemill_worker.plan.given_up import GivenUpItems, KnownByAny
from pagemill_worker.plan.known import IndexObject, Known, KnownItems, KnownRules
from pagemill_worker.plan.planner import PlanResult, PlanTools, plan_source
from pagemill_worker.plan.reader import ShardReader
from pagemill_worker.plan.request import PlanRequest


@dataclass(frozen=True)
class PlanInput:
    """What planning needs besides the job.

    `known` is the item index when earlier runs are subtracted, `given_up` the given-up runs of this very work.
    """

    entry: RunEntry
    request: PlanRequest
    known: tuple[IndexObject, ...] | None = None
    given_up: tuple[str, ...] = ()
    on_progress: Callable[[int], None] = lambda _: None


class PlanKind(Protocol):
    """What planning asks of a kind of job; see `kinds.kind`."""

    @property
    def limits(self) -> ImageLimits: ...

    def fingerprint_fields(self) -> dict[str, Any]: ...


def check_fingerprint(writer: Writer, ledger: Ledger, entry: RunEntry, fields: dict[str, Any]) -> None:
    """Refuse to mix results: the newest finished run on the output must have the same fingerprint.

    Raises: OutputInUseError, whose message says what differs.
    """
    for held in ledger.history():
        earlier = held.entry
        if earlier.seq == entry.seq or earlier.state != "Finished":
            continue
        pointer = read_plan(writer, RunLayout(held.run))
        if pointer is not None and pointer.fingerprint_fields != fields:
            raise OutputInUseError(
                f"run {earlier.seq} on {writer.store.uri} was made with other settings: "
                + "; ".join(differences(pointer.fingerprint_fields, fields)),
                advice="write to another output.uri, or set output.onConflict to Replace",
            )
        return


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Where two JSON values differ, as `path: old → new`."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = sorted(old.keys() | new.keys())
        inner = (differences(old.get(name), new.get(name), f"{path}.{name}".lstrip(".")) for name in names)
        return [line for lines in inner for line in lines]
    return [] if old == new else [f"{path}: {old!r} → {new!r}"]


def plan_step(environment: JobEnvironment, kind: PlanKind, writer: Writer, asked: PlanInput) -> PlanPointer:
    """Plan the run, unless another planner was faster. Returns: the plan that counts.

    Raises: SourceError, EngineUnavailableError, InvalidSpecError; nothing written so far then counts.
    """
    layout = RunLayout(run_id(asked.entry.seq, asked.entry.work_key))
    fields = kind.fingerprint_fields()
    fingerprint = digest(fields)
    attempt = ulid(int(writer.clock.now().timestamp() * 1000))
    with tempfile.TemporaryDirectory(prefix="pagemill-plan-") as scratch:
        fetch_url = _fetch_url(environment, kind.limits)
        tools = PlanTools(
            open_store=lambda uri: open_store(uri, environment.s3),
            count_pages=FilePageCounter(lambda uri: open_store(uri, environment.s3), fetch_url),
            store=writer.store,
            prefix=layout.plan_attempt(attempt),
            scratch=Path(scratch),
            known=_known(environment, writer, asked, fingerprint, Path(scratch)),
            on_progress=asked.on_progress,
            fetch_url=fetch_url,
        )
        result = plan_source(asked.request, tools)
    pointer = PlanPointer(
        run=layout.run,
        attempt=attempt,
        kind=environment.job.kind,
        work_key=asked.entry.work_key,
        work=work_of(environment.job),
        fingerprint=fingerprint,
        fingerprint_fields=fields,
        planned_at=iso(writer.clock.now()),
        subtracted=list(asked.given_up),
        **_facts(result),
    )
    return create_plan(writer, layout, pointer)


def _fetch_url(environment: JobEnvironment, limits: ImageLimits) -> Callable[[str], bytes]:
    fetcher = source_fetcher(environment.s3, environment.allowed_hosts)
    return lambda uri: fetcher.fetch(uri, max_bytes=limits.max_bytes).data


def _known(environment: JobEnvironment, writer: Writer, asked: PlanInput, mark: str, scratch: Path) -> Known | None:
    parts: list[Known] = []
    if asked.known is not None:
        rules = KnownRules(mark, environment.job.spec.effective_retries.effective_per_item)
        parts.append(KnownItems.load(writer.store, asked.known, rules, scratch))
    if asked.given_up:
        folder = scratch / "given-up"
        folder.mkdir()
        parts.append(GivenUpItems.load(writer, asked.given_up, mark, folder))
    return KnownByAny(tuple(parts)) if parts else None


def _facts(result: PlanResult) -> dict[str, Any]:
    if result.shards and not result.parts:
        raise SourceError("the plan has shards without tables")
    return {
        "items": result.items,
        "shards": result.shards,
        "failed_at_plan": result.failed,
        "tombstones": result.tombstones,
        "already_done": result.already_done,
        "column_types": dict(result.columns),
        "source_uri": result.source_uri,
        "parts": list(result.parts),
        "columns": list(result.columns),
        "warnings": list(result.warnings),
    }


class PlanItems:
    """Planned items by shard, for several threads."""

    def __init__(self, writer: Writer, pointer: PlanPointer) -> None:
        self._reader = ShardReader(writer.store, pointer.parts)
        self._lock = threading.Lock()

    def __call__(self, shard: int) -> list[PlannedItem]:
        with self._lock:
            return self._reader.items(shard)
