"""The job that tries exactly the failed items of an earlier run again.

Layer: `cli.output`; decides only. A retry is work of its own on the same output: another key, the same kind and
fingerprint, so views of pages that succeeded before stay, and of a page's rows in the dataset the newest counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from pagemill_cli.output.standing import ledger_of
from pagemill_cli.output.target import Target, no_run
from pagemill_core.api.v1alpha1 import Job, OcrJob
from pagemill_core.api.v1alpha1.limits import Retries
from pagemill_core.api.v1alpha1.source import EmbeddingSource, OcrSource, RetryOfSource
from pagemill_core.api.workkey import work_key
from pagemill_core.errors import OutputBusyError
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.ledger import Held
from pagemill_core.work.plan import read_plan
from pagemill_worker.plan.retry import committed_rows, is_incurable


@dataclass(frozen=True, slots=True)
class RetryPlan:
    """What a retry would do: `job` is None when no item can be retried. `incurable` are faults of the source's rows."""

    run: str
    failed: int
    incurable: int
    job: Job | None


def plan_retry(target: Target, job: Job) -> RetryPlan:
    """The retry of the newest run on the output, or the one that is already under way.

    Raises: ObjectNotFoundError without any run; OutputBusyError when the newest run has not finished.
    """
    history = list(ledger_of(target).history())
    if not history:
        raise no_run(target)
    base = _base(target, job, history)
    failed = incurable = 0
    for result in committed_rows(target.writer, base.run, only_failed=True):
        failed += 1
        incurable += is_incurable(result)
    wanted = retry_job(job, base.run) if failed > incurable else None
    return RetryPlan(base.run, failed, incurable, wanted)


def retry_job(job: Job, run: str) -> Job:
    """`job` over the failed items of `run`, with the same engine or models, output and pages.

    Without maxItems and incremental, which would leave items out. All of its items may fail again: maxFailedItems is a
    share of all items, and would end a retry of pages that are simply bad.
    """
    spec = job.spec
    pages = spec.source.images or spec.source.manifest or spec.source.retry_of
    retry_of = RetryOfSource(run=run, pdf_dpi=pages.pdf_dpi if pages else None)
    source = OcrSource(retry_of=retry_of) if isinstance(job, OcrJob) else EmbeddingSource(retry_of=retry_of)
    retries = (spec.retries or Retries()).model_copy(update={"max_failed_items": "100%"})
    changes = {
        "source": source,
        "output": spec.output.model_copy(update={"files": spec.effective_files}),
        "retries": retries,
        "max_items": None,
        "incremental": None,
        "depends_on": None,
    }
    return job.model_copy(update={"spec": spec.model_copy(update=changes)})


def _base(target: Target, job: Job, history: list[Held]) -> Held:
    """The run whose failed items are meant: the newest, unless that is a retry which did not finish."""
    newest = history[0]
    if newest.entry.state == "Finished":
        return newest
    for earlier in history[1:]:
        is_final = earlier.entry.state == "Finished"
        if is_final and work_key(retry_job(job, earlier.run)) == newest.entry.work_key:
            return earlier
    planned = read_plan(target.writer, RunLayout(newest.run)) is not None
    raise OutputBusyError(
        f"run {newest.entry.seq} on {target.uri} is {newest.entry.state}{'' if planned else ' and has no plan'}: "
        "it is not known yet which of its items fail",
        advice="finish it first: pagemill run does what is missing and what failed",
    )
