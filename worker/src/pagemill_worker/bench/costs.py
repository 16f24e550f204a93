"""What a run cost, taken apart: by stage, by item, by what was paid for.

Layer: `worker.bench`; pure. What a run will cost is `plan.estimate`'s. Machines are paid by the hour whether they are
busy or not, so their cost is dealt to the stages by the time each kept a process busy, and what nobody used stands by
itself as idle. Money is Decimal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from pagemill_worker.bench.pricing import SECONDS_PER_HOUR, per_count

IDLE = "idle"
SECONDS_PER_MONTH = Decimal(30 * 24 * SECONDS_PER_HOUR)
GB = Decimal(10**9)
_SMALLEST = Decimal("0.000000001")  # a nanodollar: sums of shares must not lose more than a reader can see


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePrices:
    """What an object store charges: for a thousand writes and listings, a thousand reads, a gigabyte and month."""

    thousand_writes: Decimal = Decimal(0)
    thousand_reads: Decimal = Decimal(0)
    gb_month: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreUse:
    """What a run asked of its store. `kept_bytes` are its results."""

    writes: int = 0
    reads: int = 0
    kept_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunUse:
    """What a run used. `machine_s` are seconds that workers were held, over all of them; `busy_s` by stage, over all
    processes; `processes` is how many there were in a worker. `api_cost` was charged by remote engines."""

    machine_s: Decimal
    price_per_hour: Decimal
    processes: int = 1
    busy_s: Mapping[str, Decimal]
    items: int
    api_cost: Decimal = Decimal(0)
    store: StoreUse = StoreUse()


@dataclass(frozen=True, slots=True)
class Share:
    """One stage's part of the machines' cost, what an item cost there, and how busy it kept the processes (0 to 1)."""

    stage: str
    busy_s: Decimal
    share: Decimal
    cost: Decimal
    per_item: Decimal | None


@dataclass(frozen=True, slots=True)
class RunCost:
    """A run's cost by what was paid for. `stages` end with what nobody used; they add up to `machines`."""

    machines: Decimal
    api: Decimal
    requests: Decimal
    storage_a_month: Decimal
    stages: tuple[Share, ...]
    items: int

    @property
    def total(self) -> Decimal:
        """Everything but storage, which is paid for as long as results are kept."""
        return self.machines + self.api + self.requests

    def per_items(self, count: int) -> Decimal | None:
        """What `count` items cost; None when none was done."""
        return per_count(self.total, self.items, count)


def cost_of(use: RunUse, prices: StorePrices | None = None) -> RunCost:
    """Take a run's cost apart. Busy seconds beyond what the processes had are scaled down to it."""
    store = prices or StorePrices()
    machines = use.machine_s * use.price_per_hour / SECONDS_PER_HOUR
    held_s = use.machine_s * use.processes
    busy = sum(use.busy_s.values(), Decimal(0))
    basis = max(held_s, busy)
    busy_s = {**use.busy_s, IDLE: basis - busy}
    stages = tuple(_share(stage, seconds, basis, machines, use.items) for stage, seconds in busy_s.items())
    return RunCost(
        machines=machines,
        api=use.api_cost,
        requests=(use.store.writes * store.thousand_writes + use.store.reads * store.thousand_reads) / 1000,
        storage_a_month=Decimal(use.store.kept_bytes) / GB * store.gb_month,
        stages=stages,
        items=use.items,
    )


def _share(stage: str, busy_s: Decimal, basis: Decimal, machines: Decimal, items: int) -> Share:
    share = busy_s / basis if basis else Decimal(0)
    cost = (machines * share).quantize(_SMALLEST)
    return Share(stage, busy_s, share, cost, per_count(cost, items, 1))


def formula_of(use: RunUse, cost: RunCost) -> str:
    """One line that says how a run's cost was counted."""
    told = f"{use.machine_s:f} s × {use.price_per_hour:f}/h ÷ 3600"
    parts = [f"{told} = {cost.machines:.6f}"]
    if cost.api:
        parts.append(f"APIs {cost.api:.6f}")
    if cost.requests:
        parts.append(f"{use.store.writes + use.store.reads:,} requests {cost.requests:.6f}")
    return " + ".join(parts)
