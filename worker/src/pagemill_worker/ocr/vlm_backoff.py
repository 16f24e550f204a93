"""How long to wait for a busy endpoint: what it asks for, else full jitter over doubling steps.

Layer: `worker.ocr`, pure; the clock and the dice are handed in.
"""

from __future__ import annotations

import datetime as dt
import math
import random
from email.utils import parsedate_to_datetime
from typing import Final

FIRST_STEP_S: Final = 10.0
LONGEST_STEP_S: Final = 120.0


def retry_after_s(header: str | None, now: dt.datetime) -> float | None:
    """What a Retry-After header asks for, from `now` on: seconds or an HTTP date; None when it says nothing.

    A date that has passed is 0.
    """
    text = (header or "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        return _seconds_until(text, now)
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _seconds_until(text: str, now: dt.datetime) -> float | None:
    try:
        instant = parsedate_to_datetime(text)
    except ValueError:
        return None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=dt.UTC)
    return max(0.0, (instant - now).total_seconds())


def wait_s(waits_before: int, *, asked_s: float | None, dice: random.Random) -> float:
    """Seconds to wait before the next call, after `waits_before` waits for the same page.

    Never below a tenth of the step, also when asked for 0 s: that bounds the calls that fit into any patience.
    What the endpoint asks for is never cut, and spread a little, so that all who were told the same come back apart.
    """
    step_s = min(LONGEST_STEP_S, FIRST_STEP_S * 2.0 ** min(waits_before, 30))
    floor_s = step_s / 10
    if asked_s is None:
        return dice.uniform(floor_s, step_s)
    return max(asked_s, floor_s) + dice.uniform(0.0, floor_s)


def most_waits(patience_s: float) -> int:
    """The largest number of waits that `wait_s` can fit into `patience_s`."""
    count, spent_s = 0, 0.0
    while spent_s < patience_s:
        spent_s += min(LONGEST_STEP_S, FIRST_STEP_S * 2.0 ** min(count, 30)) / 10
        count += 1
    return count
