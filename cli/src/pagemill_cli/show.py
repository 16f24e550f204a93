"""What a person sees while a job runs and when it has ended; nothing here decides anything.

Layer: `cli`. Progress goes to standard error and results to standard output, so that `--output json` can be piped.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pagemill_cli.local.driver import Scene
from pagemill_core.work.lifecycle import Step
from pagemill_worker.work.pool import Answer

RATE_WINDOW_S = 30.0
PLAIN_EVERY_S = 10.0
STEP_NAMES = {
    Step.PLAN: "Planning",
    Step.START_WAVE: "Starting",
    Step.WAIT: "Working",
    Step.SEAL: "Sealing",
    Step.START_SEALING: "Sealing",
    Step.FINALIZE: "Finalizing",
    Step.DONE: "Done",
}


class Progress:
    """The live display of one run: items done and failed, rate, time left, cost.

    On a terminal it redraws in place; elsewhere it prints a line every 10 s. Fed from several threads.
    """

    def __init__(self, console: Console, name: str, *, quiet: bool = False) -> None:
        self._console = console
        self._name = name
        self._quiet = quiet
        self._lock = threading.Lock()
        self._scene: Scene | None = None
        self._planned_so_far = 0
        self._live_done = 0
        self._base: int | None = None  # items committed before this command began
        self._failed = 0
        self._last = ""
        self._started = time.monotonic()
        self._ends: deque[float] = deque()
        self._printed_at = 0.0
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        if not self._quiet and self._console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def scene(self, scene: Scene) -> None:
        """Hear how the run stands."""
        with self._lock:
            self._scene = scene
            if self._base is None and scene.planned is not None:
                self._base = scene.totals.items.planned
        self._print_plain()

    def planning(self, count: int) -> None:
        """Hear how many items are planned so far."""
        self._planned_so_far = count

    def answer(self, answer: Answer) -> None:
        """Hear of one item's end, before its shard is committed."""
        now = time.monotonic()
        with self._lock:
            self._live_done += 1
            self._failed += answer.result.status == "failed"
            self._last = answer.result.item.id
            self._ends.append(now)
            while self._ends and self._ends[0] < now - RATE_WINDOW_S:
                self._ends.popleft()

    @property
    def rate(self) -> float:
        """Items a second over the last half minute."""
        with self._lock:
            if len(self._ends) < 2:
                return 0.0
            span = max(time.monotonic() - self._ends[0], 1e-3)
            return len(self._ends) / span

    def _counts(self) -> tuple[int, int, int]:
        """Items done, failed, planned. Items in uncommitted shards count as they come, never twice."""
        scene = self._scene
        if scene is None or scene.planned is None:
            return 0, 0, self._planned_so_far
        committed = scene.totals.items
        done = min(scene.planned, max(committed.planned, (self._base or 0) + self._live_done))
        return done, max(committed.failed, self._failed), scene.planned

    def _render(self) -> RenderableType:
        done, failed, planned = self._counts()
        scene = self._scene
        step = STEP_NAMES.get(scene.step, scene.step.value) if scene else "Starting"
        line = Table.grid(padding=(0, 2))
        line.add_row(
            Text(step, style="bold"),
            ProgressBar(total=max(planned, 1), completed=done, width=32),
            f"{done:,}/{planned:,}",
            Text(f"{failed:,} failed", style="red" if failed else "dim"),
            f"{self.rate:.1f}/s",
            f"ETA {self._eta(done, planned)}",
            self._cost(),
        )
        return Group(Text(self._name, style="bold cyan"), line, Text(self._last, style="dim", overflow="ellipsis"))

    def _eta(self, done: int, planned: int) -> str:
        rate = self.rate
        return duration((planned - done) / rate) if rate and planned else "–"

    def _cost(self) -> str:
        spent = self._scene.spent.cost if self._scene else 0
        return f"cost {spent:.4f}" if spent else ""

    def _print_plain(self) -> None:
        now = time.monotonic()
        if self._live is not None or self._quiet or now - self._printed_at < PLAIN_EVERY_S:
            return
        self._printed_at = now
        done, failed, planned = self._counts()
        step = STEP_NAMES.get(self._scene.step, "") if self._scene else ""
        self._console.print(
            f"{escape(self._name)}: {step} {done:,}/{planned:,} items, {failed:,} failed, {self.rate:.1f}/s, "
            f"ETA {self._eta(done, planned)} {self._cost()}".rstrip(),
            highlight=False,
        )


def duration(seconds: float) -> str:
    """Seconds as people say them: 42s, 3m10s, 2h44m, 3d4h."""
    whole = round(seconds)
    for size, unit, small, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // small}{small_unit}"
    return f"{whole}s"
