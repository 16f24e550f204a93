"""The entry point of worker pods: `pagemill-worker plan|work|finalize`.

Layer: the worker's edge: reads the process's environment, turns errors into exit codes and last words.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from pagemill_core.errors import EXIT_BUG, EXIT_DRAINED, PagemillError
from pagemill_core.work.pod import TERMINATION_PATH, LastWords, PodStep, PodTask
from pagemill_worker import logs
from pagemill_worker.metrics import WorkerMetrics
from pagemill_worker.pod import Pod, environment_of

log = logging.getLogger("pagemill.pod")


class PodSettings(BaseSettings):
    """Settings of the worker image itself, read from the environment with the prefix PAGEMILL_."""

    model_config = SettingsConfigDict(env_prefix="PAGEMILL_", frozen=True, extra="ignore")

    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR")
    metrics_port: int = Field(default=0, ge=0, le=65535, description="port of /metrics; 0: none")
    termination_path: Path = Field(default=TERMINATION_PATH, description="where last words are left")


def main() -> int:
    """Run one pod. Returns: the exit status: 0 only when the whole step is done, 143 when it was asked to stop."""
    settings = PodSettings()
    logs.set_up(settings.log_level)
    stopping = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        task = _task()
        metrics = WorkerMetrics()
        if settings.metrics_port:
            metrics.serve(settings.metrics_port)
        done = Pod(task, environment_of(task), dict(os.environ), stopping, metrics).run()
        return 0 if done else EXIT_DRAINED
    except PagemillError as error:
        log.error("Step failed", extra={"reason": error.reason, "error": error.message, "advice": error.advice})
        _leave(settings.termination_path, LastWords.of(error))
        return error.exit_code
    except Exception as error:
        log.exception("Step failed by a bug")
        _leave(settings.termination_path, LastWords(reason="Bug", message=f"{type(error).__name__}: see the pod's log"))
        return EXIT_BUG


def _task() -> PodTask:
    given = {"PAGEMILL_STEP": PodStep(sys.argv[1]).value} if len(sys.argv) > 1 else {}
    return PodTask.from_env({**os.environ, **given})


def _leave(path: Path, words: LastWords) -> None:
    """Leave last words where Kubernetes looks for them; elsewhere there is nobody to read them."""
    if path.parent.is_dir() and os.access(path if path.exists() else path.parent, os.W_OK):
        path.write_bytes(words.to_bytes())


if __name__ == "__main__":
    sys.exit(main())
