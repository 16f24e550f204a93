"""Every key that Pagemill writes below an output, in one place.

Layer: `core.work`; pure. The layout is frozen: readers of old runs exist. docs/reference/layout.md describes it, and
a test holds the two together.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

ROOT = ".pagemill"
RUNS_PREFIX = f"{ROOT}/runs/"
SEGMENT_SHARDS = 1000  # one LIST page: a segment of markers is read with one call
INDEX_POINTER = f"{ROOT}/index/current.json"

_RUN_ENTRY = re.compile(rf"^{re.escape(RUNS_PREFIX)}(\d{{8}})\.json$")
_SHARD_IN_KEY = re.compile(r"/(\d{8})(?:/|$)")


def run_entry(seq: int) -> str:
    """The ledger entry of run `seq`, its only mutable object."""
    return f"{RUNS_PREFIX}{seq:08d}.json"


def seq_of_run_entry(key: str) -> int | None:
    """The sequence number in a ledger key, None for any other key."""
    match = _RUN_ENTRY.match(key)
    return int(match[1]) if match else None


def run_id(seq: int, work_key: str) -> str:
    """`<seq8>-<hash8>`; never reused, because ledger entries are never deleted."""
    return f"{seq:08d}-{work_key[:8]}"


def segment_of(shard: int) -> int:
    return shard // SEGMENT_SHARDS


def shard_of(key: str) -> int:
    """The shard in a commit, published, attempt or partial key. Raises: ValueError for any other key."""
    match = _SHARD_IN_KEY.search(key)
    if match is None:
        raise ValueError(f"{key!r} names no shard")
    return int(match[1])


def dataset_part(seq: int, segment: int) -> str:
    """One segment's rows of the user-facing dataset."""
    return f"dataset/run={seq:08d}/part-{segment:05d}.parquet"


def index_part(run: str, attempt: str, part: int) -> str:
    """A part of the item index that run `run` folded; shown only through `INDEX_POINTER`."""
    return f"{ROOT}/index/{run}/{attempt}/items-{part:05d}.parquet"


@dataclass(frozen=True, slots=True)
class RunLayout:
    """The keys of one run."""

    run: str

    @property
    def prefix(self) -> str:
        return f"{ROOT}/{self.run}/"

    @property
    def seq(self) -> int:
        return int(self.run[:8])

    @property
    def plan_pointer(self) -> str:
        return f"{self.prefix}plan/plan.json"

    def plan_attempt(self, attempt: str) -> str:
        """The folder of one planner's tables; they count only once `plan_pointer` names them."""
        return f"{self.prefix}plan/{attempt}/"

    def wave(self, number: int) -> str:
        return f"{self.prefix}waves/{number}.json.zst"

    @property
    def waves_prefix(self) -> str:
        return f"{self.prefix}waves/"

    def data(self, shard: int, attempt: str, name: str) -> str:
        """An attempt's own output. The hash byte spreads keys over the store's partitions."""
        hash_byte = hashlib.sha256(f"{shard:08d}".encode()).hexdigest()[:2]
        return f"{self.prefix}data/{hash_byte}/{shard:08d}/{attempt}/{name}"

    def attempt(self, shard: int, attempt: str) -> str:
        return f"{self.prefix}attempts/{shard:08d}/{attempt}.json"

    def attempts_of_segment(self, segment: int) -> str:
        """A string prefix: shard names begin with their segment's five digits."""
        return f"{self.prefix}attempts/{segment:05d}"

    def partial(self, shard: int, attempt: str) -> str:
        return f"{self.prefix}partial/{shard:08d}/{attempt}.parquet"

    def partials_of_segment(self, segment: int) -> str:
        return f"{self.prefix}partial/{segment:05d}"

    def marker(self, shard: int) -> str:
        """The commit marker: its existence means that the shard is done."""
        return f"{self.prefix}commit/{segment_of(shard):05d}/{shard:08d}"

    def markers_of_segment(self, segment: int) -> str:
        return f"{self.prefix}commit/{segment:05d}/"

    @property
    def markers_prefix(self) -> str:
        return f"{self.prefix}commit/"

    def published(self, shard: int) -> str:
        return f"{self.prefix}published/{segment_of(shard):05d}/{shard:08d}"

    def published_of_segment(self, segment: int) -> str:
        return f"{self.prefix}published/{segment:05d}/"

    def usage(self, pod: str) -> str:
        return f"{self.prefix}usage/{pod}.json"

    @property
    def usage_prefix(self) -> str:
        return f"{self.prefix}usage/"

    def rollup(self, segment: int) -> str:
        return f"{self.prefix}rollup/{segment:05d}.jsonl.zst"

    @property
    def rollup_prefix(self) -> str:
        return f"{self.prefix}rollup/"

    def report(self, epoch: int) -> str:
        return f"{self.prefix}reports/{epoch:08d}.json"

    @property
    def success(self) -> str:
        return f"{self.prefix}_SUCCESS.json"
