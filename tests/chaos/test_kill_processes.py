"""kill -9 of real processes at random moments, with a real engine: of the whole group, of one child, of the command.

Moments are drawn from a seed, but what a process does at a moment is the machine's choice; the promises hold at all.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from PIL import Image, ImageDraw, ImageFont

from pagemill_cli.testing.forked_runs import ForkedRuns, Running, folder_in_memory
from pagemill_cli.testing.job_folder import JobFolder
from pagemill_cli.testing.promises import broken_promises, marker_tokens, take_picture
from pagemill_core.storage.folder import FolderStore

SEED = 3
WORDS = ("paper", "mill", "river", "ink", "press", "letter", "binding", "margin", "column", "volume")
ACTS = {"short": 24, "long": 400}
COMPLETE, INTERRUPTED, KILLED = 0, 130, -9
CHILD = "pagemill_worker.work.child"
SPEC: dict[str, Any] = {
    "engine": {"name": "tesseract", "languages": ["en"]},
    "sharding": {"itemsPerShard": 3},
    # Kills that come as thick as here look like a page's doing: with the default of 2 it would be given up on.
    "retries": {"perItem": 20},
}


class Stage:
    def __init__(self, root: Path) -> None:
        names = [f"{word}{number}" for word in WORDS for number in range(3)]
        self.folder = JobFolder(root, dict.fromkeys(names), SPEC)
        self.names = names
        self.store = FolderStore(self.folder.output, fsync=False)
        for name in names:
            draw_page(root / "pages" / f"{name}.png", name.rstrip("0123456789"))

    def start(self, processes: int = 2) -> Running:
        forked = ForkedRuns.shared()
        plain = forked.request("run", str(self.folder.file), "--quiet", "-p", str(processes))
        return forked.start(replace(plain, real_engine=True))

    def texts(self) -> dict[str, tuple[str, str]]:
        return {row["id"]: (row["status"], row["text"]) for row in take_picture(self.store).rows}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with folder_in_memory() as root:
        yield Stage(root)


def draw_page(path: Path, word: str) -> None:
    page = Image.new("RGB", (420, 120), "white")
    ImageDraw.Draw(page).text((20, 20), word, fill="black", font=ImageFont.load_default(60))
    page.save(path)


def children_of(pid: int) -> list[int]:
    """The engine processes of a command."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                stat = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                line = (folder / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(stat[1]) == pid and CHILD.encode() in line:
                found.append(int(folder.name))
    return found


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(pids: list[int], timeout_s: float = 20.0) -> list[int]:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and any(map(is_running, pids)):
        time.sleep(0.02)
    return [pid for pid in pids if is_running(pid)]


def act(mode: str, running: Running, rng: random.Random) -> None:
    """Do to a running command what `mode` says, and wait until it has ended."""
    children = children_of(running.pid)
    if mode == "child" and children:
        kill(rng.choice(children))
    elif mode == "group":
        for pid in (*children, running.pid):
            kill(pid)
    elif mode == "command":
        kill(running.pid)
    elif mode == "terminate":
        os.kill(running.pid, signal.SIGTERM)
    ended = running.wait()
    wanted = {"child": {COMPLETE}, "terminate": {COMPLETE, INTERRUPTED}}.get(mode, {COMPLETE, KILLED})
    assert ended.status in wanted, f"{mode}: {ended}"
    assert wait_until_gone(children) == [], f"{mode}: engine processes outlived their command"


def test_processes_killed_at_random_moments_leave_no_trace(
    stage: Stage, chaos_length: Literal["short", "long"]
) -> None:
    rng = random.Random(SEED)
    assert stage.start().wait().status == COMPLETE
    want = stage.texts()
    assert sum(text == name.rstrip("0123456789") for name, (_, text) in want.items()) > len(want) // 2
    stage.folder.clear()
    acts = 0
    while acts < ACTS[chaos_length]:
        mode = rng.choice(("group", "group", "command", "child", "terminate"))
        moment_s = rng.uniform(0.05, 2.5)
        sys.stdout.write(f"seed {SEED}, act {acts}: {mode} after {moment_s:.2f} s\n")
        tokens = marker_tokens(stage.store) if stage.folder.output.exists() else {}
        running = stage.start()
        time.sleep(moment_s)
        act(mode, running, rng)
        acts += 1
        assert tokens.items() <= marker_tokens(stage.store).items(), "a marker was overwritten"
        if (stage.folder.output / "report.html").exists():
            check_and_clear(stage, want)
    check_and_clear(stage, want)


def check_and_clear(stage: Stage, want: dict[str, tuple[str, str]]) -> None:
    assert stage.start().wait().status == COMPLETE
    assert broken_promises(stage.store, stage.names) == []
    assert stage.texts() == want
    stage.folder.clear()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "terminate"])
def test_command_as_users_start_it_takes_its_children_with_it_and_goes_on(stage: Stage, number: signal.Signals) -> None:
    stage.folder.clear()
    line = [sys.executable, "-m", "pagemill_cli.main", "run", str(stage.folder.file), "--quiet", "-p", "2"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while len(children := children_of(process.pid)) < 2 or not list(stage.store.list(".pagemill/0")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate()
    assert process.returncode in (-number, INTERRUPTED, COMPLETE)
    assert wait_until_gone(children) == []

    again = subprocess.run(line, capture_output=True, check=False)
    assert again.returncode == COMPLETE, again.stderr
    assert broken_promises(stage.store, stage.names) == []
