"""Worker pods without a node: each is the worker's own program, started as a kubelet would start it.

Layer: `worker.testing`. Mounts become folders, the termination log a file; nothing else differs from a real pod but
its isolation. A script for whoever plays a cluster's pods.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pagemill_core.work.pod import COMPLETION_INDEX_ENV, PodTask

PROCESSES = 2  # at once; the others wait for their turn, as on a small node


@dataclass(frozen=True, slots=True)
class PodEnding:
    """How a pod ended: its exit code and what it left in its termination log."""

    code: int
    words: str = ""


@dataclass(frozen=True, slots=True)
class _Running:
    process: subprocess.Popen[bytes]
    folder: Path
    log: IO[bytes]


class PodProcesses:
    """Runs pods below `folder`, each in a folder of its name with `log` and `words`.

    `environment` is what the image and the node give to every pod: the store's identity, for instance. `secrets` are
    the folders that stand for the namespace's Secrets, by name.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], secrets: Mapping[str, Path] | None = None) -> None:
        self._folder = folder
        self._environment = environment
        self._secrets = secrets or {}
        self._running: dict[str, _Running] = {}
        self._ended: set[str] = set()

    def step(self, pod: str, task: PodTask, job_json: str) -> PodEnding | None:
        """Start the pod, or see whether it has ended: how, or None while it goes on."""
        running = self._running.get(pod)
        if running is None:
            if pod not in self._ended and len(self._running) < PROCESSES:
                self._running[pod] = self._start(pod, task, job_json)
            return None
        code = running.process.poll()
        if code is None:
            return None
        self._forget(pod)
        words = running.folder / "words"
        return PodEnding(code, words.read_text(encoding="utf-8") if words.exists() else "")

    def log(self, pod: str) -> str:
        """What the pod has printed so far."""
        return (self._folder / pod / "log").read_text(encoding="utf-8")

    def end(self, pod: str) -> None:
        """End a pod and all its processes at once, as when its grace period is over. Idempotent."""
        running = self._running.get(pod)
        if running is not None:
            os.killpg(running.process.pid, signal.SIGKILL)
            running.process.wait()
            self._forget(pod)

    def close(self) -> None:
        """End every pod that still runs."""
        for pod in list(self._running):
            self.end(pod)

    def _forget(self, pod: str) -> None:
        self._running.pop(pod).log.close()
        self._ended.add(pod)

    def _start(self, pod: str, task: PodTask, job_json: str) -> _Running:
        folder = self._folder / pod
        folder.mkdir(parents=True)
        (folder / "job.json").write_text(job_json, encoding="utf-8")
        secret = ((json.loads(job_json)["spec"].get("storage") or {}).get("secretRef") or {}).get("name", "")
        mounted = {"job_path": folder / "job.json", "store_secret_path": self._secrets.get(secret)}
        told = task.model_copy(update=mounted).to_env()
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ},
            **self._environment,
            **told,
            COMPLETION_INDEX_ENV: str(task.completion_index),
            "PAGEMILL_TERMINATION_PATH": str(folder / "words"),
        }
        log = (folder / "log").open("wb")
        command = [sys.executable, "-m", "pagemill_worker.main", task.step.value]
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        return _Running(process, folder, log)
