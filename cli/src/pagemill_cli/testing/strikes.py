"""Where a run is to be struck, in words that mean the same point in every run of the same job.

Layer: `cli.testing`; pure. Threads make the order of operations vary, so a point is not the n-th operation but the n-th
time that a kind of operation meets a kind of key: attempt ids and random names are masked.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from pagemill_core.testing.fault_store import FaultRates, FaultRule

When = Literal["before", "after"]
_ULID = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")


def point_name(operation: str, key: str) -> str:
    """An operation on a key with what differs from run to run masked."""
    return f"{operation} {_ULID.sub('*', key)}"


@dataclass(frozen=True, slots=True)
class Strike:
    """Send `signal` to the whole process at the `number`-th time of `point`, or, when 0, raise StoreUnavailableError.

    `point` is a `point_name`, or a regular expression when `is_pattern`; number 0 means every time. `thread` narrows
    it to threads whose names start so.
    """

    point: str
    when: When = "before"
    number: int = 1
    signal: int = 9
    is_pattern: bool = False
    thread: str = ""

    def fits(self, name: str, number: int) -> bool:
        here = re.search(self.point, name) is not None if self.is_pattern else self.point == name
        return here and self.number in (0, number) and threading.current_thread().name.startswith(self.thread)


@dataclass(frozen=True, slots=True)
class Forked:
    """One run of the command in a fork. Paths are absolute; "" means none.

    `deadline_s` is how long protocol steps are retried, `room_bytes` how much may be written before the disk is full.
    With `real_engine` pages are read by the job's engine in child processes.
    """

    arguments: Sequence[str]
    stdout: str
    stderr: str
    log: str = ""
    operations: str = ""
    strikes: tuple[Strike, ...] = ()
    rules: tuple[FaultRule, ...] = ()
    seed: int = 0
    deadline_s: float | None = None
    room_bytes: int | None = None
    real_engine: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        values = asdict(self)
        values["rules"] = [{**rule, "operations": sorted(rule["operations"])} for rule in values["rules"]]
        return json.dumps(values)

    @classmethod
    def from_json(cls, line: str) -> Forked:
        values = json.loads(line)
        strikes = tuple(Strike(**strike) for strike in values.pop("strikes"))
        rules = tuple(
            FaultRule(FaultRates(**rule["rates"]), frozenset(rule["operations"]), rule["pattern"])
            for rule in values.pop("rules")
        )
        return cls(**values, strikes=strikes, rules=rules)
