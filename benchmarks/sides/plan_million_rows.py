"""Plans a manifest that lies in a bucket, in a process of its own, so that its peak memory is its own.

A program: settings as JSON on standard input (a command line can be read by everyone on the machine), figures as
JSON on standard output.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from pagemill_core.storage.s3 import S3Store
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_worker.plan.expand import FilePageCounter
from pagemill_worker.plan.planner import PlanTools, plan_source
from pagemill_worker.plan.request import KeyRules, ManifestRequest, PlanRequest

MEBIBYTE = 1 << 20


class PlanWork(BaseModel):
    """What to plan. `settings` are those of the store, secrets in the clear."""

    model_config = ConfigDict(frozen=True)

    bucket: str
    manifest: str
    prefix: str
    settings: dict[str, Any]


def main() -> None:
    """Plan and tell."""
    work = PlanWork.model_validate_json(sys.stdin.read())
    sys.stdout.write(json.dumps(plan(work)))


def plan(work: PlanWork) -> dict[str, float]:
    """Plan the manifest; seconds and memory of planning alone, imports excluded from the one, included in the other."""
    settings = S3Settings.model_validate(work.settings)
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        tools = PlanTools(
            open_store=lambda _: S3Store(work.bucket, settings=settings),
            count_pages=FilePageCounter(lambda _: S3Store(work.bucket, settings=settings)),
            store=S3Store(work.bucket, "out", settings),
            prefix=work.prefix,
            scratch=Path(scratch),
        )
        source = ManifestRequest(uri=f"s3://{work.bucket}/{work.manifest}")
        keys = KeyRules(prefix="ocr_results", suffixes=("_ocr.json",), root="out")
        result = plan_source(PlanRequest(source=source, keys=keys), tools)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "items": result.items,
        "shards": result.shards,
        "seconds": seconds,
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_rss_mib": peak_rss_bytes() / MEBIBYTE,
        "tables_mib": sum(part.size for part in result.parts) / MEBIBYTE,
    }


def peak_rss_bytes() -> int:
    """The most memory this process held. Not from getrusage, whose figure a child takes over from its parent."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


if __name__ == "__main__":
    main()
