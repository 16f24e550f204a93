"""Replays one schedule, or runs many: `python -m pagemill_core.testing.sim --seed 17 --trace`.

Layer: `core.testing.sim`.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Sequence

from pagemill_core.testing.sim.mutations import MUTATIONS
from pagemill_core.testing.sim.schedule import ScheduleFailedError, simulate, small_segments


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pagemill_core.testing.sim", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds, counting up")
    parser.add_argument("--trace", action="store_true", help="show every operation on the store")
    parser.add_argument("--focus", default="", help="let faults strike only keys that contain this")
    parser.add_argument("--mutation", choices=MUTATIONS, help="plant this bug first")
    chosen = parser.parse_args(arguments)
    planted = MUTATIONS[chosen.mutation].planted() if chosen.mutation else contextlib.nullcontext()
    began = time.monotonic()
    failed = steps = 0
    with small_segments(), planted:
        for seed in range(chosen.seed, chosen.seed + chosen.count):
            try:
                outcome = simulate(seed, focus=chosen.focus, trace=_say if chosen.trace else None)
            except ScheduleFailedError as error:
                failed += 1
                _say(str(error))
            else:
                steps += outcome.steps
                if chosen.count == 1:
                    _say(str(outcome))
    rate = chosen.count / (time.monotonic() - began)
    _say(f"{chosen.count} schedules, {failed} failed, {steps} operations, {rate:.0f} schedules/s")
    return 1 if failed else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
