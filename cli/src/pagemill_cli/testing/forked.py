"""A server process that runs the real `pagemill` command in forks of itself, and kills them where a test says.

Layer: `cli.testing`. Importing the command takes most of a second, so hundreds of kills would take minutes; a fork of a
process that has imported it costs milliseconds. The server is single-threaded when it forks. In the fork the output's
store is wrapped, the engine is the instant one, and everything else is what users run.

Started by `forked_runs.ForkedRuns` as `python -m pagemill_cli.testing.forked`; one numbered request a line on standard
input, one answer with its number a line on standard output: the pid of what was started, or how the pid
asked for ended.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
import pyarrow.dataset  # noqa: F401 - Parquet readers load it late; see `_warm_up`

import pagemill_cli.local.run as run_module
import pagemill_worker.environment as environment_module
import pagemill_worker.fetch.http as http_module
import pagemill_worker.kinds.embedding as embedding_module
from pagemill_cli import main as command
from pagemill_cli.testing.strikes import Forked, Strike, point_name
from pagemill_core.errors import StoreUnavailableError
from pagemill_core.storage.folder import FolderStore
from pagemill_core.storage.open import open_store
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.storage.store import ObjectStore
from pagemill_core.testing.fault_store import FaultStore, Hooks
from pagemill_core.testing.full_store import FullStore
from pagemill_worker.ocr import registry
from pagemill_worker.testing.instant import ADAPTER, InstantPool
from pagemill_worker.testing.instant_encoder import instant_fingerprint, reader_of
from pagemill_worker.work.pool import PoolSettings

_LATE = ("pagemill_core.storage.s3", "rich._emoji_codes", "importlib.readers", "typer._adapters")
_OPERATION_S = 1.0  # no operation on a folder takes longer; one that raised is never seen to end
_PROBE = ".pagemill/probe"


class _Striker:
    """Strikes at the points a request names, and notes every operation when asked to."""

    def __init__(self, strikes: tuple[Strike, ...], operations: Path | None) -> None:
        self._strikes = strikes
        self._operations = operations
        self._seen: Counter[str] = Counter()
        self._numbers: dict[int, int] = {}
        self._at_work: set[int] = set()  # threads that are inside an operation
        self._may_begin = threading.Event()
        self._may_begin.set()
        self._lock = threading.Lock()

    def before(self, operation: str, key: str) -> None:
        self._may_begin.wait()
        thread = threading.get_ident()
        name = point_name(operation, key)
        with self._lock:
            self._at_work.add(thread)
            if _PROBE in key:
                return
            self._seen[name] += 1
            number = self._numbers[thread] = self._seen[name]
            if self._operations is not None:
                with self._operations.open("a", encoding="utf-8") as log:
                    log.write(f"{name}\n")
        self._strike(name, number, "before")

    def after(self, operation: str, key: str) -> None:
        thread = threading.get_ident()
        with self._lock:
            self._at_work.discard(thread)
        if _PROBE not in key:
            self._strike(point_name(operation, key), self._numbers[thread], "after")

    def _strike(self, name: str, number: int, when: str) -> None:
        for strike in self._strikes:
            if strike.when == when and strike.fits(name, number):
                if not strike.signal:
                    raise StoreUnavailableError(f"{name}: struck")
                if strike.signal == signal.SIGSTOP:
                    self._sleep()
                else:
                    os.kill(os.getpid(), strike.signal)

    def _sleep(self) -> None:
        """Stand still, but not while another thread holds the store's lock: then nobody else could write."""
        self._may_begin.clear()
        deadline = time.monotonic() + _OPERATION_S
        while self._at_work - {threading.get_ident()} and time.monotonic() < deadline:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGSTOP)
        self._may_begin.set()


def _pool(settings: PoolSettings, deaths: Callable[[str], None], *, log: Path | None) -> InstantPool:
    return InstantPool(settings, deaths, log=log, read=reader_of(settings))


def _install(request: Forked) -> None:
    striker = _Striker(request.strikes, Path(request.operations) if request.operations else None)

    def open_struck(uri: str, settings: S3Settings | None = None) -> ObjectStore:
        store = open_store(uri, settings)
        if not isinstance(store, FolderStore):
            return store
        inner: ObjectStore = FolderStore(store.root, fsync=False)
        if request.room_bytes is not None:
            inner = FullStore(inner, request.room_bytes)
        struck = FaultStore(inner, request.rules, seed=request.seed)
        struck.hooks = Hooks(striker.before, striker.after)
        return struck

    vars(environment_module)["open_store"] = open_struck
    if not request.real_engine:
        log = Path(request.log) if request.log else None
        vars(run_module)["Pool"] = functools.partial(_pool, log=log)
        vars(embedding_module).update(fingerprint=instant_fingerprint, ensure_model=lambda *_: None)
        vars(registry)["_FACTORIES"] = MappingProxyType(dict.fromkeys(registry.names(), ADAPTER))
    if request.deadline_s is not None:
        writer = environment_module.JobEnvironment.writer
        patched = functools.partialmethod(writer, deadline_s=request.deadline_s)
        environment_module.JobEnvironment.writer = patched  # type: ignore[method-assign,assignment]


def _become(request: Forked) -> None:
    """In the fork: the command with this request's arguments; never returns."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    for path, descriptor in ((os.devnull, 0), (request.stdout, 1), (request.stderr, 2)):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.update(request.environment)
    _install(request)
    sys.argv = ["pagemill", *request.arguments]
    status = 1
    try:
        command.main()
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _warm_up() -> None:
    """Load what a run loads late (pyarrow takes pandas along where it is installed), without starting a thread."""
    pa.Table.from_pylist([{"a": 1, "b": "c"}])
    for name in _LATE:
        importlib.import_module(name)
    context = ssl.create_default_context()  # reading the machine's certificates takes a third of a run
    vars(http_module)["_ssl_context"] = lambda _: context


def serve() -> None:
    """Start what is asked for, or wait for what was started, until the input ends."""
    _warm_up()
    for line in sys.stdin:
        number, _, asked = line.strip().partition(" ")
        sys.stdout.write(f"{number} {_answer(asked)}\n")
        sys.stdout.flush()


def _answer(asked: str) -> int:
    """The pid of a started run, or the exit status of the run whose pid was given."""
    if asked.isdecimal():
        _, status = os.waitpid(int(asked), 0)
        return os.waitstatus_to_exitcode(status)
    request = Forked.from_json(asked)
    pid = os.fork()
    if not pid:
        _become(request)
    return pid


if __name__ == "__main__":
    serve()
