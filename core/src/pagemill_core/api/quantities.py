"""The arithmetic behind the strings of the API: failure limits, money, Kubernetes quantities.

Layer: `core.api`. Exact: decimals and integers, never floats.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal, InvalidOperation

_SUFFIXES = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", start=1)},
}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(m|k|[MGTPE]i?|Ki)?")
_COUNT_OR_PERCENT = re.compile(r"[0-9]+|([0-9]+(?:\.[0-9]+)?)%")


@dataclass(frozen=True, slots=True)
class FailureLimit:
    """How many items may fail: a count, or a share of all items. Exactly one of the two is set.

    `percent` is 0 to 100. A share is rounded down: 1 % of 99 items is no item.
    """

    count: int | None = None
    percent: Decimal | None = None

    @classmethod
    def parse(cls, text: str) -> FailureLimit:
        """Read "25" or "1%". Raises: ValueError when `text` is neither, or more than 100%."""
        match = _COUNT_OR_PERCENT.fullmatch(text)
        if match is None:
            raise ValueError(f'{text!r} is neither a count nor a percentage; write "25" or "1%"')
        if match[1] is None:
            return cls(count=int(text))
        percent = Decimal(match[1])
        if percent > 100:
            raise ValueError(f'{text!r} is more than all items; write "100%"')
        return cls(percent=percent)

    def allowed(self, item_count: int) -> int:
        """The most items of `item_count` that may fail."""
        if self.count is not None:
            return self.count
        share = self.percent if self.percent is not None else Decimal(0)
        return int(share * item_count // 100)

    def is_exceeded(self, *, failed_count: int, item_count: int) -> bool:
        """Whether `failed_count` of `item_count` items are too many."""
        return failed_count > self.allowed(item_count)

    def __str__(self) -> str:
        return str(self.count) if self.count is not None else f"{self.percent}%"


def parse_money(text: str) -> Decimal:
    """Read an amount such as "25.00". Raises: ValueError when it is no finite number of zero or more."""
    try:
        amount = Decimal(text)
    except InvalidOperation as error:
        raise ValueError(f'{text!r} is no amount of money; write a decimal number such as "25.00"') from error
    if not amount.is_finite() or amount < 0:
        raise ValueError(f"{text!r} is no amount of money that could be spent")
    return amount


def parse_quantity(text: str) -> Decimal:
    """Read a Kubernetes quantity such as 500m, 2 or 8Gi, in units. Raises: ValueError."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no quantity; write one such as 500m, 2, 512Mi or 8Gi")
    return Decimal(match[1]) * _SUFFIXES[match[2] or ""]


def quantity_bytes(text: str) -> int:
    """Read a quantity of memory, in bytes, rounded up as Kubernetes does. Raises: ValueError."""
    return int(parse_quantity(text).to_integral_value(rounding=ROUND_CEILING))
