"""Planted secrets: in no object, log, report, message, argument or environment of an engine process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFont

from pagemill_cli.testing.job_folder import JobFolder
from pagemill_core.storage.s3 import S3Store
from pagemill_core.testing.fault_proxy import FaultProxy, ProxyRates, ProxyRule
from pagemill_core.testing.seaweed import SeaweedServer

pytestmark = pytest.mark.s3
API_KEY = "planted-api-key-7c1d0a"
OTHER = "planted-other-4f2b9e"
TOKEN = "planted-session-token-55aa"
NAMES = [f"page{number}" for number in range(6)]
CHILD = b"pagemill_worker.work.child"


@dataclass
class Stage:
    folder: JobFolder
    store: S3Store
    proxy: FaultProxy
    secrets: dict[str, str]
    environment: dict[str, str]

    def command(self, *more: str) -> list[str]:
        log = str(self.folder.root / "engine.log")
        return [sys.executable, "-m", "pagemill_cli.main", "run", str(self.folder.file), "-p", "2", "--log", log, *more]

    def found_in(self, what: str, data: bytes) -> list[str]:
        return [f"{name} in {what}" for name, secret in self.secrets.items() if secret.encode() in data]

    def leaks(self, told: bytes) -> list[str]:
        found = self.found_in("output of the command", told)
        found += self.found_in("log", (self.folder.root / "engine.log").read_bytes())
        for info in self.store.list(""):
            found += self.found_in(info.key, info.key.encode() + self.store.get(info.key).data)
        return found


@pytest.fixture
def stage(tmp_path: Path, s3_server: SeaweedServer) -> Iterator[Stage]:
    store = s3_server.fresh_store()
    settings = s3_server.server.settings("worker")
    secret_key = settings.secret_key.get_secret_value()
    secrets = {"S3 secret key": secret_key, "API key": API_KEY, "session token": TOKEN, "other secret": OTHER}
    environment = {
        **os.environ,
        "PAGEMILL_S3_ACCESS_KEY": settings.access_key,
        "PAGEMILL_S3_SECRET_KEY": secret_key,
        "OPENROUTER_API_KEY": API_KEY,
        "AWS_SESSION_TOKEN": TOKEN,
        "DATABASE_PASSWORD": OTHER,
    }
    with FaultProxy(s3_server.endpoint, seed=1) as proxy:
        yield Stage(JobFolder(tmp_path, dict.fromkeys(NAMES)), store, proxy, secrets, environment)
    store.close()


def set_job(stage: Stage, **spec: Any) -> None:
    for name in NAMES[1:]:
        page = Image.new("RGB", (300, 100), "white")
        ImageDraw.Draw(page).text((20, 20), "page", fill="black", font=ImageFont.load_default(50))
        page.save(stage.folder.root / "pages" / f"{name}.png")
    store = {"output": {"uri": stage.store.uri}, "storage": {"endpoint": stage.proxy.endpoint}}
    stage.folder.set_spec({**store, "sharding": {"itemsPerShard": 1}, **spec})


def processes_under(pid: int) -> Iterator[Path]:
    """/proc folders of a process and of its children."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                parent = int((folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if pid in (parent, int(folder.name)):
                yield folder


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def watch(stage: Stage, process: subprocess.Popen[bytes]) -> tuple[list[str], int]:
    """Leaks in arguments and in engine processes' environments while a command runs, and how many of those ran."""
    found: set[str] = set()
    children: set[str] = set()
    while process.poll() is None:
        for folder in processes_under(process.pid):
            line = read(folder / "cmdline")
            found.update(stage.found_in("arguments", line))
            if CHILD in line:
                children.add(folder.name)
                found.update(stage.found_in("an engine process's environment", read(folder / "environ")))
        time.sleep(0.05)
    return sorted(found), len(children)


def test_secrets_of_a_run_with_faults_appear_nowhere(stage: Stage) -> None:
    set_job(stage, engine={"name": "tesseract"}, output={"uri": stage.store.uri, "formats": ["json", "text", "hocr"]})
    stage.proxy.set_rules([ProxyRule(ProxyRates(slow_down=0.1, reset=0.05, conflict=0.05))])
    with subprocess.Popen(
        stage.command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=stage.environment
    ) as process:
        found, children = watch(stage, process)
        told, _ = process.communicate()
    assert process.returncode == 0, told
    assert children >= 2
    assert found == []
    assert stage.leaks(told) == []


def test_secrets_of_a_refused_run_appear_nowhere(stage: Stage) -> None:
    set_job(stage, engine={"name": "tesseract"})
    stage.proxy.set_rules([ProxyRule(ProxyRates(denied=1.0))])
    ended = subprocess.run(stage.command("--output", "json"), capture_output=True, env=stage.environment, check=False)
    assert ended.returncode == 77, ended
    assert stage.leaks(ended.stdout + ended.stderr) == []


class Parrot(BaseHTTPRequestHandler):
    """An endpoint that refuses everything and repeats the caller's key in its message."""

    status = 400

    def do_POST(self) -> None:  # noqa: N802 - the base class's name
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.dumps({"error": {"message": f"bad request of {self.headers['Authorization']}"}}).encode()
        self.send_response(self.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("status", [400, 401, 403])
def test_secrets_repeated_by_a_remote_engine_appear_nowhere(stage: Stage, status: int) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Told", (Parrot,), {"status": status}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        set_job(
            stage,
            engine={"name": "vlm", "model": "some/model", "endpoint": f"http://127.0.0.1:{server.server_port}/v1"},
            retries={"maxFailedItems": "100%", "itemTimeoutSeconds": 5, "perItem": 0},
        )
        with subprocess.Popen(
            stage.command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=stage.environment
        ) as process:
            found, _ = watch(stage, process)
            told, _ = process.communicate()
    finally:
        server.shutdown()
        server.server_close()
    assert process.returncode in (0, 77), told
    assert found == []
    assert stage.leaks(told) == []
