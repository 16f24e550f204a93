"""An output, named by a job's file or by its own URI, opened for the commands that look at it.

Layer: `cli.output`, its bottom.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pagemill_cli.job_file import environment_of, read_jobs
from pagemill_cli.settings import CliSettings
from pagemill_core.api.v1alpha1 import KINDS, Job
from pagemill_core.clock import SystemClock
from pagemill_core.errors import IntegrityError, InvalidSpecError, ObjectNotFoundError
from pagemill_core.storage.open import open_store
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout, run_id
from pagemill_core.work.records import PlanPointer, RunEntry
from pagemill_worker.environment import JobEnvironment
from pagemill_worker.finalize.committed import CommittedRun
from pagemill_worker.kinds import kind_of

PATIENCE_S = 5.0  # a person waits for these commands, and stores retry plain reads by themselves


@dataclass(frozen=True)
class Target:
    """An output that can be read. `environment` is the job's when a file named it; `named` is what the user typed."""

    named: str
    writer: Writer
    s3: S3Settings
    settings: CliSettings
    environment: JobEnvironment | None = None

    @property
    def uri(self) -> str:
        return self.writer.store.uri

    def environment_of_run(self, pointer: PlanPointer) -> JobEnvironment:
        """The job as that run was planned, with this machine's ways to reach things."""
        job = job_of_plan(pointer)
        output = job.spec.output.model_copy(update={"uri": self.uri})
        job = job.model_copy(update={"spec": job.spec.model_copy(update={"output": output})})
        if self.environment is not None:
            return replace(self.environment, job=job)
        hosts = tuple(host.strip() for host in self.settings.allowed_hosts.split(",") if host.strip())
        return JobEnvironment(job, Path.cwd(), self.s3, self.settings.api_key, hosts, clock=self.writer.clock)

    def kind(self, pointer: PlanPointer) -> CommittedRun:
        """What reads and renders the committed data of that run."""
        return kind_of(self.environment_of_run(pointer)).reader(self.writer, pointer)


def open_target(named: str, settings: CliSettings, job_name: str = "") -> Target:
    """The output that `named` stands for: a URI, an existing folder, or a job's file.

    `job_name` chooses among the jobs of a file. Raises: InvalidSpecError.
    """
    if "://" in named or (named != "-" and Path(named).is_dir()):
        s3 = bare_s3(settings)
        store = open_store(named, s3)
        return Target(named, Writer(store, SystemClock(), deadline_s=PATIENCE_S), s3, settings)
    environment = environment_of_file(named, settings, job_name)
    writer = environment.writer(environment.open_output(), deadline_s=PATIENCE_S)
    return Target(named, writer, environment.s3, settings, environment)


def environment_of_file(file: str, settings: CliSettings, job_name: str = "", api_key: str = "") -> JobEnvironment:
    """The one job of a file, or the one of that name. Raises: InvalidSpecError."""
    found = read_jobs(file)
    return environment_of(_chosen(found.jobs, file, job_name), found, settings, api_key)


def bare_s3(settings: CliSettings) -> S3Settings:
    """How a store is reached that no job's file describes: by the environment alone."""
    return S3Settings(
        endpoint=settings.s3_endpoint,
        region=settings.s3_region,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key,
        ca_path=Path(settings.s3_ca_file) if settings.s3_ca_file else None,
    )


def job_of_plan(pointer: PlanPointer) -> Job:
    """The job whose work a plan recorded, defaults elsewhere. Raises: IntegrityError, InvalidSpecError."""
    kind = KINDS.get(pointer.kind)
    if kind is None:
        raise InvalidSpecError(f"run {pointer.run} is of kind {pointer.kind}, which this release does not know")
    spec = {name: value for name, value in pointer.work.items() if name != "kind"}
    try:
        return kind.model_validate_json(
            json.dumps({"kind": pointer.kind, "metadata": {"name": pointer.run}, "spec": spec}, ensure_ascii=False)
        )
    except ValueError as error:
        raise IntegrityError(f"the plan of run {pointer.run} records work that is no valid job") from error


def no_run(target: Target) -> ObjectNotFoundError:
    """What to raise when the output's ledger is empty."""
    return ObjectNotFoundError(
        f"{target.uri} holds no run",
        advice="check the URI, or start one: pagemill run job.yaml",
    )


def layout_of(entry: RunEntry) -> RunLayout:
    """The keys of a ledger entry's run."""
    return RunLayout(run_id(entry.seq, entry.work_key))


def _chosen(jobs: Sequence[Job], file: str, job_name: str) -> Job:
    found = [job for job in jobs if not job_name or job.metadata.name == job_name]
    if len(found) == 1:
        return found[0]
    names = ", ".join(str(job.metadata.name) for job in jobs)
    if not found:
        raise InvalidSpecError(f"{file} holds no job named {job_name}", advice=f"it holds: {names}")
    raise InvalidSpecError(f"{file} holds several jobs: {names}", advice="choose one with --job NAME")
