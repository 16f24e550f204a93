"""An engine that costs nothing: a page's text is its file's content, read in the supervisor's own process.

Layer: `worker.testing`. For fault tests that run the whole command hundreds of times. Everything but the engine and
its child processes is real; a page whose text is `die` kills its process, and with it the whole group, as a memory
limit does that kills a pod at once.
"""

from __future__ import annotations

import datetime as dt
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pagemill_core.errors import EngineFailed, ItemError, ItemKilledWorker
from pagemill_worker.fetch.local import LocalFetcher
from pagemill_worker.items import ItemFailure, ItemResult, PlannedItem
from pagemill_worker.ocr.engine import Engine, EngineAdapter, EngineSettings, EngineStatus, Region
from pagemill_worker.ocr.settings import OcrSettings
from pagemill_worker.views.row import OcrRow, to_payload
from pagemill_worker.work.pool import Answer, PoolSettings
from pagemill_worker.work.usage import PoolUsage

ADAPTER = "pagemill_worker.testing.instant:make_adapter"
FINISHED_AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)  # one instant for all, so that undisturbed runs give equal bytes
MAX_BYTES = 1 << 20
DIE, BREAK = "die", "break"


class InstantAdapter:
    """See the contract in `ocr.engine`; `load` is never called, since there is no child."""

    recipe_version = 1

    def __init__(self, name: str) -> None:
        self.name = name

    def check(self, settings: EngineSettings) -> None:
        """Agree to every job."""

    def fingerprint(self, settings: EngineSettings) -> dict[str, Any]:
        return {"engine": "instant", "languages": list(settings.languages)}

    def load(self, settings: EngineSettings) -> Engine:
        raise NotImplementedError("the instant pool has no child that could load an engine")

    def status(self) -> EngineStatus:
        return EngineStatus(self.name, True, "1", ("en",), (), ("cpu",))


def make_adapter(name: str, _paths: OcrSettings) -> EngineAdapter:
    """The adapter, by the name the registry knows it."""
    return InstantAdapter(name)


class InstantPool:
    """Has the interface of `work.pool.Pool`, without processes: one item is read at each poll, by `read`.

    `log` is a file that gets the id of each item begun, so that a test can count work done twice; an item that is
    still what an earlier run has read costs no work.
    """

    def __init__(
        self,
        settings: PoolSettings,
        deaths: Callable[[str], None] = lambda _: None,
        *,
        log: Path | None = None,
        read: Callable[[PlannedItem], Answer] | None = None,
    ) -> None:
        self.settings = settings
        self._log = log
        self._read = read or read_file
        self._queue: deque[PlannedItem] = deque()
        self._given_up: list[Answer] = []

    def __enter__(self) -> InstantPool:
        return self

    def start(self) -> None:
        """There is nothing to start."""

    def __exit__(self, *_: object) -> None:
        self._queue.clear()

    @property
    def hunger(self) -> int:
        return self.settings.processes * (self.settings.depth + 1) - len(self._queue)

    @property
    def is_idle(self) -> bool:
        return not (self._queue or self._given_up)

    def submit(self, item: PlannedItem, deaths: int = 0) -> None:
        if deaths > self.settings.max_deaths:
            failure = ItemFailure.of(ItemKilledWorker(f"{item.uri}: given up after {deaths} tries"))
            self._given_up.append(Answer(ItemResult(item, "failed", failure=failure), wants_memory=True))
        else:
            self._queue.append(item)

    def in_flight(self) -> list[int]:
        return [item.row for item in self._queue]

    def pids(self) -> list[int]:
        return []

    def usage(self) -> PoolUsage:
        return PoolUsage(waiting=len(self._queue))

    def poll(self, timeout_s: float) -> list[Answer]:
        answers, self._given_up = self._given_up, []
        if self._queue:
            answers.append(self._answer(self._queue[0]))
            self._queue.popleft()
        elif not answers:
            time.sleep(min(timeout_s, 0.001))
        return answers

    def drain(self) -> list[PlannedItem]:
        waiting = list(self._queue)
        self._queue.clear()
        return waiting

    def close(self) -> None:
        self._queue.clear()

    def _answer(self, item: PlannedItem) -> Answer:
        if is_unchanged(item):
            return Answer(ItemResult(item, "skipped", version_read=item.earlier_version))
        if self._log is not None:
            with self._log.open("a", encoding="utf-8") as log:
                log.write(f"{item.id}\n")
        return self._read(item)


def is_unchanged(item: PlannedItem) -> bool:
    """Whether the plan knows no version of an item, an earlier run read one, and the file still has it."""
    if item.version is not None or item.earlier_version is None:
        return False
    try:
        found = LocalFetcher().fetch_if_changed(item.uri, earlier_version=item.earlier_version, max_bytes=MAX_BYTES)
    except ItemError:
        return False
    return found is None


def read_file(item: PlannedItem) -> Answer:
    """The file's content as the page's text; `DIE` and `BREAK` do what they say."""
    try:
        fetched = LocalFetcher().fetch(item.uri, expected_version=item.version, max_bytes=MAX_BYTES)
    except ItemError as error:
        return Answer(ItemResult(item, "failed", failure=ItemFailure.of(error)))
    text = fetched.data.decode()
    if text == DIE:
        os.kill(os.getpid(), signal.SIGKILL)
    if text == BREAK:
        failure = ItemFailure.of(EngineFailed("instant raised ValueError (traceback 0123456789ab)"))
        return Answer(ItemResult(item, "failed", failure=failure, version_read=fetched.version))
    return succeed(item, text, fetched.version, len(fetched.data))


def succeed(item: PlannedItem, text: str, version: str | None = None, size_bytes: int = 0) -> Answer:
    """The answer of an engine that read `text`."""
    return Answer(
        ItemResult(item, "succeeded", payload=_payload(item, text), version_read=version), size_bytes=size_bytes
    )


def _payload(item: PlannedItem, text: str) -> Mapping[str, Any]:
    row = OcrRow(
        id=item.id,
        source_uri=item.uri,
        status="succeeded",
        engine_name="instant",
        engine_version="1",
        finished_at=FINISHED_AT,
        regions=(Region(text, 1.0, (0.0, 0.0, 10.0, 10.0)),),
        width_px=10,
        height_px=10,
        languages=("en",),
        page=item.page,
    )
    return to_payload(row)
