"""What a job would do and cost, found out without writing to its output.

Layer: `cli.local`, beside `run`. Plans into a folder of this machine that goes away, and reads the output's ledger.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from pagemill_cli.local.run import open_ledger
from pagemill_cli.local.sample import Sample, SampleRequest, take_sample
from pagemill_core.api.workkey import work_key
from pagemill_core.ids import digest
from pagemill_core.storage.folder import FolderStore
from pagemill_core.storage.open import open_store
from pagemill_core.work.conditional import Writer
from pagemill_core.work.index import read_index
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.ledger import Held, Ledger
from pagemill_core.work.records import RunEntry
from pagemill_worker.environment import JobEnvironment, source_fetcher
from pagemill_worker.kinds import JobKind, kind_of
from pagemill_worker.plan.estimate import Estimate, EstimateInput, estimate
from pagemill_worker.plan.expand import FilePageCounter
from pagemill_worker.plan.known import IndexObject, KnownItems, KnownRules
from pagemill_worker.plan.planner import PlanResult, PlanTools, plan_source
from pagemill_worker.plan.reader import ShardReader
from pagemill_worker.plan.request import PlanRequest
from pagemill_worker.plan.retry import retry_request
from pagemill_worker.plan.spec import SpecContext
from pagemill_worker.plan.step import check_fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewRequest:
    """What the command line says. `sample` pages are read to time them, 0 for none; `memory_gb` is a function's.

    `log` is a file that takes what engine processes print.
    """

    processes: int
    environment: Mapping[str, str]
    sample: int = 0
    memory_gb: Decimal = Decimal(3)
    progress: Callable[[str], None] = lambda _: None
    log: Path = Path(os.devnull)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What `pagemill plan` shows. `standing` says how the output stands towards this job; `sample` is None untimed."""

    result: PlanResult
    estimate: Estimate
    sample: Sample | None
    standing: str
    warnings: tuple[str, ...]


def preview(environment: JobEnvironment, request: PreviewRequest) -> Preview:
    """Plan the job aside, time a sample, say what it costs.

    Raises: what planning the job would raise, OutputInUseError included.
    """
    job = environment.job
    kind = kind_of(environment)
    fields = kind.fingerprint_fields()
    writer = environment.writer(environment.open_output(), deadline_s=30.0)
    ledger = open_ledger(writer, "pagemill plan")
    newest = ledger.newest()
    if job.spec.output.effective_on_conflict != "Replace":
        check_fingerprint(writer, ledger, RunEntry(seq=2**31, work_key=work_key(job), kind=job.kind), fields)
    with tempfile.TemporaryDirectory(prefix="pagemill-plan-") as folder:
        aside = FolderStore(Path(folder) / "tables")
        plan = _plan_request(kind, environment, writer, request.processes)
        with _tools(environment, kind, writer, aside, Path(folder)) as tools:
            result = plan_source(plan, tools)
        reader = ShardReader(aside, result.parts)
        asked = SampleRequest(request.sample, request.processes, request.environment, request.log)
        request.progress(f"{result.items:,} items planned")
        sample = take_sample(environment, reader, result.items, asked) if request.sample else None
    return Preview(
        result=result,
        estimate=_estimate(environment, plan, result, sample, request),
        sample=sample,
        standing=_standing(ledger, newest, work_key(job), is_incremental=job.spec.effective_incremental),
        warnings=tuple(result.warnings),
    )


def _plan_request(kind: JobKind, environment: JobEnvironment, writer: Writer, processes: int) -> PlanRequest:
    source = environment.job.spec.source.retry_of
    retry = retry_request(writer, source.run) if source is not None else None
    return kind.request(SpecContext(slots=processes, retry=retry))


@contextmanager
def _tools(
    environment: JobEnvironment, kind: JobKind, writer: Writer, aside: FolderStore, folder: Path
) -> Iterator[PlanTools]:
    scratch = folder / "scratch"
    scratch.mkdir()
    fetcher = source_fetcher(environment.s3, environment.allowed_hosts)

    def fetch_url(uri: str) -> bytes:
        return fetcher.fetch(uri, max_bytes=kind.limits.max_bytes).data

    known = None
    index = read_index(writer) if environment.job.spec.effective_incremental else None
    if index is not None:
        parts = [IndexObject(part.key, part.size) for part in index.parts]
        rules = KnownRules(digest(kind.fingerprint_fields()), environment.job.spec.effective_retries.effective_per_item)
        known = KnownItems.load(writer.store, parts, rules, scratch)
    yield PlanTools(
        open_store=lambda uri: open_store(uri, environment.s3),
        count_pages=FilePageCounter(lambda uri: open_store(uri, environment.s3), fetch_url),
        store=aside,
        prefix="plan/",
        scratch=scratch,
        known=known,
    )


def _estimate(
    environment: JobEnvironment, plan: PlanRequest, result: PlanResult, sample: Sample | None, request: PreviewRequest
) -> Estimate:
    measured = sample.seconds_per_item if sample is not None and sample.items else None
    price = Decimal(environment.price_per_hour)
    return estimate(
        EstimateInput(
            items=result.items - result.failed,
            seconds_per_item=plan.cut.seconds_per_item if measured is None else measured,
            slots=request.processes,
            price_per_hour=price or None,
            function_memory_gb=request.memory_gb,
            is_sampled=measured is not None,
        )
    )


def _standing(ledger: Ledger, newest: Held | None, key: str, *, is_incremental: bool) -> str:
    """How the output stands towards this work, as a sentence."""
    if newest is None:
        return "nothing has been run on this output yet"
    if not newest.entry.is_final and newest.entry.work_key == key:
        return f"run {newest.run} of this work is open; `pagemill run` would go on with it"
    if not newest.entry.is_final:
        return f"run {newest.run} of other work is open; `pagemill run` would have to wait or replace it"
    finished = next((held for held in ledger.history() if _is_finished(held, key)), None)
    if finished is not None and not is_incremental:
        return f"run {finished.run} has finished this work; `pagemill run` would do nothing"
    return f"the newest run is {RunLayout(newest.run).run}, {newest.entry.state}"


def _is_finished(held: Held, key: str) -> bool:
    return held.entry.work_key == key and held.entry.state == "Finished"
