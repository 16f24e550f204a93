"""A whole job in one call: plan, work and finalize on this machine, as `pagemill run` does.

Layer: `pagemill`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pagemill.output import Output, read
from pagemill_cli.job_file import JobsOfFile, environment_of
from pagemill_cli.local.run import RunOptions, run_job
from pagemill_cli.settings import read_settings
from pagemill_core.api.v1alpha1 import EmbeddingJob
from pagemill_core.errors import InvalidSpecError, StoreUnavailableError
from pagemill_worker.work.step import default_processes

SOURCES = ("dataset", "images", "manifest", "texts", "books")


def process_dataset(
    input_uri: str,
    output_uri: str,
    model: str,
    *,
    source: str = "dataset",
    text_model: str = "",
    workers: int | None = None,
    batch_size: int | None = None,
    max_samples: int | None = None,
    formats: Sequence[str] = ("parquet",),
    spec: dict[str, Any] | None = None,
) -> Output:
    """Encode what lies at `input_uri` and give the output. Call it again at any time: only what is missing is done.

    `model` makes vectors of pictures, `text_model` of texts ("" for none): names of the registry, or addresses. For
    `source="texts"` `model` is the text model. `workers` is how many processes work; default: this machine's cores.
    `spec` holds further fields of an EmbeddingJob and wins. Items that fail are in `Output.failures()`.
    A script guards the call by `if __name__ == "__main__":`; a notebook need not.

    Raises: InvalidSpecError; what a run raises; StoreUnavailableError when it ended before everything was done.
    """
    if source not in SOURCES:
        raise InvalidSpecError(f"source: {source} is none of {', '.join(SOURCES)}")
    encoders = {"text": model} if source == "texts" else {"visual": model, "text": text_model}
    batch = {"batchSize": batch_size} if batch_size else {}
    job = _job(
        {
            "source": {source: {"uri": input_uri}},
            **{side: {"model": _model(name), **batch} for side, name in encoders.items() if name},
            "output": {"uri": output_uri, "formats": list(formats)},
            "retries": {"maxFailedItems": "100%"},
            **({"maxItems": max_samples} if max_samples else {}),
            **(spec or {}),
        }
    )
    environment = environment_of(job, JobsOfFile((job,), (), Path.cwd()), read_settings())
    options = RunOptions(processes=workers or default_processes(), environment=dict(os.environ))
    result = run_job(environment, options)
    if result.outcome.reason not in ("", "TooManyFailures"):
        raise StoreUnavailableError(
            f"the run ended early: {result.outcome.reason}: {result.outcome.message}",
            advice="call it again: what is committed stays",
        )
    return read(environment.absolute(output_uri))


def _job(spec: dict[str, Any]) -> EmbeddingJob:
    document = {"apiVersion": "pagemill.dev/v1alpha1", "kind": "EmbeddingJob", "metadata": {"name": "process-dataset"}}
    try:
        return EmbeddingJob.model_validate_json(json.dumps({**document, "spec": spec}))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InvalidSpecError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _model(named: str) -> dict[str, str]:
    is_address = "://" in named or named.startswith(("/", "./", "../"))
    return {"uri": named} if is_address else {"name": named}
