"""Where benchmarks work, and the environment every side is started in.

Layer: `benchmarks.harness`. Both sides get the same environment: bytecode is kept, as in any installation that has
run before, and nothing of the user's own settings or credentials reaches a measurement.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.harness.paired import Plan
from benchmarks.harness.processes import Command
from pagemill_worker.machine import machine

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "benchmarks" / ".work"
RESULTS = ROOT / "benchmarks" / "results"
_FOREIGN = ("PAGEMILL_", "AWS_", "OPENROUTER_", "OPENAI_", "OMP_", "MKL_", "PYTHONDONTWRITEBYTECODE")


@dataclass(frozen=True, slots=True)
class Place:
    """One run of the benchmarks. `work` may be deleted afterwards, `output` takes the results.

    `scale` is the share of the usual sizes, for machines that are slow or busy; what the table counts (a million rows,
    ten thousand shards, a thousand pages) stays.
    """

    output: Path
    work: Path
    variables: Mapping[str, str]
    quick: bool = False
    scale: float = 1.0

    @property
    def processes(self) -> int:
        """Engine processes on both sides: the cores we may use."""
        return machine().cores

    @property
    def runs(self) -> Path:
        """What may be deleted when this process ends."""
        return self.work / f"runs-{os.getpid()}"

    def folder(self, name: str) -> Path:
        """An empty folder of this process, below `work`."""
        path = self.runs / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def plan(self, usual: Plan, quick_size: int) -> Plan:
        """How much to measure here: as usual, scaled, or just enough to see that it works."""
        if self.quick:
            return Plan(quick_size, 1, 0)
        return replace(usual, size=max(2 * self.processes, round(usual.size * self.scale)))

    def python(self, module: str, *arguments: str, **variables: str) -> Command:
        """A module of ours as a command, with `variables` added to the environment."""
        return self.command([sys.executable, "-m", module, *arguments], **variables)

    def pagemill(self, *arguments: str, **variables: str) -> Command:
        """The installed command."""
        return self.command([str(Path(sys.executable).parent / "pagemill"), *arguments], **variables)

    def command(self, arguments: Sequence[str], **variables: str) -> Command:
        """Any command, started in the repository's root."""
        return Command(arguments, {**self.variables, **variables}, ROOT, self.work / "stderr.log")


def clean_variables(inherited: Mapping[str, str], work: Path) -> dict[str, str]:
    """`inherited` without anyone's settings, and with a place for bytecode and for the engines' caches."""
    kept = {name: value for name, value in inherited.items() if not name.startswith(_FOREIGN)}
    return {
        **kept,
        "PYTHONPYCACHEPREFIX": str(work / "bytecode"),
        "PAGEMILL_OCR_CACHE_DIR": str(work / "engines"),
    }
