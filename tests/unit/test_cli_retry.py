"""Which run `pagemill retry` is about, and what the job it makes keeps of the first one."""

from __future__ import annotations

import pytest

from pagemill_cli.output.retry import plan_retry, retry_job
from pagemill_cli.testing.made_runs import FAILED, SUCCEEDED, MadeOutput
from pagemill_core.api.v1alpha1 import OcrJob
from pagemill_core.api.workkey import work_key
from pagemill_core.errors import InvalidSpecError, ObjectNotFoundError, OutputBusyError
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.work.ledger import Held, Ledger, Owner, WorkRequest
from pagemill_worker.ocr.job import image_limits
from pagemill_worker.plan.retry import retry_request

OUTCOMES = {"a": SUCCEEDED, "b": FAILED, "c": FAILED}
JOB = OcrJob.model_validate_json(
    """{"kind": "OcrJob", "metadata": {"name": "j"}, "spec": {
        "source": {"manifest": {"uri": "m.csv", "pdfDpi": 300}},
        "output": {"uri": "out", "formats": ["json"]},
        "maxItems": 10, "incremental": true,
        "retries": {"maxFailedItems": "1%", "waves": 5},
        "dependsOn": [{"kind": "OcrJob", "name": "other"}]
    }}"""
)


@pytest.fixture
def made() -> MadeOutput:
    return MadeOutput(MemoryStore(), FakeClock())


def claim_retry(made: MadeOutput, run: str, owner: str = "me") -> Held:
    ledger = Ledger(made.writer, Owner(owner))
    return ledger.adopt(WorkRequest(work_key=work_key(retry_job(JOB, run)), kind="OcrJob")).held


def test_retry_is_about_the_failed_items_of_the_newest_run(made: MadeOutput) -> None:
    made.finish({"a": FAILED})
    newest = made.finish(OUTCOMES)

    found = plan_retry(made.target, JOB)

    assert (found.run, found.failed, found.incurable) == (newest.run, 2, 0)
    assert found.job is not None
    assert [item.id for item in retry_request(made.writer, found.run).items] == ["b", "c"]


def test_retry_job_keeps_engine_output_and_pixels_and_may_fail_again() -> None:
    spec = retry_job(JOB, "00000001-01234567").spec

    assert spec.source.retry_of is not None
    assert spec.source.retry_of.run == "00000001-01234567"
    assert image_limits(retry_job(JOB, "00000001-01234567")).pdf_dpi == 300
    assert (spec.max_items, spec.incremental, spec.depends_on) == (None, None, None)
    assert spec.effective_files == JOB.spec.effective_files == "Partitioned"
    assert spec.effective_retries.effective_waves == 5
    assert spec.effective_retries.failure_limit.allowed(7) == 7
    assert OcrJob.model_validate_json(retry_job(JOB, "00000001-01234567").model_dump_json(exclude_none=True))


def test_retry_of_a_run_without_failures_has_nothing_to_do(made: MadeOutput) -> None:
    made.finish({"a": SUCCEEDED})

    assert plan_retry(made.target, JOB).job is None


def test_retry_cut_short_goes_on_with_the_same_run(made: MadeOutput) -> None:
    base = made.finish(OUTCOMES)
    retry = claim_retry(made, base.run)

    again = plan_retry(made.target, JOB)

    assert again.run == base.run
    assert again.job is not None
    assert work_key(again.job) == retry.entry.work_key


def test_retry_that_was_given_up_is_done_again_less_what_it_did(made: MadeOutput) -> None:
    base = made.finish(OUTCOMES)
    retry = claim_retry(made, base.run)
    made.commit(made.plan(retry, ["b", "c"]), 0, {"b": SUCCEEDED, "c": FAILED})
    made.end(retry, "GivenUp", "EngineBroken")

    again = plan_retry(made.target, JOB)

    assert again.run == base.run
    assert [item.id for item in retry_request(made.writer, again.run, [retry.run]).items] == ["c"]


@pytest.mark.parametrize("state", ["Open", "GivenUp"])
def test_retry_of_work_that_is_not_finished_is_refused(made: MadeOutput, state: str) -> None:
    held = made.claim()
    if state == "GivenUp":
        made.end(held, state, "TooManyFailures")

    with pytest.raises(OutputBusyError, match="not known yet"):
        plan_retry(made.target, JOB)


def test_retry_on_an_empty_output_says_that_it_holds_no_run(made: MadeOutput) -> None:
    with pytest.raises(ObjectNotFoundError):
        plan_retry(made.target, JOB)


def test_retry_of_an_unknown_run_is_refused(made: MadeOutput) -> None:
    with pytest.raises(InvalidSpecError, match=r"retryOf\.run"):
        retry_request(made.writer, "00000009-01234567")
