"""How many items each shard gets.

Layer: `worker.plan`; pure. A shard is the unit that is committed, retried and lost: small at the start of a plan, so
that the first results are there in seconds, then as large as the target time allows. A group (the pages of one book) is
not split unless it alone is larger than a shard may be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from pagemill_core.errors import SourceError
from pagemill_worker.plan.request import CutOptions

MAX_ITEMS = 5_000  # of an automatic shard: what a kill may cost stays small however fast the engine is
SHARDS_PER_SLOT = 4  # a small job ends with its slots idle for at most about a quarter of their share
SOFT_SHARDS = 100_000  # automatic shards double in size beyond half of these, so that there are never more
HARD_SHARDS = 99_999_999  # shard names have eight digits


@dataclass(frozen=True, slots=True)
class CutRule:
    """The capacity of each shard: `items` each, after a ramp of 1, 2, 4 … when `ramp` is set.

    With `soft_limit` the sizes double at half, three quarters, seven eighths … of that many shards.
    """

    items: int
    ramp: bool = False
    soft_limit: int = 0

    def capacity(self, shard: int) -> int:
        """How many items shard `shard` may hold."""
        ramped = min(self.items, 1 << min(shard, 62)) if self.ramp else self.items
        if not self.soft_limit or shard < self.soft_limit // 2:
            return ramped
        left = max(1, self.soft_limit - shard)
        return ramped << max(0, math.ceil(math.log2(self.soft_limit / left)))


def cut_rule(options: CutOptions, total: int | None = None) -> CutRule:
    """The rule for a source of `total` items, None when that is not known yet."""
    if options.items_per_shard is not None:
        return CutRule(options.items_per_shard)
    by_time = int(options.target_seconds / max(options.seconds_per_item, 1e-6))
    items = min(MAX_ITEMS, max(1, by_time))
    if total is not None:
        items = min(items, max(1, math.ceil(total / (SHARDS_PER_SLOT * max(1, options.slots)))))
    return CutRule(items, ramp=True, soft_limit=SOFT_SHARDS)


class ShardCutter:
    """Gives each item, in order, its shard."""

    def __init__(self, rule: CutRule) -> None:
        self._rule = rule
        self._shard = 0
        self._free = rule.capacity(0)
        self._used = False

    @property
    def shard_count(self) -> int:
        return self._shard + 1 if self._used else 0

    def assign(self, count: int) -> NDArray[np.int64]:
        """The shards of the next `count` items, each a group of its own."""
        result = np.empty(count, np.int64)
        done = 0
        while done < count:
            if not self._free:
                self._next()
            taken = min(self._free, count - done)
            result[done : done + taken] = self._shard
            done += taken
            self._free -= taken
            self._used = True
        return result

    def assign_groups(self, groups: Sequence[str]) -> NDArray[np.int64]:
        """The shards of the next items, where neighbours with the same name are one group.

        A call must hold whole groups: one that goes on in the next call counts as another.
        """
        parts = [self._assign_group(sum(1 for _ in members)) for _, members in groupby(groups)]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _assign_group(self, size: int) -> NDArray[np.int64]:
        is_fresh = self._free == self._rule.capacity(self._shard)
        if size > self._free and not is_fresh:
            self._next()
        if size > self._free and size <= self._rule.items:
            self._free = size  # the ramp's shards are smaller than the cap; a group is not split for their sake
        return self.assign(size)

    def _next(self) -> None:
        self._shard += 1
        if self._shard > HARD_SHARDS:
            raise SourceError(
                f"the source makes more than {HARD_SHARDS:,} shards", advice="raise spec.sharding.itemsPerShard"
            )
        self._free = self._rule.capacity(self._shard)
