"""Engine processes that load their models while the plan is still being made.

Layer: `cli.local`. Only saves waiting: engines take seconds to load, and whoever started the command watches.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from pagemill_worker.work.pool import Pool


class EnginesAhead:
    """A pool that may be started before there is work for it. Used by one thread; leaving it ends what nobody took."""

    def __init__(self, make_pool: Callable[[], Pool]) -> None:
        self._make_pool = make_pool
        self._waiting: Pool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._waiting is not None:
            self._waiting.close()

    def start(self) -> None:
        """Start the processes, unless they wait already."""
        if self._waiting is None:
            self._waiting = self._make_pool()
            self._waiting.start()

    def take(self) -> Pool:
        """The waiting pool, else a new one; from now on it is the caller's to close."""
        pool, self._waiting = self._waiting or self._make_pool(), None
        return pool
