"""Succeeded rows that unfinished attempts left behind, to be taken over by whoever does the shard next.

Layer: `worker.work`. Partial rows are never counted; they only save work.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from pagemill_core.errors import IntegrityError
from pagemill_core.work.conditional import Writer
from pagemill_worker.items import ItemResult, PlannedItem
from pagemill_worker.work import shard_data

log = logging.getLogger("pagemill.work")


def verified_partials(
    writer: Writer, partial_keys: Iterable[str], items: Iterable[PlannedItem], fingerprint: str
) -> dict[int, ItemResult]:
    """Partial rows by row number: from whole files of this fingerprint, and only rows that this plan has.

    A file that is damaged or of another fingerprint is passed over: it could only have saved work.
    """
    planned = {item.row: item for item in items}
    found: dict[int, ItemResult] = {}
    for key in sorted(partial_keys):
        blob = writer.get(key)
        if blob is None:
            continue
        try:
            results = shard_data.decode(blob.data, fingerprint, key)
        except IntegrityError as error:
            log.warning("Passed over partial rows", extra={"key": key, "reason": error.message})
            continue
        for result in results:
            item = planned.get(result.item.row)
            if item is not None and item.id == result.item.id and result.status == "succeeded":
                found[item.row] = result
    return found
