"""FolderStore between processes: a kill in the middle of a write shows nothing, and no swap is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pagemill_core.storage.folder import FolderStore

# Content that shows a half or a mixed write: one byte repeated, its length told by the byte.
WRITER = """
import sys
from pathlib import Path
from pagemill_core.storage.folder import FolderStore

store = FolderStore(Path(sys.argv[1]))
way = sys.argv[2]
print("ready", flush=True)
number = 0
while True:
    number += 1
    letter = number % 26
    data = bytes([97 + letter]) * (200_000 + letter)
    key = f"k/{number % 3}"
    if way == "put":
        store.put(key, data, meta={"letter": str(letter)})
    elif way == "create":
        store.put_if_absent(f"{key}/{number}", data, meta={"letter": str(letter)})
    else:
        found = store.head(key)
        if found is None:
            store.put_if_absent(key, data, meta={"letter": str(letter)})
        else:
            store.put_if_match(key, data, found.token, meta={"letter": str(letter)})
"""
COUNTER = """
import sys
from pathlib import Path
from pagemill_core.storage.folder import FolderStore

store = FolderStore(Path(sys.argv[1]), fsync=False)
left = 40
while left:
    blob = store.get("counter")
    if store.put_if_match("counter", b"%d" % (int(blob.data) + 1), blob.token) is not None:
        left -= 1
"""


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("way", ["put", "create", "swap"])
def test_writer_killed_anywhere_leaves_only_whole_objects(tmp_path: Path, way: str) -> None:
    store = FolderStore(tmp_path)
    seen = 0
    for delay_s in (0.003, 0.011, 0.023, 0.037, 0.052):
        with start(WRITER, str(tmp_path), way) as writer:
            assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
            time.sleep(delay_s)  # the point of the kill: where in a write it falls is chance, and shall be
            writer.send_signal(signal.SIGKILL)
        for found in store.list(""):
            blob = store.get(found.key)
            letter = blob.data[0] - 97
            assert blob.data == bytes([97 + letter]) * (200_000 + letter)
            assert dict(blob.meta) == {"letter": str(letter)}
            seen += 1
    assert seen
    store.put("k/0/after" if way == "create" else "after", b"the lock died with its holder")


def test_swaps_of_several_processes_lose_no_update(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put("counter", b"0")

    counters = [start(COUNTER, str(tmp_path)) for _ in range(4)]
    for counter in counters:
        with counter:
            assert counter.wait(60) == 0

    assert store.get("counter").data == b"160"
