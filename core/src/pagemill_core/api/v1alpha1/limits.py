"""How the work is cut, how often it is tried, and what it may cost.

Layer: `core.api`. Money and ratios are strings, durations are whole seconds.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from pydantic import Field

from pagemill_core.api.quantities import FailureLimit, parse_money
from pagemill_core.api.v1alpha1.base import ApiModel
from pagemill_core.api.v1alpha1.types import CountOrPercent, Currency, Money, ObjectName


class Sharding(ApiModel):
    """How items are cut into shards; either field, or none for what the planner finds best."""

    items_per_shard: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Items in each shard. Default: from the estimated time."
    )
    target_seconds_per_shard: int | None = Field(
        default=None, ge=1, le=86_400, description="Estimated seconds of work in each shard. Default 120."
    )

    @property
    def effective_target_seconds_per_shard(self) -> int:
        """Estimated seconds of work in each shard; of no meaning when items_per_shard is given."""
        return 120 if self.target_seconds_per_shard is None else self.target_seconds_per_shard


class Retries(ApiModel):
    """How often what fails is tried again, and how much may fail in the end."""

    per_item: int | None = Field(
        default=None, ge=0, le=20, description="Tries of an item after the first, also over later runs. Default 2."
    )
    waves: int | None = Field(
        default=None, ge=1, le=20, description="Waves of workers over what is missing before giving up. Default 3."
    )
    max_failed_items: CountOrPercent | None = Field(
        default=None,
        description="Items that may fail: a count or a percentage, in quotes. Judged live after 100 items. Default 1%.",
    )
    item_timeout_seconds: int | None = Field(
        default=None, ge=1, le=86_400, description="Seconds that one item may take before it fails. Default 120."
    )

    @property
    def effective_per_item(self) -> int:
        """Tries of an item after the first."""
        return 2 if self.per_item is None else self.per_item

    @property
    def effective_waves(self) -> int:
        """Waves of workers over what is missing before giving up."""
        return 3 if self.waves is None else self.waves

    @property
    def effective_max_failed_items(self) -> str:
        """Items that may fail, as text; `failure_limit` is the parsed form."""
        return "1%" if self.max_failed_items is None else self.max_failed_items

    @property
    def effective_item_timeout_seconds(self) -> int:
        """Seconds that one item may take."""
        return 120 if self.item_timeout_seconds is None else self.item_timeout_seconds

    @property
    def failure_limit(self) -> FailureLimit:
        """How many items may fail."""
        return FailureLimit.parse(self.effective_max_failed_items)


class Budget(ApiModel):
    """What the job may cost; at the limit work stops cleanly and what is committed stays."""

    max_cost: Money = Field(description='The most to spend, a decimal number in quotes, such as "25.00".')
    currency: Currency | None = Field(default=None, description="The currency of the pools' prices. Default USD.")

    @property
    def effective_currency(self) -> str:
        """Three capital letters."""
        return "USD" if self.currency is None else self.currency

    @property
    def max_cost_amount(self) -> Decimal:
        """The most to spend."""
        return parse_money(self.max_cost)


class Dependency(ApiModel):
    """A job that must be complete before this one starts."""

    kind: Literal["OcrJob", "EmbeddingJob"] = Field(description="The other job's kind.")
    name: ObjectName = Field(description="The other job's name, in this namespace or in the same file.")
