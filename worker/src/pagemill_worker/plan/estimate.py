"""What a plan will take and cost, before anything is spent.

Layer: `worker.plan`; pure. Money is decimal. Seconds per item come from the table of measured engines, or from a timed
sample of the user's own pages, which is always the better figure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from pagemill_worker.bench import pricing
from pagemill_worker.bench.pricing import FunctionUse

# CPU seconds per page, one thread, on 2 cores with AVX-512; a VLM's is the wait for its endpoint.
SECONDS_PER_ITEM: Mapping[str, float] = {
    "tesseract": 0.46,
    "rapidocr": 1.9,
    "paddleocr": 0.45,
    "easyocr": 15.0,
    "vlm": 8.0,
    "qwen": 8.0,
    "gemma": 8.0,
    "deepseek": 8.0,
}
DEFAULT_SECONDS_PER_ITEM = 2.0

# The same for what an EmbeddingJob's items are, with a model of ViT-B/32's or MiniLM's size. A GPU is a hundred times
# as fast; a shard then takes seconds, which costs less than a kill in the middle of a shard that takes an hour here.
SECONDS_PER_PICTURE = 0.04
SECONDS_PER_TEXT = 0.02
SECONDS_PER_BOOK = 40.0  # of 200 pages, both sides
SECONDS_PER_ROW_RANGE = 10.0  # 4,096 rows of a small model


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateInput:
    """`slots` processes work at once on `machines` machines that cost `price_per_hour` each, if that is known."""

    items: int
    seconds_per_item: float
    slots: int = 1
    machines: int = 1
    price_per_hour: Decimal | None = None
    function_memory_gb: Decimal = Decimal(3)
    is_sampled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """`work_seconds` in one slot, `elapsed_seconds` in all of them; costs in the pool's currency and in USD."""

    items: int
    seconds_per_item: float
    work_seconds: float
    elapsed_seconds: float
    serverless_usd: Decimal
    pool_cost: Decimal | None
    is_sampled: bool


def seconds_per_item(engine: str) -> float:
    """The table's figure for an engine; a cautious one for engines it does not know."""
    return SECONDS_PER_ITEM.get(engine, DEFAULT_SECONDS_PER_ITEM)


def estimate(asked: EstimateInput) -> Estimate:
    """Time and cost. Slots beyond the number of items do nothing; machines are paid for as long as the last works."""
    slots = max(1, min(asked.slots, asked.items or 1))
    rounds = math.ceil(asked.items / slots)
    elapsed = rounds * asked.seconds_per_item
    price = asked.price_per_hour
    pool_cost = None if price is None else price * asked.machines * Decimal(str(elapsed)) / 3600
    return Estimate(
        items=asked.items,
        seconds_per_item=asked.seconds_per_item,
        work_seconds=asked.items * asked.seconds_per_item,
        elapsed_seconds=elapsed,
        serverless_usd=serverless_cost(asked.items, asked.seconds_per_item, asked.function_memory_gb),
        pool_cost=None if pool_cost is None else pool_cost.quantize(Decimal("0.0001")),
        is_sampled=asked.is_sampled,
    )


def serverless_cost(items: int, seconds: float, memory_gb: Decimal) -> Decimal:
    """USD for `items` function calls of `seconds` each with `memory_gb` of memory."""
    use = FunctionUse(requests=items, seconds_each=Decimal(str(seconds)), memory_gb=memory_gb)
    cost = pricing.serverless_cost(use).total
    return cost.quantize(Decimal("0.0001"))
