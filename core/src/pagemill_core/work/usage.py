"""What a run has used and what that costs: pod seconds at the pool's price, and money paid to APIs.

Layer: `core.work`. Each pod owns one small object, so writers never meet, and the sum survives every restart.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.records import UsageRecord

SECONDS_PER_HOUR = 3600
_SMALLEST = Decimal("0.000001")  # a millionth is shown; the rest would be twenty digits of division


def put_usage(writer: Writer, layout: RunLayout, record: UsageRecord) -> None:
    """Write what a pod has used since its start; later writes replace earlier ones."""
    writer.put(layout.usage(record.pod), record.to_bytes())


def cost_of(record: UsageRecord) -> Decimal:
    """seconds x price per hour / 3600 + API cost, in the pool's currency."""
    machine = Decimal(str(record.seconds)) * Decimal(record.price_per_hour) / SECONDS_PER_HOUR
    return machine + Decimal(record.api_cost)


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run has used over all of its pods, waves and re-applies."""

    cost: Decimal = Decimal(0)
    seconds: float = 0.0


class UsageReader:
    """Sums a run's usage, reading only the objects whose token changed since the last call."""

    def __init__(self, writer: Writer, layout: RunLayout) -> None:
        self._writer = writer
        self._layout = layout
        self._known: dict[str, tuple[str, UsageRecord]] = {}

    def spent(self, live: UsageRecord | None = None) -> Spent:
        """The cost and the machine seconds so far; `live` is a pod's newer record than the one it wrote."""
        infos = self._writer.listing(self._layout.usage_prefix)
        for info in infos:
            if self._known.get(info.key, ("", None))[0] != info.token:
                blob = self._writer.get(info.key)
                if blob is not None:
                    self._known[info.key] = (info.token, UsageRecord.from_bytes(blob.data, info.key))
        records = [record for _, record in self._known.values() if live is None or record.pod != live.pod]
        records += [live] if live is not None else []
        cost = sum((cost_of(record) for record in records), Decimal(0)).quantize(_SMALLEST).normalize()
        return Spent(cost, sum(record.seconds for record in records))
