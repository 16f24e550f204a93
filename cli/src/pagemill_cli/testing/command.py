"""The command itself, run inside this process: what a person would type, and everything that came of it.

Layer: `cli.testing`. Nothing is replaced: arguments are parsed, settings read from the environment, engine processes
started, and errors told, by the code that does so for users.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

from pagemill_cli.main import main
from pagemill_core.storage.s3_settings import S3Settings


@dataclass(frozen=True, slots=True)
class Told:
    """How a command ended: its exit status, standard output and standard error."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output of `--output json`."""
        return json.loads(self.out)

    @property
    def all(self) -> str:
        return f"exit {self.status}\n{self.out}\n{self.err}"


def run_command(*words: object, environment: Mapping[str, str] | None = None) -> Told:
    """`pagemill words…` with `environment` added to the process's own; needs the main thread, for its signals."""
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with (
        mock.patch.dict(os.environ, environment or {}),
        mock.patch.object(sys, "argv", ["pagemill", *map(str, words)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ending:
            status = ending.code if isinstance(ending.code, int) else 1
    return Told(status, out.getvalue(), err.getvalue())


def s3_environment(settings: S3Settings) -> dict[str, str]:
    """The command's settings for a store reached as `settings` say."""
    return {
        "PAGEMILL_S3_ENDPOINT": settings.endpoint,
        "PAGEMILL_S3_ACCESS_KEY": settings.access_key,
        "PAGEMILL_S3_SECRET_KEY": settings.secret_key.get_secret_value(),
        "PAGEMILL_S3_REGION": settings.region,
    }
