"""From a job's file on disk to an environment its steps can run in.

Layer: `cli`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import SecretStr

from pagemill_cli.settings import CliSettings
from pagemill_core.api.load import read_jobs as parse_jobs
from pagemill_core.api.v1alpha1 import Job
from pagemill_core.errors import InvalidSpecError
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.work.pod import s3_settings
from pagemill_worker.environment import JobEnvironment


def read_jobs(path: str) -> tuple[list[Job], list[str], Path]:
    """The jobs of a file ("-": standard input), warnings, and the folder its relative paths start from.

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
    return list(loaded.jobs), [str(warning) for warning in loaded.warnings], base


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


def environment_of(job: Job, base: Path, settings: CliSettings, api_key: str = "") -> JobEnvironment:
    """The environment of a job on this machine."""
    return JobEnvironment(
        job=job,
        base=base,
        s3=store_settings(job, settings),
        api_key=SecretStr(api_key) if api_key else settings.api_key,
        allowed_hosts=tuple(host.strip() for host in settings.allowed_hosts.split(",") if host.strip()),
        price_per_hour=str(settings.price_per_hour),
    )
