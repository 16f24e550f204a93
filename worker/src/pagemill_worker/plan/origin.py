"""What an EmbeddingJob over `source.retryOf` is a retry of: its items are those of the run's own source.

Layer: `worker.plan`. A retry's file names a run and no source, yet whether items are books, how their text is written
and whether rows are normalised follow from the source. The plan that is retried knows it.
"""

from __future__ import annotations

import json

from pagemill_core.api.v1alpha1 import EmbeddingJob
from pagemill_core.api.v1alpha1.source import EmbeddingSource
from pagemill_core.errors import IntegrityError
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.plan import read_plan
from pagemill_worker.environment import JobEnvironment

MAX_RETRIES_OF_RETRIES = 1000


def original_job(environment: JobEnvironment, job: EmbeddingJob) -> EmbeddingJob:
    """`job` with the source that its `retryOf` goes back to, for whoever needs to know what its items are.

    Unchanged when it has another source, or when there is no such run: planning says so.
    Raises: IntegrityError for a plan that records no valid source.
    """
    source = job.spec.source
    for _ in range(MAX_RETRIES_OF_RETRIES):
        if source.retry_of is None:
            return job.model_copy(update={"spec": job.spec.model_copy(update={"source": source})})
        writer = environment.writer(environment.open_output())
        pointer = read_plan(writer, RunLayout(source.retry_of.run))
        if pointer is None or "source" not in pointer.work:
            return job
        try:
            source = EmbeddingSource.model_validate_json(json.dumps(pointer.work["source"]))
        except ValueError as error:
            raise IntegrityError(f"the plan of run {pointer.run} records no valid source") from error
    return job
