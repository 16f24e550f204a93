"""The price formulas of tensor studies and sweeps: functions paid by the gigabyte-second, and machines by the hour.

Layer: `worker.bench`; pure. Money is Decimal, in the prices' own currency. The defaults are the list prices that the
reference studies compute with; real prices are the user's to give.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

SECONDS_PER_HOUR = 3600
FREE_STORAGE_GB = Decimal("0.5")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerlessPrices:
    """What a function's memory costs a gigabyte and second, a request, and its disk beyond the free half gigabyte."""

    compute_gb_second: Decimal = Decimal("0.0000166667")
    request: Decimal = Decimal("0.0000002")
    storage_gb_second: Decimal = Decimal("0.0000000309")


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionUse:
    """Equal calls of a function: how many, how long each, with how much memory and disk."""

    requests: int
    seconds_each: Decimal
    memory_gb: Decimal
    storage_gb: Decimal = FREE_STORAGE_GB


@dataclass(frozen=True, slots=True)
class ServerlessCost:
    """What the calls cost, by what is paid for."""

    compute: Decimal
    requests: Decimal
    storage: Decimal

    @property
    def total(self) -> Decimal:
        return self.compute + self.requests + self.storage


def serverless_cost(use: FunctionUse, prices: ServerlessPrices | None = None) -> ServerlessCost:
    """memory GB x s x price + requests x price + (disk GB - 0.5) x s x price; the free disk costs nothing."""
    held = prices or ServerlessPrices()
    seconds = use.seconds_each * use.requests
    paid_storage = max(use.storage_gb - FREE_STORAGE_GB, Decimal(0))
    return ServerlessCost(
        compute=use.memory_gb * seconds * held.compute_gb_second,
        requests=use.requests * held.request,
        storage=paid_storage * seconds * held.storage_gb_second,
    )


def pool_cost(seconds: Decimal, workers: int, price_per_hour: Decimal) -> Decimal:
    """Workers held for `seconds` by the clock, each at the pool's price an hour, whether they were busy or not."""
    return seconds * workers * price_per_hour / SECONDS_PER_HOUR


def per_count(cost: Decimal, done: int, count: int) -> Decimal | None:
    """What `count` of something cost at the rate of `done` of them; None when nothing was done."""
    return cost * count / done if done else None
