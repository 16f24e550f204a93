"""The JSON objects of the work protocol, as typed records.

Layer: `core.work`; pure. Unknown fields are ignored on reading, so that an older release can read what a newer one
wrote within the same `v`; an unknown `v` is refused.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from pagemill_core.errors import IntegrityError

VERSION = 1
RunState = Literal["Open", "Sealing", "Finished", "GivenUp"]
Desired = Literal["Run", "Pause", "Stop"]
Ending = Literal["Committed", "Failed", "Drained", "Lost"]


class Record(BaseModel):
    """One JSON object with a version."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")

    v: Literal[1] = 1

    def to_bytes(self) -> bytes:
        """The record as JSON; field order is the class's, so equal records give equal bytes."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes, key: str) -> Self:
        """Read a record. Raises: IntegrityError naming `key` when the object is not one."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise IntegrityError(
                f"{key} is not a {cls.__name__} of version {VERSION}: {where}: {first['msg']}",
                advice="the object was damaged or written by a newer release; upgrade, or restore it from a backup",
            ) from error


class Sub(BaseModel):
    """A part of a record."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


class Holder(Sub):
    """The process that owns a run, so that one on the same machine can see that it died."""

    host: str = ""
    boot_id: str = ""
    pid: int = 0
    started: str = ""


class RunEntry(Record):
    """A ledger entry, changed only by compare-and-swap.

    `owner` is the CR's uid or the invocation's ulid, "" when released; `epoch` grows at each take-over; `beat` at each
    renewal, so that an unchanged entry can be told from a renewed one. `write` names the last write, so that a lost
    reply is recognised. `active_seconds` is the time an owner was at work, held against the deadline.
    """

    seq: int = Field(ge=1)
    work_key: str
    kind: str
    state: RunState = "Open"
    desired: Desired = "Run"
    owner: str = ""
    owner_name: str = ""
    holder: Holder = Holder()
    epoch: int = 1
    beat: int = 0
    write: str = ""
    expires_at: str = ""
    active_seconds: float = 0.0
    fingerprint: str = ""
    created_at: str = ""
    finished_at: str = ""
    reason: str = ""

    @property
    def is_final(self) -> bool:
        return self.state in ("Finished", "GivenUp")


class Counts(Sub):
    """Items of a shard or a run by state."""

    planned: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0

    def add_up(self) -> bool:
        return self.planned == self.succeeded + self.failed + self.skipped

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            planned=self.planned + other.planned,
            succeeded=self.succeeded + other.succeeded,
            failed=self.failed + other.failed,
            skipped=self.skipped + other.skipped,
        )


class FailureSample(Sub):
    """One failed item, shortened for status and reports."""

    item: str
    error_class: str = Field(validation_alias=AliasChoices("class", "error_class"), serialization_alias="class")
    message: str = ""


class OutputRef(Sub):
    """An object that an attempt wrote, with what is needed to check it later."""

    key: str
    size: int
    token: str = ""
    crc32: str
    rows: int = 0


class PlanPart(Sub):
    """One table of the plan: `shards` shards from `first_shard`, `rows` rows from `first_row`."""

    key: str
    size: int
    sha256: str
    first_shard: int
    shards: int
    first_row: int
    rows: int


class PlanPointer(Record):
    """`plan.json`: created once, names the tables that count. `work` is the job's work fields as the user gave them.

    `subtracted` are the given-up runs whose committed successes this plan leaves out; whoever finalizes this run
    completes their views too, since nobody else will.
    """

    run: str
    attempt: str
    kind: str
    work_key: str
    work: dict[str, Any]
    fingerprint: str
    fingerprint_fields: dict[str, Any]
    items: int
    shards: int
    failed_at_plan: int = 0
    tombstones: int = 0
    already_done: int = 0
    subtracted: list[str] = []
    source_uri: str = ""
    parts: list[PlanPart] = []
    columns: list[str] = []
    column_types: dict[str, str] = {}
    warnings: list[str] = []
    planned_at: str = ""


class Marker(Record):
    """A commit marker, at most 4 KB. `failure_classes` counts failed items by class, `failures` shows at most three."""

    shard: int
    attempt: str
    plan: str
    fingerprint: str
    items: Counts
    failures: list[FailureSample] = []
    failure_classes: dict[str, int] = {}
    outputs: list[OutputRef] = []
    started: str
    finished: str
    worker: str = ""
    seconds: float = 0.0
    stage_seconds: dict[str, float] = {}
    sealed: bool = False


class AttemptRecord(Record):
    """One execution of a shard by one worker; no `ending` and no marker of this attempt means a death.

    `in_flight` names the rows at work, from the shard's second attempt on. `memory_rung` says with how much memory.
    """

    shard: int
    attempt: str
    worker: str
    started: str
    ending: Ending | None = None
    reason: str = ""
    in_flight: list[int] = []
    memory_rung: int = 0


class PublishedView(Sub):
    """A view as written: enough to see later that it was damaged."""

    key: str
    size: int
    crc32: str


class PublishedRecord(Record):
    """The views of one shard, written after all of them are."""

    shard: int
    seq: int
    views: list[PublishedView] = []


class UsageRecord(Record):
    """What one pod has used so far: `seconds` of a machine at `price_per_hour`, and money paid to an API."""

    pod: str
    pool: str = ""
    price_per_hour: str = "0"
    seconds: float = 0.0
    api_cost: str = "0"


class WaveRecord(Record):
    """The shards of one wave as inclusive ranges."""

    number: int
    ranges: list[tuple[int, int]]
    memory_rung: int = 0


class Totals(Sub):
    """What a tracker has counted: `shards_done` markers and the items in them."""

    shards: int = 0
    shards_done: int = 0
    items: Counts = Counts()
    failure_classes: dict[str, int] = {}
    failures: list[FailureSample] = []
    seconds: float = 0.0
    stage_seconds: dict[str, float] = {}


class RunReport(Record):
    """How one ownership of a run ended."""

    run: str
    kind: str
    outcome: str
    message: str = ""
    totals: Totals
    spent: str = "0"
    currency: str = "USD"
    active_seconds: float = 0.0
    ended_at: str = ""


class Success(Record):
    """`_SUCCESS.json`: created once, when every shard has a marker and every view is written."""

    run: str
    kind: str
    totals: Totals
    fingerprint: str
    dataset: list[OutputRef] = []


class IndexPart(Sub):
    """One object of the item index."""

    key: str
    size: int
    rows: int


class IndexPointer(Record):
    """What the item index is now: the newest outcome of every item that runs up to `seq` have seen.

    Replaced by compare-and-swap, and only by a pointer of a higher `seq`.
    """

    seq: int
    run: str
    parts: list[IndexPart] = []
