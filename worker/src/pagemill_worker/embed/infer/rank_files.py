"""The reports of a tensor run: one JSON per rank, all of them in one list, and one for the whole.

Layer: `worker.embed.infer`; pure, no torch. Keys and units of the reference study stand first, so that its own readers
take the files; what they leave out or blur (wall time, rows, bytes, who is missing) stands beside them under plain
names.
"""

from __future__ import annotations

import datetime as dt
import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from pagemill_core.errors import IntegrityError
from pagemill_worker.machine import host_memory_bytes, machine

COMBINED = "combined_data.json"
RESULTS = "Results.json"
PLOT = "inference.png"
BYTES_PER_MB = 1_000_000
BYTES_PER_GB = 1 << 30
BITS_PER_BYTE = 8

Report = dict[str, Any]


class MachineFacts(BaseModel):
    """The machine on which a part was done, as the reference describes one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    processor: str
    architecture: tuple[str, str]
    machine: str
    system: str
    platform: str
    cores: int
    memory_bytes: int

    @classmethod
    def here(cls) -> MachineFacts:
        """This machine, with the cores and memory that this process may use."""
        limits = machine()
        return cls(
            processor=platform.processor() or platform.machine(),
            architecture=platform.architecture(),
            machine=platform.machine(),
            system=platform.system(),
            platform=platform.platform(),
            cores=limits.cores,
            memory_bytes=limits.memory_bytes or host_memory_bytes(),
        )


class FetchFacts(BaseModel):
    """The requests that read a part: how many, how long in seconds, when the first began and the last ended (UTC)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: int
    total_s: float
    min_s: float
    max_s: float
    first_at: dt.datetime
    last_at: dt.datetime


class PartFacts(BaseModel):
    """What a runner measured of one item, a partition or rows of one; travels as JSON in the item's payload.

    `allocated_bytes` is estimated from one profiled batch. `input_bits` are the model's inputs, labels left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    rows: int
    batches: int
    batch_size: int
    input_bits: int
    size_bytes: int
    cpu_s: float
    wall_s: float
    allocated_bytes: int
    self_allocated_bytes: int
    device: str
    profile: str = ""
    fetch: FetchFacts | None = None
    finished_at: dt.datetime | None = None
    machine: MachineFacts


def rank_report(rank: int, world_size: int, parts: Sequence[PartFacts], result_path: str) -> Report:
    """The content of `<result_path>/<rank>.json`; `parts` are the rank's own, in plan order, at least one."""
    paths = list(dict.fromkeys(part.path for part in parts))
    return {
        **_figures(parts),
        "result_path": result_path,
        "data_path": paths[0] if len(paths) == 1 else paths,
        **_requests(parts),
        "cpu_info": _cpu_info(parts[0].machine),
        "ram_info (GB)": parts[0].machine.memory_bytes / BYTES_PER_GB,
        "rank": rank,
        "world_size": world_size,
        "partitions": len(paths),
        **_honest(parts),
    }


def combined(owed: Sequence[int], reports: Mapping[int, Report], planned_rows: Mapping[int, int] | None = None) -> str:
    """The content of `combined_data.json`: the reports of the ranks that owe one, by rank.

    Raises: IntegrityError naming the ranks without a report, or whose rows are not those planned.
    """
    missing = [rank for rank in owed if rank not in reports]
    if missing:
        raise IntegrityError(
            f"{len(missing)} of {len(owed)} ranks have no report: {_shown(missing)}",
            advice="run the job again: only what is missing is done",
        )
    short = [rank for rank, rows in (planned_rows or {}).items() if reports[rank]["rows"] != rows]
    if short:
        raise IntegrityError(f"the reports of ranks {_shown(short)} do not hold the rows that were planned")
    return as_json([reports[rank] for rank in sorted(reports)])


def results(
    parts: Sequence[PartFacts], world_size: int, *, metrics: Mapping[str, Any] | None = None, wall_s: float = 0.0
) -> Report:
    """The content of `Results.json`: the whole run under the keys of one rank, with the metrics where there are labels.

    `wall_s` is the run's time by a clock on the wall, from its first to its last part.
    """
    first = parts[0]
    return {
        **_figures(parts),
        "cpu_info": _cpu_info(first.machine),
        "ram_info (GB)": first.machine.memory_bytes / BYTES_PER_GB,
        "avg_profile": next((part.profile for part in parts if part.profile), ""),
        "self_cpu_memory (MB)": sum(part.self_allocated_bytes for part in parts) / BYTES_PER_MB,
        "world_size": world_size,
        "partitions": len({part.path for part in parts}),
        **_honest(parts),
        "run_wall_seconds": wall_s,
        "metrics": dict(metrics) if metrics is not None else None,
    }


def as_json(value: Any) -> str:
    """A report as text: UTF-8, keys in their order, not-a-number refused rather than written."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _figures(parts: Sequence[PartFacts]) -> Report:
    """The reference's own keys, in its units: seconds of CPU, megabytes of 10^6, bits of input a second of CPU."""
    cpu_s = sum(part.cpu_s for part in parts)
    rows = sum(part.rows for part in parts)
    batch_size = parts[0].batch_size
    return {
        "total_cpu_time (seconds)": cpu_s,
        "total_cpu_memory (MB)": sum(part.allocated_bytes for part in parts) / BYTES_PER_MB,
        "execution_time (seconds/batch)": _ratio(cpu_s, rows / batch_size),
        "num_batches": sum(part.batches for part in parts),
        "batch_size": batch_size,
        "device": parts[0].device,
        "throughput_bps": _ratio(sum(part.input_bits for part in parts), cpu_s),
        "sample_persec": _ratio(rows, cpu_s),
    }


def _honest(parts: Sequence[PartFacts]) -> Report:
    rows, wall_s = sum(part.rows for part in parts), sum(part.wall_s for part in parts)
    input_bits = sum(part.input_bits for part in parts)
    return {
        "rows": rows,
        "input_bytes": input_bits // BITS_PER_BYTE,
        "file_bytes": sum(part.size_bytes for part in parts),
        "wall_seconds": wall_s,
        "fetch_seconds": sum(part.fetch.total_s for part in parts if part.fetch is not None),
        "rows_per_wall_second": _ratio(rows, wall_s),
        "total_cpu_memory_note": "sum of allocations, estimated from one profiled batch; not a peak",
    }


def _requests(parts: Sequence[PartFacts]) -> Report:
    from_s3 = [part.fetch for part in parts if part.fetch is not None and part.path.startswith("s3://")]
    found = [fetch for fetch in from_s3 if fetch.requests]
    if not found:
        return {}
    count, total_s = sum(one.requests for one in found), sum(one.total_s for one in found)
    return {
        "s3_num_requests": count,
        "s3_total_time": total_s,
        "s3_avg_time": total_s / count,
        "s3_min_time": min(one.min_s for one in found),
        "s3_max_time": max(one.max_s for one in found),
        "s3_first_request_time": min(one.first_at for one in found).isoformat(),
        "s3_last_response_time": max(one.last_at for one in found).isoformat(),
    }


def _cpu_info(facts: MachineFacts) -> Report:
    return {
        "processor": facts.processor,
        "architecture": list(facts.architecture),
        "machine": facts.machine,
        "system": facts.system,
        "platform": facts.platform,
    }


def _ratio(above: float, below: float) -> float:
    return above / below if below else 0.0


def _shown(ranks: Sequence[int]) -> str:
    more = "" if len(ranks) <= 20 else f" and {len(ranks) - 20} more"
    return ", ".join(str(rank) for rank in ranks[:20]) + more
