"""From a job's file on disk to an environment its steps can run in.

Layer: `cli`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from pagemill_cli.settings import CliSettings
from pagemill_core.api.load import read_jobs as parse_jobs
from pagemill_core.api.v1alpha1 import Job
from pagemill_core.errors import InvalidSpecError
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.work.pod import s3_settings
from pagemill_worker.environment import JobEnvironment


@dataclass(frozen=True, slots=True)
class JobsOfFile:
    """The jobs of a file; `base` is the folder that its relative paths start from."""

    jobs: tuple[Job, ...]
    warnings: tuple[str, ...]
    base: Path


def read_jobs(path: str) -> JobsOfFile:
    """The jobs of a file ("-": standard input).

    Raises: InvalidSpecError with every problem and its place.
    """
    if path == "-":
        text, base = sys.stdin.read(), Path.cwd()
    else:
        file = Path(path)
        try:
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise InvalidSpecError(f"{path}: there is no such file", advice="name a job's YAML file") from error
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidSpecError(f"{path} cannot be read: {error}") from error
        base = file.resolve().parent
    loaded = parse_jobs(text, origin=path)
    return JobsOfFile(tuple(loaded.jobs), tuple(str(warning) for warning in loaded.warnings), base)


def store_settings(job: Job, settings: CliSettings) -> S3Settings:
    """How the job's store is reached from here: as a pod would, with this command's settings over the file's."""
    found = s3_settings(job.spec.effective_storage, region=settings.s3_region)
    ours = {
        "endpoint": settings.s3_endpoint,
        "region": settings.s3_region,
        "access_key": settings.s3_access_key,
        "secret_key": settings.s3_secret_key if settings.s3_access_key else None,
        "ca_path": Path(settings.s3_ca_file) if settings.s3_ca_file else None,
    }
    return found.model_copy(update={name: value for name, value in ours.items() if value})


def environment_of(job: Job, file: JobsOfFile, settings: CliSettings, api_key: str = "") -> JobEnvironment:
    """The environment of a job on this machine. Raises: InvalidSpecError for a source in a job of another file."""
    return JobEnvironment(
        job=job,
        base=file.base,
        s3=store_settings(job, settings),
        api_key=SecretStr(api_key) if api_key else settings.api_key,
        allowed_hosts=tuple(host.strip() for host in settings.allowed_hosts.split(",") if host.strip()),
        price_per_hour=str(settings.price_per_hour),
        source_uri=_source_uri(job, file),
    )


def _source_uri(job: Job, file: JobsOfFile) -> str:
    """The output of the job that the source names, "" when it names none."""
    named = job.spec.source_job
    if named is None:
        return ""
    found = (each for each in file.jobs if (each.kind, each.metadata.name) == (named.kind, named.name))
    uri = next((each.spec.output.uri for each in found), None)
    if uri is None:
        raise InvalidSpecError(
            f"{job.metadata.name}: the source names {named.kind} {named.name}, which is not in this file",
            advice="put both jobs into one file, or name the other one's output: source.ocrJob.uri",
        )
    return uri if "://" in uri else str(file.base / uri)
