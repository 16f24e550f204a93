"""The run summary: one JSON file with the counts and a line for every item, in the form existing readers know.

Layer: `worker.views`; writes to the file it is given and holds one item at a time, for a run may have millions. The
outer fields of the contract keep their names and meaning; what Pagemill adds stands under `pagemill` and `skipped`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from pagemill_core.clock import iso
from pagemill_core.errors import IntegrityError
from pagemill_worker.items import ItemFailure, Status
from pagemill_worker.views.characters import valid_text
from pagemill_worker.views.registry import view_key
from pagemill_worker.views.row import OcrRow
from pagemill_worker.views.run import RunInfo

# What existing readers look for; every other failure is told in its own words.
_KNOWN_ERRORS: Mapping[str, str] = {"ImageMissing": "Image file not found"}


@dataclass(frozen=True, slots=True)
class SummaryItem:
    """What the summary says of one item. `failure` is set when it failed."""

    id: str
    status: Status
    num_regions: int = 0
    failure: ItemFailure | None = None

    @classmethod
    def of(cls, row: OcrRow) -> SummaryItem:
        return cls(row.id, row.status, len(row.regions), row.failure)


def write_summary(out: BinaryIO, run: RunInfo, items: Iterable[SummaryItem]) -> None:
    """Write the summary as UTF-8 JSON, every item on a line of its own, in the order of `items`.

    Raises: IntegrityError, with the file half written, when the items are not the ones that `run.counts` counts.
    """
    head = _dumps(_head(run), indent=2)
    out.write(head.removesuffix("\n}").encode() + b',\n  "results": [')
    seen: Counter[Status] = Counter()
    for item in items:
        out.write(b",\n    " if seen.total() else b"\n    ")
        out.write(_dumps(_result(run, item)).encode())
        seen[item.status] += 1
    out.write(b"\n  ]\n}\n" if seen.total() else b"]\n}\n")
    counts = run.counts
    if (seen["succeeded"], seen["failed"], seen["skipped"]) != (counts.succeeded, counts.failed, counts.skipped):
        raise IntegrityError(f"the run counts {counts}, its items are {dict(seen)}")


def _head(run: RunInfo) -> dict[str, Any]:
    counts = run.counts
    return {
        "manifest_file": run.source_uri,
        "ocr_method": run.engine_name,
        "backend": run.backend,
        "workers": run.workers,
        "output_bucket": run.bucket,
        "total_images": counts.total,
        "successful": counts.succeeded,
        "failed": counts.failed,
        "skipped": counts.skipped,
        "pagemill": {
            "job": run.name,
            "run": run.run,
            "output": run.output_uri,
            "engine": {"name": run.engine_name, "version": run.engine_version, "languages": list(run.languages)},
            "already_done": counts.already_done,
            "not_done": counts.not_done,
            "failed_by_class": dict(sorted(run.failures_by_class.items())),
            "started_at": iso(run.started_at),
            "finished_at": iso(run.finished_at),
            "seconds": round(run.seconds, 3),
            "cost": run.cost.as_json() if run.cost is not None else None,
        },
    }


def _result(run: RunInfo, item: SummaryItem) -> dict[str, Any]:
    if item.failure is not None:
        error_class = item.failure.error_class
        return {
            "canonical_id": item.id,
            "status": "error",
            "error": _KNOWN_ERRORS.get(error_class, item.failure.message),
            "error_class": error_class,
            "error_message": item.failure.message,
            "ocr_method": run.engine_name,
        }
    if item.status == "skipped":
        return {"canonical_id": item.id, "status": "skipped", "ocr_method": run.engine_name}
    result = {
        "canonical_id": item.id,
        "status": "success",
        "ocr_method": run.engine_name,
        "num_regions": item.num_regions,
    }
    if run.formats:
        result["output_key"] = run.key_in_bucket(view_key(item.id, run.formats[0], run.prefix))
        result["output_bucket"] = run.bucket
    return result


def _dumps(value: Mapping[str, Any], indent: int | None = None) -> str:
    return valid_text(json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False))
